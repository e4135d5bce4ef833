"""A package outside, ``examples/fm-earth``: it is found, trains, draws and is judged, and its own tests pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import ROOT, Command

PACKAGE = ROOT / "examples" / "fm-earth"
PUBLIC = {"fm_science", "fm_science.figures"}  # what the package may import of the library


@pytest.mark.usefixtures("outside")
def test_from_a_table_to_likelihoods_and_a_map(fm: Command, tmp_path: Path) -> None:
    from fm_earth.made import main as make

    make(["events.csv"])
    assert fm("train", "domain=earth", "preset=small", "data.file=events.csv", "run=run").code == 0
    assert fm("sample", "run", "n=3").code == 0
    drawn = (tmp_path / "run" / "samples" / "events_000000.csv").read_text().splitlines()
    assert (drawn[0], len(drawn)) == ("lat,lon", 4)
    judged = fm("evaluate", "run", "n=10")
    assert judged.code == 0, judged.err
    assert "test log-likelihood, kernel density" in judged.out
    for name in ("map.png", "density.png", "likelihoods.csv", "flow.csv"):
        assert (tmp_path / "run" / "report" / name).is_file()


@pytest.mark.usefixtures("outside")
def test_a_wrong_row_is_one_line(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("lat,lon\n1,2\n95,3\n")
    done = fm("train", "domain=earth", "preset=small", "data.file=bad.csv", "run=run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "bad.csv: 1 of 2 rows give no place; first line 3: latitude 95" in done.err


def test_it_uses_the_public_interface_alone() -> None:
    found = set()
    for file in (PACKAGE / "fm_earth").glob("*.py"):
        found |= set(re.findall(r"^(?:from|import) (fm_science[\w.]*)", file.read_text(), re.MULTILINE))
    assert found <= PUBLIC


def test_it_passes_its_own_tests(process: Command) -> None:
    done = process("-q", str(PACKAGE / "tests"), python=("-m", "pytest", "-o", f"pythonpath={PACKAGE}"))
    assert done.code == 0, done.out  # pytest ends with 5 where it finds no test
