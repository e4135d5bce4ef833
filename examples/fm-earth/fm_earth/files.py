"""Places in files: latitudes and longitudes in degrees, as people keep them.

A table of text names its columns in the first line, in any of the usual spellings; a numpy file holds arrays. A row
that gives no place on the globe is told with its line, and nothing is guessed.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_science import UserError

Degrees = NDArray[np.float64]  #: ``(n, 2)``: latitude in [-90, 90], longitude in [-180, 180)

LATITUDES = ("lat", "latitude", "latdeg", "latitudedeg", "latdd", "decimallatitude", "ylat", "dec", "declination")
LONGITUDES = (
    "lon", "lng", "long", "longitude", "londeg", "longdeg", "longitudedeg", "londd", "decimallongitude", "xlon", "ra",
    "rightascension",
)  # fmt: skip
TEXT = (".csv", ".tsv", ".txt", ".dat")
ARRAYS = (".npz", ".npy")


class Event(NamedTuple):
    """A place on the globe, in degrees."""

    lat: float
    lon: float


@dataclass(frozen=True)
class Table:
    """Places as they were read.

    Attributes:
        degrees: ``(n, 2)`` latitudes and longitudes.
        columns: the names of the two columns, as they are written.
        skipped: what is wrong with the rows that were left out, one line each.
    """

    degrees: Degrees
    columns: tuple[str, str]
    skipped: tuple[str, ...] = ()


def read_table(file: str | Path, lat: str | None = None, lon: str | None = None, skip: bool = False) -> Table:
    """The places in a file.

    Args:
        file: .csv, .tsv, .txt or .dat with a first line that names the columns (two columns may do without), or
            .npz or .npy.
        lat, lon: the names of the two columns; ``None``: they are guessed.
        skip: leave rows out that give no place, in place of an error.

    Raises:
        UserError: where there is no such file, the columns are not found, or rows give no place.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no file {str(path)!r}: expected events as {', '.join((*TEXT, *ARRAYS))}")
    if path.suffix.lower() in ARRAYS:
        columns, rows = _arrays(path, lat, lon)
    elif path.suffix.lower() in TEXT:
        columns, rows = _text(path, lat, lon)
    else:
        raise UserError(f"{path}: expected events as {', '.join((*TEXT, *ARRAYS))}")
    return _checked(path, columns, rows, skip)


def _checked(path: Path, columns: tuple[str, str], rows: Sequence[tuple[str, str, str]], skip: bool) -> Table:
    """The table of rows ``(where, latitude, longitude)``. Raises UserError where it has none, or wrong ones."""
    found, wrong = [], []
    for where, lat, lon in rows:
        fault = _fault(lat, lon)
        if fault:
            wrong.append(f"{where}: {fault}")
        else:
            found.append((float(lat), (float(lon) + 180) % 360 - 180))
    if wrong and not skip:
        raise UserError(
            f"{path}: {len(wrong):,} of {len(rows):,} rows give no place; first {wrong[0]}; mend them, or leave them "
            "out by data.skip=true"
        )
    if not found:
        raise UserError(f"{path} holds no events: expected one a line, with a latitude and a longitude in degrees")
    return Table(np.array(found), columns, tuple(wrong))


def _fault(lat: str, lon: str) -> str:
    """What is wrong with a latitude and a longitude, as text; empty where nothing is."""
    for name, text, bound in (("latitude", lat, 90), ("longitude", lon, 360)):
        try:
            value = float(text)
        except ValueError:
            return f"{name} {text!r} is no number"
        if not abs(value) <= bound:
            swapped = "; are the two columns swapped?" if name == "latitude" and abs(value) <= 360 else ""
            return f"{name} {text} does not lie between -{bound} and {bound} degrees{swapped}"
    return ""


