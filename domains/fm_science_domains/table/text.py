"""Tables of text, and what every table becomes: series of cells, as they were written and as numbers.

An empty cell, and what people write for one (NA, nan, ?, ...), is a missing value. Cells are parted by commas,
semicolons, tabs, bars or white space, whichever cuts most lines into equally many; where it is no comma, numbers may
have decimal commas. Lines that begin with # are comments.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fm_science.errors import UserError

MISSING = frozenset(
    ("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil", "?", "-", "--", ".", "missing")
)
DELIMITERS = ("\t", ";", "|", ",")
Numbers = NDArray[np.float64]


@runtime_checkable
class DataFrame(Protocol):
    """What is asked of a data frame (pandas, and others alike): names of columns, and a column by its name that turns
    into an array."""

    columns: Any

    def __getitem__(self, name: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Series:
    """One column as it was read.

    Attributes:
        name: its name in the header.
        numbers: ``(n,)`` float64, NaN where missing; ``None`` where some cell is no number.
        texts: the cells as they were written, ``None`` where missing; ``None`` as a whole for binary sources.
        whole: whether all numbers are written as whole ones.
    """

    name: str
    numbers: Numbers | None
    texts: tuple[str | None, ...] | None
    whole: bool = False

    def __len__(self) -> int:
        return len(self.numbers) if self.numbers is not None else len(self.texts or ())

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The cells as words: as they were written, or numbers in their shortest form."""
        if self.texts is not None:
            return self.texts
        assert self.numbers is not None
        return tuple(None if np.isnan(v) else f"{v:.10g}" for v in self.numbers.tolist())


@dataclass(frozen=True, eq=False)
class Frame:
    """A table as it was read: series of equal length.

    Attributes:
        series: the columns in order.
        header: whether the names were written in the source; else they were made up.
        source: where it came from, for messages.
    """

    series: tuple[Series, ...]
    header: bool
    source: str

    def __len__(self) -> int:
        return len(self.series[0])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(s.name for s in self.series)


def number(text: str) -> float:
    """A number as people write it. Raises ValueError."""
    if "_" in text:
        raise ValueError(text)  # Python would read 1_000
    return float(text)


def series(name: str, cells: Sequence[str], decimal_comma: bool = False) -> Series:
    """A column from its cells as text."""
    texts = tuple(None if c.strip().lower() in MISSING else c.strip() for c in cells)
    plain = texts
    if decimal_comma:
        plain = tuple(t if t is None else t.replace(".", "").replace(",", ".") if "," in t else t for t in texts)
    try:
        numbers = np.array([np.nan if t is None else number(t) for t in plain])
    except ValueError:
        return Series(name, None, texts)
    numbers[~np.isfinite(numbers)] = np.nan
    kept = plain if decimal_comma else texts
    whole = all(re.fullmatch(r"[+-]?\d+", t) for t in kept if t is not None)
    return Series(name, numbers, kept, whole)


def read_text(path: Path, header: str) -> Frame:
    """A table of text. Raises UserError where its rows differ in length, or there are none."""
    lines, comment = _lines(path)
    if not lines:
        raise UserError(f"{path} holds no rows: expected one row a line, one value a column")
    delimiter = _delimiter([line for _, line in lines[:50]])
    rows = _cells(lines, delimiter)
    commas = delimiter != "," and any(
        re.fullmatch(r"[+-]?[\d.]*\d,\d+", c.strip()) for _, row in rows[:200] for c in row
    )
    first = rows[0][1]
    named = header == "yes" or (header == "auto" and not any(_numeric(c, commas) for c in first))
    names: list[str] | None = [c.strip() for c in first] if named else None
    body = rows[1:] if named else rows
    if names is None and comment is not None and header == "auto":
        words = _split(comment, delimiter)
        names = words if len(words) == len(first) and not any(_numeric(w, commas) for w in words) else None
    wide = len(names) if names is not None else len(first)
    for number_, row in body:
        if len(row) != wide:
            what = "the header names" if names is not None else "the first row has"
            raise UserError(
                f"{path}, line {number_}: {len(row)} cells, and {what} {wide}; expected as many in each row"
            )
    columns = list(zip(*(row for _, row in body), strict=True)) if body else [()] * wide
    titles = names if names is not None else [f"x{i + 1}" for i in range(wide)]
    found = tuple(series(name, cells, commas) for name, cells in zip(titles, columns, strict=True))
    return Frame(found, names is not None, str(path))


def _lines(path: Path) -> tuple[list[tuple[int, str]], str | None]:
    """The lines that hold rows, with their numbers, and the last comment before the first of them."""
    raw = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UserError(f"{path} is no text: expected rows of cells")
    lines: list[tuple[int, str]] = []
    comment = None
    for k, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            comment = comment if lines else line.lstrip().lstrip("#").strip()
        elif line.strip():
            lines.append((k, line))
    return lines, comment


def _delimiter(lines: Sequence[str]) -> str | None:
    """What parts the cells: the sign that cuts most lines into equally many; ``None``: white space."""
    best, score = None, 0
    for sign in DELIMITERS:
        counts = [len(row) for row in csv.reader(lines, delimiter=sign)]
        usual = max(set(counts), key=counts.count)
        found = counts.count(usual) if usual > 1 else 0
        if found > score:
            best, score = sign, found
    return best


def _split(line: str, delimiter: str | None) -> list[str]:
    words = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
    if delimiter is not None and len(words) == 1:
        words = line.split()
    return [w.strip() for w in words]


def _cells(lines: Sequence[tuple[int, str]], delimiter: str | None) -> list[tuple[int, list[str]]]:
    """Rows of cells with the number of the line that each begins on."""
    if delimiter is None:
        return [(k, line.split()) for k, line in lines]
    reader = csv.reader([line for _, line in lines], delimiter=delimiter, skipinitialspace=True)
    rows, begun = [], 0
    for row in reader:
        rows.append((lines[begun][0], row))
        begun = reader.line_num
    return rows


def _numeric(cell: str, decimal_comma: bool) -> bool:
    """Whether a cell is a number; an empty one is none."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return False
    try:
        number(cell.replace(".", "").replace(",", ".") if decimal_comma and "," in cell else cell)
    except ValueError:
        return False
    return True
