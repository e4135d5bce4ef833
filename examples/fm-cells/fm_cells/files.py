"""Cells in files: a time and coordinates for each, and perhaps the group it belongs to, as people keep them.

A table of text names its columns in the first line; an .h5ad file keeps coordinates and annotations apart (see
:mod:`fm_cells.h5ad`). A row that gives no cell is told with its line, and nothing is guessed but the names of columns.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_science import UserError

from . import h5ad

TIMES = ("time", "timepoint", "day", "days", "hour", "hours", "age", "stage", "t")
GROUPS = ("group", "celltype", "branch", "cluster", "clusters", "leiden", "louvain", "annotation", "lineage", "state")
NAMES = ("", "id", "cell", "cellid", "barcode", "index", "obsnames", "unnamed0")  # columns that name cells
TEXT = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
ARCHIVE = ".h5ad"


class Cell(NamedTuple):
    """A cell: when it was seen, and its coordinates in the unit of the file."""

    time: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Columns:
    """What a user says of a file; ``None``: it is guessed.

    Attributes:
        time, group: names of the columns of times and groups.
        columns: names of the coordinates.
        embedding: which array of an .h5ad file holds the coordinates.
    """

    time: str | None = None
    group: str | None = None
    columns: tuple[str, ...] | None = None
    embedding: str | None = None


@dataclass(frozen=True)
class Table:
    """Cells as they were read.

    Attributes:
        times: ``(n,)``.
        values: ``(n, d)`` coordinates.
        groups: the group of each cell; empty where the file has none.
        columns: the names of the coordinates.
        about: what was chosen in the file, in one line.
        skipped: what is wrong with rows that were left out, one line each.
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]
    groups: tuple[str, ...]
    columns: tuple[str, ...]
    about: str
    skipped: tuple[str, ...] = ()


def read_table(file: str | Path, wanted: Columns = Columns(), skip: bool = False) -> Table:
    """The cells in a file.

    Args:
        file: .csv, .tsv or .txt with a first line that names the columns, or .h5ad.
        asked: which columns hold what.
        skip: leave rows out that give no cell, in place of an error.

    Raises:
        UserError: where there is no such file, columns are not found, or rows give no cell.
    """
    path = Path(file)
    kind = path.suffix.lower()
    if kind not in TEXT and kind != ARCHIVE:
        raise UserError(f"{path}: expected cells as {', '.join((*TEXT, ARCHIVE))}")
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}: expected cells as {', '.join((*TEXT, ARCHIVE))}")
    return _archive(path, wanted, skip) if kind == ARCHIVE else _text(path, wanted, skip)


def number(text: str) -> float:
    """A number, or the one number in a text such as "day 7", "E8.5" or "48h"; NaN where there is none."""
    found = re.fullmatch(r"[A-Za-z_\s]*?([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*[A-Za-z]*", text.strip())
    return float(found[1]) if found else math.nan


def choose(path: Path, what: str, names: Sequence[str], wanted: str | None, known: Sequence[str]) -> str | None:
    """The name of a column: the one that was asked for, or the first that looks like one of the ``known``; ``None``:
    none does. Raises UserError where the column that was asked for is not there."""
    if wanted is not None and wanted not in names:
        raise UserError(f"{path}: no column {wanted!r}; say which by data.{what}=NAME, one of: {_listed(names)}")
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}
    return wanted or next((plain[word] for word in known if word in plain), None)


