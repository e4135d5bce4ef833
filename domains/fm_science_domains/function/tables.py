"""Functions in tables of cells, .csv: one function per line, or one sensor per line.

Cells are separated by commas, semicolons, tabs or spaces; comments are skipped; empty cells and NA were not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fm_science.cells import cells, is_number, measured, table_hint
from fm_science.files import read_text

from .sensors import Sampled, on_axes, scattered

AXES = ("x", "y", "z")


def rows(file: Path) -> list[list[str]]:
    """The cells of a .csv file, without empty lines. Raises ValueError if none is left."""
    return cells(read_text(file))


def functions(rows: list[list[str]], stem: str, periodic: bool) -> list[Sampled]:
    """The functions of a wide or long table. If the first cell is a text or empty, the first column has names;
    otherwise functions are named after ``stem``. Raises ValueError if the table is neither."""
    if "function" in [w.lower() for w in rows[0]]:
        return listed(rows)
    named = not is_number(rows[0][0])
    places = rows[0][1:] if named and all(map(is_number, rows[0][1:])) else None
    if named and places is None and not any(is_number(word) for word in rows[0]):
        raise ValueError(
            f"its first line, {','.join(rows[0])[:60]}, neither gives the places of sensors (name,0,0.5,1) nor names "
            f"the columns of a long table (function,x,value){table_hint(rows, names=1)}"
        )
    body = rows[1:] if places else rows
    values = [_row(row[1:] if named else row, k) for k, row in enumerate(body, len(rows) - len(body) + 1)]
    width = {len(v) for v in values} | ({len(places)} if places else set())
    if len(width) != 1:
        raise ValueError(f"lines of {', '.join(map(str, sorted(width)))} values; each must have as many as the first")
    n = width.pop()
    if n < 2:
        raise ValueError("a line has one value; a function is known at two sensors or more")
    even = torch.arange(n, dtype=torch.float64) / (n if periodic else max(1, n - 1))
    along = torch.tensor([float(w) for w in places], dtype=torch.float64) if places else even
    there = torch.tensor(values, dtype=torch.float64)
    if bool((along.diff() < 0).all()):  # as in files of spectra
        along, there = along.flip(0), there.flip(1)
    if not bool((along.diff() > 0).all()):
        raise ValueError("the places in the first line must ascend, or descend")
    found = on_axes(there[..., None], [along], periodic, stem)
    if not named:
        return found
    return [Sampled(f.values, f.coords, f.grid, f.weights, row[0]) for f, row in zip(found, body, strict=True)]


def listed(rows: Sequence[Sequence[str]]) -> list[Sampled]:
    """One sensor per line under a first line that names the columns: x, y, z are coordinates, ``function`` names the
    function, in any order of lines; a first column without a name is an index, the others are values. Raises ValueError
    otherwise."""
    head = [w.strip().lower() for w in rows[0]] if rows else []
    where = [head.index(a) for a in AXES if a in head]
    what = [k for k, word in enumerate(head) if word not in (*AXES, "function") and (k or word)]
    if not where or not what:
        wanted = "the first line must name the columns x[, y[, z]] and at least one of values"
        raise ValueError(wanted + table_hint(rows))
    key = head.index("function") if "function" in head else None
    tables: dict[str, list[tuple[int, Sequence[str]]]] = {}
    for k, row in enumerate(rows[1:], 2):
        if len(row) != len(head):
            raise ValueError(f"row {k} has {len(row)} cells, the first line {len(head)}")
        tables.setdefault(row[key] if key is not None else "", []).append((k, row))
    found = []
    for name, table in tables.items():
        values, coords = ([_row([row[c] for c in columns], k) for k, row in table] for columns in (what, where))
        found.append(scattered(values, coords, name))
    return found


def _row(words: Sequence[str], number: int) -> list[float]:
    """The values of a row. Raises ValueError with its number for a text that is not a number."""
    try:
        return [measured(word) for word in words]
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from None
