"""A package with a domain of one's own, written by one command: it installs, trains and passes its own tests."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from .conftest import Command, metadata


@pytest.fixture
def crystal(fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a new package ``fm-crystal``, as pip would install it."""
    done = fm("new-domain", "crystal")
    assert done.code == 0, done.err
    folder = tmp_path / "fm-crystal"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata(folder, project["name"], project["version"], **project["entry-points"]["fm_science.domains"])
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    return folder


@pytest.mark.usefixtures("crystal")
def test_a_new_domain_is_found_and_trains_at_once(fm: Command, tmp_path: Path) -> None:
    listed = next(line for line in fm("domains").out.splitlines() if line.startswith("crystal"))
    assert "fm-crystal 0.1.0" in listed
    assert "quick" in listed
    assert fm("train", "domain=crystal", "preset=small", "run=run").code == 0
    assert fm("sample", "run", "n=3").code == 0
    assert fm("evaluate", "run").code == 0
    assert (tmp_path / "run" / "report" / "points.png").is_file()


def test_the_next_command_quotes_the_folder(fm: Command, tmp_path: Path) -> None:
    done = fm("new-domain", "crystal", "out=my crystal (1)")
    assert "next: pip install -e 'my crystal (1)'; " in done.out
    assert (tmp_path / "my crystal (1)" / "pyproject.toml").is_file()


def test_a_new_domain_passes_its_own_tests(crystal: Path, process: Command) -> None:
    done = process("-q", str(crystal / "tests"), python=("-m", "pytest", "-o", f"pythonpath={crystal}"))
    assert (done.code, "3 passed" in done.out) == (0, True), done.out


def test_nothing_is_left_of_the_name_of_the_example(crystal: Path) -> None:
    for file in crystal.rglob("*"):
        assert "ring" not in file.name
        if file.suffix in (".py", ".md", ".toml", ".yaml"):
            assert "fm_ring" not in file.read_text()
            assert "fm-ring" not in file.read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "takes one name"),
        (["Crystal"], "lower-case word"),
        (["my-crystal"], "lower-case word"),
        (["protein"], "installed already (built in)"),
        (["ring"], "installed already (fm-ring 1.2.3)"),
        (["sea_ice", "oot=here"], "did you mean 'out'?"),
        (["sea_ice", "out=full"], "full exists already"),
    ],
)
def test_a_name_or_place_that_cannot_be(fm: Command, tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    done = fm("new-domain", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert expected in done.err
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["kept.txt"]
