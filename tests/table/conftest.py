"""A small table with an angle, classes, whole numbers, missing cells, a constant and names of rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

COLUMNS = "bearing:angle,kind:class,id:ignore"


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        kind = rng.choice(["gull", "tern"])
        bearing = (rng.normal(350 if kind == "gull" else 120, 20)) % 360
        cells = [f"b{i}", kind, f"{bearing:.1f}", f"{rng.lognormal(2, 0.5):.2f}", str(rng.poisson(3)), "A"]
        for j in (1, 2, 3):
            if rng.random() < 0.1:
                cells[j] = "NA"
        rows.append(cells)
    file = tmp_path / "birds.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "kind", "bearing", "speed", "eggs", "site"], *rows])
    return file


@pytest.fixture
def holes(birds: Path) -> Path:
    """The first rows of that table, with cells that are to be filled."""
    with birds.open(newline="") as stream:
        rows = list(csv.reader(stream))[:9]
    for k, row in enumerate(rows[1:]):
        row[1 + k % 3] = ""
    file = birds.with_name("holes.csv")
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return file
