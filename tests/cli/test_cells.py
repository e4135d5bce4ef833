"""A package outside, ``examples/fm-cells``: it is found, trains on snapshots, and is judged at a time left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import ROOT, Command

PACKAGE = ROOT / "examples" / "fm-cells"
PUBLIC = {"fm_science", "fm_science.figures"}  # what the package may import of the library


@pytest.mark.usefixtures("outside")
def test_from_a_table_to_a_time_that_was_left_out(fm: Command, tmp_path: Path) -> None:
    from fm_cells.made import main as make

    make(["cells.csv"])
    done = fm("train", "domain=cells", "preset=small", "data.file=cells.csv", "data.leave_out=2", "run=run")
    assert done.code == 0, done.err
    assert fm("sample", "run", "n=3", "time=1.5").code == 0
    drawn = (tmp_path / "run" / "samples" / "cells_000000.csv").read_text().splitlines()
    assert (drawn[0], len(drawn)) == ("time,x1,x2,x3", 4)
    assert drawn[1].startswith("1.5,")
    judged = fm("evaluate", "run", "n=40", "untrained=false", "time=2")
    assert judged.code == 0, judged.err
    for row in ("floor: other cells of that time", "straight lines", "growth of upper, 1 to 3", "fate lower"):
        assert row in judged.out
    for name in ("cells.png", "rows.png", "growth.csv", "fates.csv", "flow.csv"):
        assert (tmp_path / "run" / "report" / name).is_file()


@pytest.mark.usefixtures("outside")
def test_a_wrong_row_is_one_line(fm: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("day,a\n0,2\n1,none\n")
    done = fm("train", "domain=cells", "preset=small", "data.file=bad.csv", "run=run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "bad.csv: 1 of 2 rows give no cell; first line 3: 'a' is no finite number" in done.err


def test_it_uses_the_public_interface_alone() -> None:
    found = set()
    for file in (PACKAGE / "fm_cells").glob("*.py"):
        found |= set(re.findall(r"^\s*(?:from|import) (fm_science[\w.]*)", file.read_text(), re.MULTILINE))
    assert found <= PUBLIC


def test_it_passes_its_own_tests(process: Command) -> None:
    done = process("-q", str(PACKAGE / "tests"), python=("-m", "pytest", "-o", f"pythonpath={PACKAGE}"))
    assert done.code == 0, done.out  # pytest ends with 5 where it finds no test
