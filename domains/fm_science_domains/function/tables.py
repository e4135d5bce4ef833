"""Functions in tables of cells, .csv: a function a line, or a sensor a line."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from .sensors import Sampled, on_axes, scattered

AXES = ("x", "y", "z")


def rows(file: Path) -> list[list[str]]:
    """The cells of a .csv file, without lines that are empty. Raises ValueError where none is left."""
    every = [[w.strip() for w in row] for row in csv.reader(file.read_text(encoding="utf-8-sig").splitlines())]
    found = [row for row in every if any(row)]
    if not found:
        raise ValueError("the file is empty")
    return found


def functions(rows: list[list[str]], stem: str, periodic: bool) -> list[Sampled]:
    """The functions of a wide or long table. Where the first cell is a word or empty, the first column holds names;
    otherwise functions are named after ``stem``. Raises ValueError where the table is neither."""
    if "function" in [w.lower() for w in rows[0]]:
        return listed(rows)
    named = not rows[0][0] or not _number(rows[0][0])
    places = rows.pop(0)[1:] if named and all(_number(w) for w in rows[0][1:]) else None
    values = [[_cell(w) for w in (row[1:] if named else row)] for row in rows]
    width = {len(v) for v in values} | ({len(places)} if places else set())
    if len(width) != 1:
        raise ValueError(f"lines of {', '.join(map(str, sorted(width)))} values; each must have as many as the first")
    n = width.pop()
    even = torch.arange(n, dtype=torch.float64) / (n if periodic else max(1, n - 1))
    along = torch.tensor([float(w) for w in places], dtype=torch.float64) if places else even
    if not bool((along.diff() > 0).all()):
        raise ValueError("the places in the first line must ascend")
    found = on_axes(torch.tensor(values, dtype=torch.float64)[..., None], [along], periodic, stem)
    if not named:
        return found
    return [Sampled(f.values, f.coords, f.grid, f.weights, row[0]) for f, row in zip(found, rows, strict=True)]


def listed(rows: Sequence[Sequence[str]]) -> list[Sampled]:
    """A sensor a line under a first line that names the columns: x, y, z are places, ``function`` tells functions
    apart, wherever their lines stand; a first column without a name is an index, the others are values. Raises
    ValueError where that is not so."""
    head = [w.strip().lower() for w in rows[0]] if rows else []
    where = [head.index(a) for a in AXES if a in head]
    what = [k for k, word in enumerate(head) if word not in (*AXES, "function") and (k or word)]
    if not where or not what:
        raise ValueError("the first line must name the columns x[, y[, z]] and at least one of values")
    key = head.index("function") if "function" in head else None
    tables: dict[str, list[Sequence[str]]] = {}
    for row in rows[1:]:
        tables.setdefault(row[key] if key is not None else "", []).append(row)
    found = []
    for name, table in tables.items():
        values, coords = ([[_cell(row[k]) for k in columns] for row in table] for columns in (what, where))
        found.append(scattered(values, coords, name))
    return found


def _number(word: str) -> bool:
    try:
        float(word or "nan")
    except ValueError:
        return False
    return True


def _cell(word: str) -> float:
    return float(word) if word else math.nan
