"""Tables in files: comma-separated and tab-separated text, parquet, numpy arrays, and data frames.

Whatever the source, a table becomes a :class:`Frame`: named series of equal length, each with the cells as they were
written where they were text, and as numbers where all of them are numbers. An empty cell, and what people write for one
(NA, nan, ?, ...), is a missing value.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fm_science.errors import UserError

MISSING = frozenset(("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil", "?", "-", "--", ".", "missing"))
TEXT = (".csv", ".tsv", ".txt", ".dat", ".tab")
SUFFIXES = (*TEXT, ".parquet", ".pq", ".npy", ".npz")
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


def read(source: str | Path | DataFrame, header: str = "auto") -> Frame:
    """A table from a file (by its suffix) or a data frame.

    Args:
        source: .csv, .tsv, .txt, .dat (also .gz), .parquet, .npy, .npz, or a data frame.
        header: whether the first line of text names the columns: ``auto``, ``yes`` or ``no``.

    Raises:
        UserError: where there is no file, it is of no known kind, its rows differ in length, or it holds no row.
    """
    if not isinstance(source, str | Path):
        return _of_frame(source)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"no table at {str(path)!r}: expected a file ({', '.join(SUFFIXES)})")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        frame = _parquet(path)
    elif suffix in (".npy", ".npz"):
        frame = _numpy(path)
    elif suffix in TEXT:
        frame = _text(path, header)
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


def _text(path: Path, header: str) -> Frame:
    lines, comment = _lines(path)
    if not lines:
        raise UserError(f"{path} holds no rows: expected one row a line, one value a column")
    delimiter = _delimiter([line for _, line in lines[:50]])
    rows = _cells(lines, delimiter)
    commas = delimiter != "," and any(re.fullmatch(r"[+-]?[\d.]*\d,\d+", c.strip()) for _, row in rows[:200] for c in row)
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
            raise UserError(f"{path}, line {number_}: {len(row)} cells, and {what} {wide}; expected as many in each row")
    columns = list(zip(*(row for _, row in body), strict=True)) if body else [()] * wide
    titles = names if names is not None else [f"x{i + 1}" for i in range(wide)]
    found = tuple(series(name, cells, commas) for name, cells in zip(titles, columns, strict=True))
    return Frame(found, names is not None, str(path))


def _lines(path: Path) -> tuple[list[tuple[int, str]], str | None]:
    """The lines that hold rows, with their numbers, and the last comment before the first of them."""
    raw = gzip.open(path).read() if path.suffix.lower() == ".gz" else path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UserError(f"{path} is no text: expected rows of cells")
    lines, comment = [], None
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


def _of_array(name: str, values: Any) -> Series:
    """A column from an array of numbers, booleans or words. Raises TypeError for anything else."""
    array = np.asarray(values)
    if array.dtype.kind == "b":
        return Series(name, None, tuple("true" if v else "false" for v in array.tolist()))
    if array.dtype.kind in "iuf":
        numbers = array.astype(np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        return Series(name, numbers, None, array.dtype.kind in "iu")
    if array.dtype.kind in "US":
        return series(name, [str(v) for v in array.astype(str).tolist()])
    if array.dtype.kind == "O":
        return series(name, ["" if v is None else str(v) for v in array.tolist()])
    raise TypeError(f"the column {name!r} holds {array.dtype}")


def _of_frame(frame: DataFrame) -> Frame:
    """A data frame. Raises UserError for columns that hold neither numbers nor words."""
    try:
        found = tuple(_of_array(str(name), frame[name]) for name in frame.columns)
    except TypeError as error:
        raise UserError(f"the data frame: {error}; expected numbers, booleans or words") from error
    return checked(Frame(found, True, "the data frame"))


def _numpy(path: Path) -> Frame:
    """An array of rows; a structured array; or one array a column."""
    try:
        held = np.load(path, allow_pickle=False)
        arrays = {k: held[k] for k in held.files} if isinstance(held, np.lib.npyio.NpzFile) else {"x": held}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    names = next((arrays.pop(k) for k in ("columns", "names", "header") if k in arrays and arrays[k].dtype.kind in "US"), None)
    main = next((arrays[k] for k in ("x", "X", "data", "values") if k in arrays), None)
    main = next(iter(arrays.values())) if main is None and len(arrays) == 1 else main
    try:
        if main is not None and main.dtype.names:
            found = [_of_array(n, main[n]) for n in main.dtype.names]
        elif main is not None and main.ndim == 2:
            titles = [f"x{i + 1}" for i in range(main.shape[1])] if names is None else [str(n) for n in names]
            found = [_of_array(n, v) for n, v in zip(titles, main.T, strict=True)]
        elif arrays and all(a.ndim == 1 for a in arrays.values()):
            found = [_of_array(n, v) for n, v in arrays.items()]
        else:
            shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items())
            raise UserError(f"{path} holds {shapes or 'nothing'}: expected rows and columns (n, d), or columns (n,)")
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}; expected numbers or words, as rows and columns") from error
    return Frame(tuple(found), True, str(path))


def _parquet(path: Path) -> Frame:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow; pip install 'fm-science[table]'") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    return Frame(tuple(_arrow(n, c) for n, c in zip(table.column_names, table.columns, strict=True)), True, str(path))


def _arrow(name: str, column: Any) -> Series:
    """A column of an Arrow table."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind):
        numbers = np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
        numbers[~np.isfinite(numbers)] = np.nan
        return Series(name, numbers, None, bool(pyarrow.types.is_integer(kind)))
    words = [None if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in column.to_pylist()]
    return series(name, ["" if w is None else w for w in words])


def write_csv(rows: Iterable[Sequence[str]], path: Path, header: Sequence[str] | None, append: bool) -> None:
    """Rows of cells as comma-separated values; added to the file with ``append``."""
    with path.open("a" if append else "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if header is not None and not append:
            writer.writerow(header)
        writer.writerows(rows)
