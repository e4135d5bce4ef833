"""A package with a space of one's own, written by one command: it keeps the laws, and says where it does not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from .conftest import Command


@pytest.fixture
def package(fm: Command, tmp_path: Path) -> Path:
    """The folder of a new package ``fm-sea_ice``."""
    done = fm("new-space", "sea_ice")
    assert done.code == 0, done.err
    return tmp_path / "fm-sea_ice"


def test_the_package_passes_its_own_tests(package: Path, process: Command) -> None:
    done = process("-q", str(package / "tests"), python=("-m", "pytest", "-o", f"pythonpath={package}"))
    assert (done.code, "4 passed" in done.out) == (0, True), done.out


def test_what_every_package_has(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["license"]) == ("fm-sea_ice", "MIT")
    assert "pytest" in (package / ".github" / "workflows" / "test.yaml").read_text()
    assert "__pycache__/" in (package / ".gitignore").read_text()
    assert "The fm-sea_ice authors" in (package / "LICENSE").read_text()
    assert "class SeaIce(Leaf)" in (package / "fm_sea_ice" / "__init__.py").read_text()


def test_nothing_is_left_of_the_example(package: Path) -> None:
    for file in package.rglob("*"):
        assert "ratios" not in file.name
        if file.is_file():
            words = file.read_text()
            assert not [word for word in ("ratios", "Ratios", "NAME", "YEAR") if word in words], file


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "takes one name"), (["Ice"], "cannot name a space"), (["ice", "out=full"], "full exists already")],
)
def test_a_name_or_place_that_cannot_be(fm: Command, tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept.txt").write_text("mine")
    done = fm("new-space", *words)
    assert (done.code, done.out, expected in done.err) == (2, "", True)
