"""Tables in files: comma-separated and tab-separated text, parquet, numpy arrays, and data frames.

Whatever the source, a table becomes a :class:`Frame`: named series of equal length.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from fm_science.errors import UserError

from .binary import of_frame, read_numpy, read_parquet
from .text import DataFrame as DataFrame
from .text import Frame as Frame
from .text import Numbers as Numbers
from .text import Series as Series
from .text import read_text
from .text import series as series

TEXT = (".csv", ".tsv", ".txt", ".dat", ".tab")
SUFFIXES = (*TEXT, ".parquet", ".pq", ".npy", ".npz")


def read(source: str | Path | DataFrame, header: str = "auto") -> Frame:
    """A table from a file (by its suffix) or a data frame.

    Args:
        source: .csv, .tsv, .txt, .dat (also .gz), .parquet, .npy, .npz, or a data frame.
        header: whether the first line of text names the columns: ``auto``, ``yes`` or ``no``.

    Raises:
        UserError: where there is no file, it is of no known kind, its rows differ in length, or it holds no row.
    """
    if not isinstance(source, str | Path):
        return checked(of_frame(source))
    path = Path(source)
    if not path.is_file():
        raise UserError(f"no table at {str(path)!r}: expected a file ({', '.join(SUFFIXES)})")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        frame = read_parquet(path)
    elif suffix in (".npy", ".npz"):
        frame = read_numpy(path)
    elif suffix in TEXT:
        frame = read_text(path, header)
    else:
        raise UserError(f"{str(path)!r} is no table: expected one of {', '.join(SUFFIXES)}")
    return checked(frame)


def checked(frame: Frame) -> Frame:
    """The frame, without nameless columns that hold nothing. Raises UserError for names that occur twice, series of
    different lengths, and tables without rows."""
    kept = [s for s in frame.series if s.name or any(v is not None for v in s.labels)]
    named = tuple(Series(s.name or "index", s.numbers, s.texts, s.whole) for s in kept)
    names = [s.name for s in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{frame.source}: the column {twice[0]!r} occurs twice; give every column a name of its own")
    if not named or not len(named[0]):
        raise UserError(f"{frame.source} holds no rows: expected one row a line, one value a column")
    lengths = {len(s) for s in named}
    if len(lengths) > 1:
        raise UserError(f"{frame.source}: its columns have {sorted(lengths)} values; expected as many in each")
    return Frame(named, frame.header, frame.source)


def write_csv(rows: Iterable[Sequence[str]], path: Path, header: Sequence[str] | None, append: bool) -> None:
    """Rows of cells as comma-separated values; added to the file with ``append``."""
    with path.open("a" if append else "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if header is not None and not append:
            writer.writerow(header)
        writer.writerows(rows)
