"""Tables of cells as people write them: with any separator, with or without header, comments, decimal commas.

The domains decide what a table means; here it becomes rows of texts, and texts become numbers.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence

DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
FORTRAN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[dD][+-]?\d+")


def cells(text: str) -> list[list[str]]:
    """The cells of a table, one list per line, with any separator: commas, semicolons (then decimal commas become
    points), tabs or spaces. Empty lines and comments (``#``, ``%``) are left out, except that a comment right above
    rows with numbers, with as many cells as they have, is their header. Raises ValueError where nothing is left."""
    lines = text.splitlines()
    data = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "%"))]
    if not data:
        raise ValueError("the file is empty")
    mark = _separator(data)
    rows = [_split(line, mark) for line in data]
    first = next(k for k, line in enumerate(lines) if line is data[0] or line == data[0])
    above = lines[first - 1].strip() if first else ""
    if above.startswith(("#", "%")):
        header, numeric = _split(above.lstrip("#% "), mark), [*map(is_number, rows[0])]
        plain = all(numeric) and not any(map(is_number, header))  # words of a sentence are separated by spaces, too
        if len(header) == len(numeric) > 1 and (plain if mark is None else any(numeric)):
            rows.insert(0, header)
    return [row for row in rows if any(row)]


def _separator(lines: Sequence[str]) -> str | None:
    """What separates the cells of most lines; None for spaces."""
    some = lines[:20]
    for mark in ("\t", ";", ","):
        if sum(mark in line for line in some) * 2 > len(some):
            return mark
    return None if any(" " in line.strip() for line in some) and not any('"' in line for line in some) else ","


def _split(line: str, mark: str | None) -> list[str]:
    if mark is None:
        return line.split()
    row = [word.strip() for word in next(csv.reader([line], delimiter=mark, skipinitialspace=True))]
    return [word.replace(",", ".") if mark == ";" and DECIMAL_COMMA.fullmatch(word) else word for word in row]


def number(word: str) -> float:
    """A number, in Fortran's double precision (``1.0D+00``) too. Raises ValueError if it is not a number."""
    try:
        return float(word)
    except ValueError:
        if FORTRAN.fullmatch(word):
            return float(word.upper().replace("D", "E"))
        raise ValueError(f"{word!r} is no number") from None


MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil", "-", "--"}  # as written in tables


def is_number(word: str) -> bool:
    """Whether a cell of a table is a number (``nan`` and ``inf`` are)."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def measured(word: str) -> float:
    """The number in a cell, NaN where it was not measured (empty, NA, null, ...). Raises ValueError for any other
    text."""
    return math.nan if word.strip().lower() in MISSING else number(word)


def table_hint(rows: Sequence[Sequence[str]], names: int = 0) -> str:
    """A hint to the domain of tables, if rows of cells under a header are clearly a table: one column has text (beyond
    the first ``names``, which may have names) and another has numbers; else an empty text."""
    body = [row for row in rows[1:] if any(row)]
    if len(body) < 2 or len({len(row) for row in rows}) != 1 or any(is_number(word) for word in rows[0] if word):
        return ""
    columns = [[is_number(word) for word in column if word] for column in zip(*body, strict=True)]
    text = any(column and not any(column) for column in columns[names:])
    numbers = any(column and all(column) for column in columns)
    return "; it looks like a table of plain rows: say domain=table" if text and numbers else ""