def _text(path: Path, wanted: Columns, skip: bool) -> Table:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; save it as CSV with that encoding") from error
    numbered = [(k, line) for k, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    if len(numbered) < 2:
        raise UserError(f"{path} holds no cells: expected a line of names, and a line for each cell")
    mark = max(",;\t", key=numbered[0][1].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader((line for _, line in numbered), delimiter=mark)]
    names, rows = rows[0], rows[1:]
    wide = [k for k, row in enumerate(rows) if len(row) != len(names)]
    if wide:
        found = f"{len(rows[wide[0]])} cells where the first line names {len(names)} columns"
        raise UserError(f"{path}: line {numbered[wide[0] + 1][0]} has {found}")
    time = _needed_time(path, names, wanted)
    group = choose(path, "group", names, wanted.group, GROUPS)
    columns = _coordinates(path, names, rows, wanted, {time, group or time})
    places = [names.index(name) for name in columns]
    times = np.array([number(row[names.index(time)]) for row in rows])
    values = np.array([[_float(row[k]) for k in places] for row in rows])
    groups = tuple(row[names.index(group)] for row in rows) if group else ()
    left = [name for name in names if name not in (*columns, time, group)]
    about = f"time: {time}; group: {group or 'none'}; coordinates: {_listed(columns)}"
    about += f"; not used: {_listed(left)}" if left else ""
    where = [f"line {k}" for k, _ in numbered[1:]]
    return _checked(path, Table(times, values, groups, tuple(columns), about), where, skip)


def _needed_time(path: Path, names: Sequence[str], wanted: Columns) -> str:
    time = choose(path, "time", names, wanted.time, TIMES)
    if time is None:
        raise UserError(f"{path}: no column looks like a time; say which by data.time=NAME, one of: {_listed(names)}")
    return time


def _coordinates(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], wanted: Columns, taken: set[str]
) -> list[str]:  # fmt: skip
    """The columns of coordinates: those that were asked for, or all that hold a number in the first row."""
    if wanted.columns is not None:
        for name in wanted.columns:
            choose(path, "columns", names, name, ())
        return list(wanted.columns)
    found = [
        name for k, name in enumerate(names)
        if name not in taken and re.sub(r"[^a-z0-9]", "", name.lower()) not in NAMES
        and any(math.isfinite(_float(row[k])) for row in rows[:100])
    ]  # fmt: skip
    if not found:
        raise UserError(f"{path}: no column of numbers beside the time; name them by data.columns=A,B,C")
    return found


def _archive(path: Path, wanted: Columns, skip: bool) -> Table:
    with h5ad.opened(path) as archive:
        names = archive.annotations
        time = _needed_time(path, names, wanted)
        group = choose(path, "group", names, wanted.group, GROUPS)
        key = archive.embedding(wanted.embedding)
        values, columns = archive.coordinates(key)
        if wanted.columns is not None:
            for name in wanted.columns:
                choose(path, "columns", columns, name, ())
            values = values[:, [columns.index(name) for name in wanted.columns]]
            columns = wanted.columns
        times = np.array([number(str(value)) for value in archive.annotation(time)])
        groups = tuple(map(str, archive.annotation(group))) if group else ()
    about = f"time: {time}; group: {group or 'none'}; coordinates: {len(columns)} of {key}"
    where = [f"cell {k}" for k in range(len(times))]
    return _checked(path, Table(times, values, groups, tuple(columns), about), where, skip)


def _checked(path: Path, table: Table, where: Sequence[str], skip: bool) -> Table:
    """The table without rows that give no cell. Raises UserError where it has such rows, unless they may be left out,
    and where none is left."""
    good = np.isfinite(table.times) & np.isfinite(table.values).all(1)
    wrong = [f"{where[k]}: {_fault(table, k)}" for k in np.flatnonzero(~good)]
    if wrong and not skip:
        raise UserError(f"{path}: {len(wrong):,} of {len(good):,} rows give no cell; first {wrong[0]}; mend them, or "
                        "leave them out by data.skip=true")  # fmt: skip
    if not good.any():
        raise UserError(f"{path} holds no cells: expected a time and coordinates in each row")
    groups = tuple(name for name, keep in zip(table.groups, good, strict=True) if keep) if table.groups else ()
    return Table(table.times[good], table.values[good], groups, table.columns, table.about, tuple(wrong))


def _fault(table: Table, k: int) -> str:
    if not math.isfinite(table.times[k]):
        return "its time is no number"
    return f"{table.columns[int(np.flatnonzero(~np.isfinite(table.values[k]))[0])]!r} is no finite number"


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _listed(names: Sequence[str], most: int = 12) -> str:
    """Names with commas, a few of them where there are many."""
    more = f", ... ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read(paths: Iterable[str | Path]) -> list[Cell]:
    """Cells from files, or from the CSV files of folders. Raises UserError where there are none."""
    files = [f for path in map(Path, paths) for f in (sorted(path.glob("*.csv")) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"no CSV files in {', '.join(map(str, paths))}")
    tables = [read_table(file) for file in files]
    return [
        Cell(t, tuple(x)) for table in tables for t, x in zip(table.times.tolist(), table.values.tolist(), strict=True)
    ]


def write(samples: Sequence[Cell], columns: Sequence[str], folder: Path, first: int = 0) -> list[Path]:
    """One CSV with a line a cell: its time, and its coordinates under the names of the file that was learned from."""
    file = Path(folder) / f"cells_{first:06d}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", *columns])
        writer.writerows([f"{cell.time:g}", *(f"{value:.7g}" for value in cell.values)] for cell in samples)
    return [file]
