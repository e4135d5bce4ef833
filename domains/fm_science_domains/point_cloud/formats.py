"""One file of clouds at a time: the interpretation of its columns and axes.

If a file names its columns, the names are used: ``x``, ``y``, ``z`` of tables and of .ply and .pcd files, ``pos`` of
extended XYZ. If not, two or three numbers per line are x, y and z; .xyz and .pts files with more have them first, as
scanners write them. Inconsistent files raise an error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fm_science.cells import cells, is_number, number, table_hint
from fm_science.files import Arrays, read_text

log = logging.getLogger(__name__)
AXES = "xyz"
Clouds = tuple[list[np.ndarray], list[str]]  #: points (N, D) of each in double precision, and its class


def unlabelled(*clouds: np.ndarray) -> Clouds:
    """Clouds without classes."""
    return list(clouds), [""] * len(clouds)


# ------------------------------------------------------------------------------------------------------------- arrays


def npz(file: Path) -> Clouds:
    """``x`` ``(clouds, points, dimensions)``, or ``(points, dimensions)`` with or without ``sizes``; ``labels``."""
    stored = Arrays(file)
    name = "x" if "x" in stored else next((n for n, h in stored.headers.items() if h.ndim in (2, 3)), None)
    if name is None:
        raise ValueError(f"expected x (clouds, points, dimensions), found {', '.join(stored) or 'nothing'}")
    x = stored.numbers(name).astype(np.float64)
    if "sizes" in stored and not stored.single:
        sizes = stored.numbers("sizes")
        if sizes.dtype.kind == "f" or sizes.ndim != 1:
            raise ValueError(f"sizes must be whole numbers, one a cloud; they are {sizes.dtype} {sizes.shape}")
        if x.ndim != 2 or sizes.sum() != len(x) or (sizes < 1).any():
            raise ValueError(f"sizes must be positive and add up to the {len(x)} points, not to {sizes.sum()}")
        clouds = np.split(x, np.cumsum(sizes)[:-1])
    elif x.ndim == 3:
        clouds = list(x)
    else:
        clouds = [x]
    _check_axes(x.shape)
    labels = [str(k) for k in stored["labels"]] if "labels" in stored else [""] * len(clouds)
    return clouds, labels


def _check_axes(shape: tuple[int, ...]) -> None:
    """Raises ValueError, with the interpretation of the axes, unless the last has one to three coordinates."""
    if len(shape) not in (2, 3):
        raise ValueError(f"its shape is {shape}; expected (clouds, points, dimensions) or (points, dimensions)")
    if not 1 <= shape[-1] <= 3:
        wanted = "(clouds, points, dimensions)" if len(shape) == 3 else "(points, dimensions)"
        turn = " (it looks transposed: save x.swapaxes(-1, -2))" if shape[-2] in (2, 3) else ""
        raise ValueError(
            f"its axes {shape} are taken for {wanted}, which makes {shape[-1]} coordinates a point, not 1 to 3{turn}"
        )


# ------------------------------------------------------------------------------------------------------------- tables


def csv(file: Path) -> Clouds:
    """One point per line. With a header the columns ``x``, ``y`` and ``z`` are coordinates (units in brackets are
    ignored), and ``cloud`` names the cloud; without one, all columns are coordinates."""
    rows = cells(read_text(file))
    if is_number(rows[0][0]):
        return _bare(rows)
    header = [re.sub(r"\s*[\[(].*[\])]\s*$", "", word).strip().lower() for word in rows[0]]
    columns = [header.index(axis) for axis in AXES if axis in header]
    if not columns:
        raise ValueError(f"a header must name the columns x, y and z, found {', '.join(header)}{table_hint(rows)}")
    unused = [name for name in header if name and name != "cloud" and name not in AXES]
    if unused:
        log.warning("%s: columns that are no coordinates are left out: %s", file, ", ".join(unused))
    clouds: dict[str, list[list[float]]] = {}
    for k, row in enumerate(rows[1:], 2):
        if len(row) <= max(columns):
            raise ValueError(f"row {k} has {len(row)} cells, fewer than the header")
        name = row[header.index("cloud")].strip() if "cloud" in header else ""
        clouds.setdefault(name, []).append(numbers([row[c] for c in columns], f"row {k}"))
    return unlabelled(*map(np.array, clouds.values()))


def _bare(rows: Sequence[Sequence[str]]) -> Clouds:
    """A cloud of rows without a header. Raises ValueError unless they have one to three numbers each."""
    width = len(rows[0])
    if width > 3:
        raise ValueError(
            f"{width} columns without a header are taken for {width} coordinates, but points have 1 to 3: name the "
            "columns in a first line, such as x,y,z,red,green,blue"
        )
    for k, row in enumerate(rows, 1):
        if len(row) != width:
            raise ValueError(f"row {k} has {len(row)} cells, the first has {width}")
    return unlabelled(np.array([numbers(row, f"row {k}") for k, row in enumerate(rows, 1)]))


def numbers(words: Sequence[str], where: str) -> list[float]:
    """Texts as numbers. Raises ValueError with ``where`` for a text that is not a number."""
    try:
        return [number(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


# ---------------------------------------------------------------------------------------------------------------- xyz


def xyz(file: Path) -> Clouds:
    """Frames of a number of points, a comment and the points; or points without frames, x, y and z first."""
    lines = read_text(file).splitlines()
    filled = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not filled:
        raise ValueError("the file is empty")
    words = filled[0].split()
    counted = len(words) == 1 and words[0].isdecimal()
    second = lines[lines.index(filled[0]) + 1 :][:1]  # the comment of a frame, which may be empty
    if counted and len(filled) - 1 == int(words[0]) and second != [""] and all(map(_scanned, filled[1:])):
        return _points(filled[1:], file)  # a scanner's file: a number of points, no comment
    if not counted and _scanned(filled[0]):
        return _points(filled, file)
    return _frames(lines)


def _scanned(line: str) -> bool:
    words = line.replace(",", " ").split()
    return len(words) >= 2 and all(map(is_number, words))


def _points(lines: Sequence[str], file: Path) -> Clouds:
    """Points of a scanner: x, y, z, and maybe intensity and colours, which are left out."""
    rows = [line.replace(",", " ").split() for line in lines]
    width = min(len(rows[0]), 3)
    if len(rows[0]) > 3:
        log.warning("%s: columns 1 to 3 are taken for x, y and z, and the others left out", file)
    for k, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"point {k} has {len(row)} columns, the first has {len(rows[0])}")
    return unlabelled(np.array([numbers(row[:width], f"point {k}") for k, row in enumerate(rows, 1)]))


def _frames(lines: Sequence[str]) -> Clouds:
    clouds, labels = [], []
    at = 0
    while at < len(lines):
        if not lines[at].strip():  # between frames
            at += 1
            continue
        if not lines[at].strip().isdecimal() or int(lines[at]) < 1:
            raise ValueError(f"line {at + 1}: a frame begins with its number of points, not with {lines[at].strip()!r}")
        start, end = at + 2, at + 2 + int(lines[at])
        if len(lines) < end:
            raise ValueError(f"a frame of {end - start} points ends early, after {max(0, len(lines) - start)}")
        comment = lines[at + 1]
        clouds.append(_frame([line.split() for line in lines[start:end]], comment, start + 1))
        labels.append(comment.partition("label=")[2].strip())
        at = end
    return clouds, labels


def _frame(rows: Sequence[list[str]], comment: str, first: int) -> np.ndarray:
    """The points of a frame whose rows begin on line ``first``."""
    columns = _columns(rows, comment)
    points = []
    for k, row in enumerate(rows, first):
        if len(row) < columns.stop:
            raise ValueError(f"line {k} has {len(row)} columns, expected {columns.stop} or more")
        points.append(numbers(row[columns], f"line {k}"))
    found = np.array(points)
    return found[:, :2] if "dim=2" in comment.split() else found


def _columns(rows: Sequence[list[str]], comment: str) -> slice:
    """The columns of the coordinates: as in ``Properties`` of extended XYZ, else the first ones if all rows have only
    two or three numbers, else after the column of species."""
    named = re.search(r"Properties=\"?([^\s\"]+)", comment, re.IGNORECASE)
    if named:
        words, at = named[1].split(":"), 0
        for name, _, count in zip(words[::3], words[1::3], words[2::3], strict=True):
            if name.lower() in ("pos", "positions"):
                return slice(at, at + int(count))
            at += int(count)
        raise ValueError(f"Properties={named[1]} has no pos")
    first = rows[0]
    if all(map(is_number, first)):
        if len(first) <= 3:
            return slice(0, len(first))
        if not all(row and row[0].isdecimal() for row in rows):  # species may be atomic numbers
            return slice(0, 3)
    return slice(1, 4)