def choose(path: Path, names: Sequence[str], lat: str | None, lon: str | None) -> tuple[int, int]:
    """The numbers of the columns of latitude and longitude. Raises UserError where they are not found, or are several
    of a kind."""
    plain = [re.sub(r"\(.*?\)|\[.*?\]|[^a-z]", "", name.lower()) for name in names]
    found = []
    for what, wanted, known in (("latitude", lat, LATITUDES), ("longitude", lon, LONGITUDES)):
        where = [k for k, name in enumerate(names) if name == wanted] if wanted else []
        if not wanted:
            where = next(([k for k, name in enumerate(plain) if name == word] for word in known if word in plain), [])
        if len(where) != 1:
            fault = f"no column {wanted!r}" if wanted else f"{'two' if where else 'no'} columns look like {what}"
            raise UserError(f"{path}: {fault}; say which by data.{what[:3]}=NAME, one of: {', '.join(names)}")
        found.append(where[0])
    return found[0], found[1]


def _text(path: Path, lat: str | None, lon: str | None) -> tuple[tuple[str, str], list[tuple[str, str, str]]]:
    """The names of the two columns, and the rows as text with the numbers of their lines."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8; save it as CSV with that encoding") from error
    numbered = [(k, line) for k, line in enumerate(content.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#"]
    if not numbered:
        raise UserError(f"{path} is empty: expected one event a line, with a latitude and a longitude in degrees")
    mark = max(",;\t|", key=numbered[0][1].count)
    reader = csv.reader((line for _, line in numbered), delimiter=mark if mark in numbered[0][1] else " ",
                        skipinitialspace=True)  # fmt: skip
    cells = [(numbered[reader.line_num - 1][0], [cell.strip() for cell in row]) for row in reader]
    if mark != ",":
        cells = [(k, [cell.replace(",", ".") for cell in row]) for k, row in cells]
    first = cells[0][1]
    if any(_number(cell) for cell in first):
        if len(first) != 2:
            raise UserError(f"{path}: its first line names no columns; expected names such as lat{mark}lon")
        names, (i, j) = ["first", "second"], (0, 1)
    else:
        names, cells = first, cells[1:]
        i, j = choose(path, names, lat, lon)
    short = ["", ""] * len(names)
    rows = [(f"line {k}", (row + short)[i], (row + short)[j]) for k, row in cells]
    return (names[i], names[j]), rows


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _arrays(path: Path, lat: str | None, lon: str | None) -> tuple[tuple[str, str], list[tuple[str, str, str]]]:
    """The same from numpy files: two arrays named as columns, or one of shape (n, 2) with latitudes first."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"array": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a numpy file: {error}") from error
    flat = {k: v for k, v in arrays.items() if v.ndim == 1}
    pairs = [k for k, v in arrays.items() if v.ndim == 2 and v.shape[1] == 2]
    if len(pairs) == 1 and not (lat or lon):
        names, values = (f"{pairs[0]}[:, 0]", f"{pairs[0]}[:, 1]"), arrays[pairs[0]]
    else:
        names_ = list(flat)
        i, j = choose(path, names_, lat, lon)
        names = (names_[i], names_[j])
        if len(flat[names[0]]) != len(flat[names[1]]):
            raise UserError(f"{path}: {names[0]} and {names[1]} differ in length")
        values = np.stack([flat[names[0]], flat[names[1]]], 1)
    rows = [(f"row {k}", str(a), str(b)) for k, (a, b) in enumerate(values.tolist())]
    return names, rows


def read(paths: Iterable[str | Path]) -> list[Event]:
    """Events from files, or from the CSV files of folders. Raises UserError where there are none."""
    files = [f for path in map(Path, paths) for f in (sorted(path.glob("*.csv")) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"no CSV files in {', '.join(map(str, paths))}")
    return [Event(*place) for file in files for place in read_table(file).degrees.tolist()]


def write(samples: Sequence[Event], folder: Path, first: int = 0) -> list[Path]:
    """One CSV with a line an event: ``lat,lon`` in degrees, to the millionth (a tenth of a metre on Earth)."""
    file = Path(folder) / f"events_{first:06d}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Event._fields)
        writer.writerows([f"{event.lat:.6f}", f"{event.lon:.6f}"] for event in samples)
    return [file]
