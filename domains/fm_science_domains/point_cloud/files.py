"""Clouds in files: .npz for programs, .xyz for viewers, .csv for people; .ply is read too.

.npz holds ``x`` ``(clouds, points, dimensions)``, or for clouds of varying size ``x`` ``(all points, dimensions)`` and
``sizes``; and ``labels``, the class of each, where they have classes. .xyz holds one frame a cloud, planar ones with
z = 0 and ``dim=2`` in the comment, which may end in ``label=CLASS``. .csv holds one point a line; under a header, its
coordinates are the columns ``x``, ``y`` and ``z``, and a column ``cloud`` names the cloud of each point where there are
several. In a folder, subfolders with clouds in them are classes.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.samples import RECORD

log = logging.getLogger(__name__)
AXES = "xyz"


@dataclass(frozen=True, eq=False)
class Cloud:
    """One cloud: points ``(N, D)`` in the units of its source, a name, and the class where it has one."""

    points: Tensor
    name: str = ""
    label: str = ""

    def __len__(self) -> int:
        return len(self.points)


def read(paths: Iterable[str | Path]) -> list[Cloud]:
    """The clouds of files and folders; of files in one folder that differ in their ending only, one is read.

    Clouds in subfolders of a folder have the subfolder's name as their class; subfolders without clouds are passed by,
    and so are those of a folder of samples (see :mod:`fm_science.samples`).

    Raises:
        UserError: for a path that is not there, a file that holds no clouds, an unknown ending, and a folder with
            clouds both beside and in its subfolders.
    """
    found: list[Cloud] = []
    for path in map(Path, paths):
        found += _folder(path) if path.is_dir() else _file(path)
    if not found:
        raise UserError(f"no clouds in {', '.join(map(str, paths))}: expected .npz, .csv, .xyz or .ply files")
    return found


def _folder(folder: Path) -> list[Cloud]:
    """The clouds in a folder, or those in its subfolders, which are their classes."""
    mine = _readable(folder)
    inside = [] if (folder / RECORD).is_file() else sorted(f for f in folder.iterdir() if f.is_dir())
    below = {f.name: _readable(f) for f in inside if not f.name.startswith(".")}
    classes = [name for name, files in below.items() if files]
    if mine and classes:
        raise UserError(
            f"{folder} holds clouds, and so do its subfolders {', '.join(classes)}: which are meant? Name one of them, "
            f"or move {mine[0].name} and the files beside it into a subfolder, a class of its own"
        )
    labelled = [replace(cloud, label=name) for name in classes for file in below[name] for cloud in _file(file)]
    return [cloud for file in mine for cloud in _file(file)] + labelled


def _readable(folder: Path) -> list[Path]:
    """The files of a folder that are to be read, one of each stem."""
    known = [f for f in folder.iterdir() if f.suffix.lower() in READERS and f.is_file()]
    known.sort(key=lambda f: ORDER.index(f.suffix.lower()), reverse=True)
    return sorted({f.stem: f for f in known}.values())


def _file(file: Path) -> list[Cloud]:
    if not file.is_file():
        raise UserError(f"no file or folder {str(file)!r}")
    if file.suffix.lower() not in READERS:
        raise UserError(f"{file}: clouds are read from {', '.join(ORDER)}, not from {file.suffix or 'such files'}")
    try:
        found = READERS[file.suffix.lower()](file)
        points, labels = found if isinstance(found, tuple) else (found, [""] * len(found))
        clouds = [torch.as_tensor(c, dtype=torch.float32) for c in points]
        if any(c.ndim != 2 or not c.isfinite().all() for c in clouds):
            raise ValueError("points must be finite numbers, one row a point")
        if len(labels) != len(clouds):
            raise ValueError(f"{len(labels)} labels for {len(clouds)} clouds")
    except (ValueError, KeyError, IndexError, OSError, RuntimeError, BadZipFile) as error:
        raise UserError(f"{file} holds no clouds: {str(error) or type(error).__name__}") from error
    names = [f"{file.stem}_{i:04d}" if len(clouds) > 1 else file.stem for i in range(len(clouds))]
    return [Cloud(*parts) for parts in zip(clouds, names, labels, strict=True)]


def _npz(file: Path) -> tuple[list, list[str]]:
    with np.load(file, allow_pickle=False) as stored:
        name = "x" if "x" in stored else next((n for n in stored if stored[n].ndim in (2, 3)), None)
        if name is None:
            raise ValueError(f"expected x (clouds, points, dimensions), found {', '.join(stored) or 'nothing'}")
        x = stored[name]
        clouds = list(x) if x.ndim == 3 else [x]
        if "sizes" in stored:
            sizes = stored["sizes"]
            if sizes.sum() != len(x) or (sizes < 1).any():
                raise ValueError(f"sizes must be positive and add up to the {len(x)} points, not to {sizes.sum()}")
            clouds = np.split(x, np.cumsum(sizes)[:-1])
        return clouds, [str(k) for k in stored["labels"]] if "labels" in stored else [""] * len(clouds)


def _csv(file: Path) -> list:
    rows = [row for row in csv.reader(file.read_text(encoding="utf-8-sig").splitlines()) if row]
    if _number(rows[0][0]):
        return [[[float(word) for word in row] for row in rows]]
    header = [word.strip().lower() for word in rows.pop(0)]
    columns = [header.index(axis) for axis in AXES if axis in header]
    if not columns:
        raise ValueError(f"a header must name the columns x, y and z, found {', '.join(header)}")
    unused = [name for name in header if name != "cloud" and name not in AXES]
    if unused:
        log.warning("%s: columns that are no coordinates are left out: %s", file, ", ".join(unused))
    clouds: dict[str, list] = {}
    for row in rows:
        name = row[header.index("cloud")].strip() if "cloud" in header else ""
        clouds.setdefault(name, []).append([float(row[k]) for k in columns])
    return list(clouds.values())


def _xyz(file: Path) -> tuple[list, list[str]]:
    lines, clouds, labels = file.read_text().splitlines(), [], []
    at = 0
    while at < len(lines):
        if not lines[at].strip():  # between frames
            at += 1
            continue
        if not lines[at].strip().isdecimal() or int(lines[at]) < 1:
            raise ValueError(f"line {at + 1}: a frame begins with its number of points, not with {lines[at].strip()!r}")
        start, end = at + 2, at + 2 + int(lines[at])
        if len(lines) < end:
            raise ValueError(f"a frame of {end - start} points ends early")
        points = [[float(word) for word in line.split()[1:4]] for line in lines[start:end]]
        clouds.append([p[:2] for p in points] if "dim=2" in lines[at + 1].split() else points)
        labels.append(lines[at + 1].partition("label=")[2].strip())
        at = end
    return clouds, labels


PLY = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def _ply(file: Path) -> list:
    """The vertices of a polygon file (Turk 1994), in text or binary; they are its first element nearly always."""
    head, found, body = file.read_bytes().partition(b"end_header")
    body = body.partition(b"\n")[2]
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not found or lines[:1] != [["ply"]]:
        raise ValueError("no header of a .ply file")
    elements = [line for line in lines if line[:1] == ["element"]]
    if not elements or elements[0][1] != "vertex":
        raise ValueError("vertices must be the first element")
    start = lines.index(elements[0]) + 1
    end = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    columns = [(line[-1], PLY[line[1]]) for line in lines[start:end] if line[:1] == ["property"]]
    count, kind = int(elements[0][2]), next(line[1] for line in lines if line[:1] == ["format"])
    if kind == "ascii":
        rows = [[float(w) for w in line.split()] for line in body.decode().splitlines()[:count]]
        names = [name for name, _ in columns]
        return [[[row[names.index(axis)] for axis in AXES] for row in rows]]
    order = "<" if kind == "binary_little_endian" else ">"
    table = np.frombuffer(body, [(name, order + code) for name, code in columns], count)
    return [np.stack([table[axis].astype(np.float32) for axis in AXES], -1)]


READERS: dict[str, Callable[[Path], Any]] = {".npz": _npz, ".csv": _csv, ".xyz": _xyz, ".ply": _ply}
ORDER = list(READERS)


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def write(samples: Sequence[Cloud], folder: str | Path, first: int = 0) -> list[Path]:
    """All samples as one .npz and one .xyz file, ``clouds_FIRST-LAST``, numbered from ``first``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"clouds_{first:06d}-{first + len(samples) - 1:06d}"
    sizes = np.array([len(s) for s in samples])
    points = [s.points.detach().cpu().numpy() for s in samples]
    alike = len(set(sizes.tolist())) == 1
    stored: dict[str, Any] = {"x": np.stack(points)} if alike else {"x": np.concatenate(points), "sizes": sizes}
    if any(s.label for s in samples):
        stored["labels"] = np.array([s.label for s in samples])
    np.savez_compressed(place.with_suffix(".npz"), **stored)
    return [place.with_suffix(".npz"), write_xyz(samples, place.with_suffix(".xyz"))]


def write_xyz(clouds: Sequence[Cloud], file: Path) -> Path:
    """Clouds as the frames of one .xyz file, every point a carbon atom to viewers."""
    with file.open("w") as stream:
        for cloud in clouds:
            dim = cloud.points.shape[1]
            label = f" label={cloud.label}" if cloud.label else ""
            stream.write(f"{len(cloud)}\n{cloud.name} dim={dim}{label}\n")
            for point in cloud.points.tolist():
                x, y, z = (*point, 0.0, 0.0)[:3]
                stream.write(f"C {x:.6f} {y:.6f} {z:.6f}\n")
    return file


def trajectories(frames: Sequence[Sequence[Cloud]], folder: str | Path, first: int = 0) -> list[Path]:
    """One .xyz file a sample with a frame a step; ``frames[k][i]`` is sample i after step k."""
    folder = Path(folder) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    ways = enumerate(zip(*frames, strict=True), start=first)
    return [write_xyz(way, folder / f"cloud_{i:06d}.xyz") for i, way in ways]
