"""Rows as decoded objects, and the files that they are written to and read from.

Samples are one CSV with the columns of the table in their order, written as the table wrote them: whole numbers whole,
classes by their words, real numbers with as many decimals. Rows of the user that were filled keep every cell that they
had, and the columns that are not learned. Where each row was filled several times, ``cells.csv`` has the mean and
spread of every cell that was filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fm_science.errors import UserError
from fm_science.samples import files_in

from .alignment import aligned, values
from .columns import Column
from .data import Summary
from .files import SUFFIXES, Frame, Numbers, read, write_csv

SAMPLES, FILLED, CELLS = "samples.csv", "filled.csv", "cells.csv"


@dataclass(frozen=True, eq=False)
class Filled:
    """Which row of the user a decoded row is.

    Attributes:
        row: its number, from 0.
        draw: how often it was filled before.
        draws: how often it is filled in all.
        header: the columns of its file.
        texts: the cells that it had, by name of the column.
    """

    row: int
    draw: int
    draws: int
    header: tuple[str, ...]
    texts: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Row:
    """One row.

    Attributes:
        values: ``(C,)`` in the user's units, numbers of classes for class columns; NaN where missing or not learned.
        columns: what they are.
        header: whether files of such rows name their columns.
        filled: which row of the user it is, where it is one.
    """

    values: Numbers
    columns: tuple[Column, ...] = field(repr=False)
    header: bool = True
    filled: Filled | None = None

    @property
    def cells(self) -> dict[str, str]:
        """The row as it is written, by name of the column; an empty word where a cell is missing."""
        own = {c.name: c.text(v) for c, v in zip(self.columns, self.values.tolist(), strict=True) if c.kind != "ignore"}
        if self.filled is None:
            return own
        return {name: self.filled.texts.get(name, own.get(name, "")) for name in self.filled.header}


def matrix(rows: Sequence[Row]) -> Numbers:
    """The values of rows, ``(n, C)``."""
    return np.stack([row.values for row in rows]) if rows else np.zeros((0, 0))


def rows_of(found: Numbers, summary: Summary) -> list[Row]:
    """Values ``(n, C)`` as rows."""
    columns, header = summary.encoding.columns, summary.header
    return [Row(row, columns, header) for row in found]


def write(rows: Sequence[Row], folder: Path, first: int = 0) -> list[Path]:
    """Write rows into one CSV in the folder; those that are not the first are added to it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not rows:
        return []
    path = folder / (SAMPLES if rows[0].filled is None else FILLED)
    again = first > 0 and path.is_file()
    filled = rows[0].filled
    before = _begun(rows[0], path) if filled is not None and filled.draws > 1 and again else []
    cells = [row.cells for row in rows]
    write_csv([list(row.values()) for row in cells], path, list(cells[0]) if rows[0].header else None, again)
    if filled is None or filled.draws == 1:
        return [path]
    _summarise([*before, *rows], folder / CELLS, first > 0 and (folder / CELLS).is_file())
    return [path, folder / CELLS]


def _begun(row: Row, path: Path) -> list[Row]:
    """The draws of the same row of the user that an earlier call wrote: the last rows of the file."""
    assert row.filled is not None
    frame, count = read(path, "yes" if row.header else "no"), row.filled.draw
    names = row.filled.header
    by_name = dict(zip(names, frame.series, strict=True))
    found = np.full((len(frame), len(row.columns)), np.nan)
    for k, c in enumerate(row.columns):
        if c.learned:
            found[:, k] = c.numbers(by_name[c.name], frame.source)
    earlier = found[len(found) - count :]
    return [replace(row, values=v, filled=replace(row.filled, draw=d)) for d, v in enumerate(earlier)]


def _summarise(rows: Sequence[Row], path: Path, append: bool) -> None:
    """One line for every cell that was filled of the rows whose draws are all here."""
    by_row: dict[int, list[Row]] = {}
    for row in rows:
        if row.filled is not None:
            by_row.setdefault(row.filled.row, []).append(row)
    lines = []
    for number, draws in sorted(by_row.items()):
        last = draws[-1].filled
        if last is None or last.draw + 1 < last.draws:
            continue  # the other draws are still to come
        for k, c in enumerate(draws[0].columns):
            if c.learned and c.name not in last.texts:
                mean, spread = cell_summary(c, np.array([row.values[k] for row in draws]))
                lines.append([str(number + 1), c.name, str(len(draws)), mean, f"{spread:.6g}"])
    write_csv(lines, path, ["row", "column", "draws", "mean", "spread"], append)


def cell_summary(column: Column, v: Numbers) -> tuple[str, float]:
    """The mean and spread of draws of a cell ``(n,)``: mean and standard deviation; on the circle the mean direction
    and the circular standard deviation (Mardia & Jupp 2000, section 2.3); of classes the commonest, and how often it
    was another."""
    if column.kind == "class":
        counts = np.bincount(v[~np.isnan(v)].astype(int), minlength=len(column.classes))
        top = int(counts.argmax())
        return column.classes[top], 1 - counts[top] / max(1, counts.sum())
    if column.kind == "period":
        z = np.exp(1j * column.coordinate(v)).mean()
        length = min(max(abs(z), 1e-300), 1.0)
        mean = float(column.value(np.array([np.angle(z)]))[0])
        return f"{mean:.6g}", float(column.period / (2 * np.pi) * np.sqrt(-2 * np.log(length)))
    return f"{v.mean():.6g}", float(v.std(ddof=1)) if len(v) > 1 else 0.0


def read_rows(paths: Sequence[str | Path], summary: Summary) -> list[Row]:
    """The rows of files, and of folders of samples.

    Raises:
        UserError: where there are none, or their columns are others than those of the run.
    """
    files = [file for path in map(Path, paths) for file in (_tables(path) if path.is_dir() else [path])]
    found = [row for file in files for row in _rows(file, summary)]
    if not found:
        raise UserError(f"no rows in {', '.join(map(str, paths))}: expected {', '.join(SUFFIXES)}")
    return found


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder, but for summaries of cells."""
    return [f for f in files_in(folder) if f.suffix.lower() in SUFFIXES and f.name != CELLS]


def _rows(file: Path, summary: Summary) -> list[Row]:
    encoding = summary.encoding
    frame = read(file, "auto" if summary.header else "no")
    kept = [c for c in encoding.columns if c.kind != "ignore"]
    narrow = aligned(frame, [c.name for c in kept], summary.header)
    by_name = {s.name: s for s in narrow.series}
    blank = narrow.series[0]
    whole = Frame(tuple(by_name.get(c.name, blank) for c in encoding.columns), True, frame.source)
    return rows_of(values(whole, encoding), summary)
