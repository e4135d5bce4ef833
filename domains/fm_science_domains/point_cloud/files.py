"""Clouds in files: .npz for programs, .xyz for viewers, .csv for people; .ply is read too.

.npz holds ``x`` ``(clouds, points, dimensions)``, or for clouds of varying size ``x`` ``(all points, dimensions)`` and
``sizes``; and ``labels``, the class of each, where they have classes. .xyz holds one frame a cloud, planar ones with
z = 0 and ``dim=2`` in the comment, which may end in ``label=CLASS``. .csv holds one point a line, with a column
``cloud`` that numbers the clouds where there are several.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError

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

    Raises:
        UserError: for a path that is not there, a file that holds no clouds, and an unknown ending.
    """
    found: list[Cloud] = []
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            known = sorted((f for f in path.iterdir() if f.suffix in READERS), key=lambda f: ORDER.index(f.suffix))
            files = sorted({f.stem: f for f in reversed(known)}.values())
        for file in files:
            found += _file(file)
    if not found:
        raise UserError(f"no clouds in {', '.join(map(str, paths))}: expected .npz, .csv, .xyz or .ply files")
    return found


def _file(file: Path) -> list[Cloud]:
    if not file.is_file():
        raise UserError(f"no file or folder {str(file)!r}")
    if file.suffix not in READERS:
        raise UserError(f"{file}: clouds are read from {', '.join(ORDER)}, not from {file.suffix or 'such files'}")
    try:
        found = READERS[file.suffix](file)
        points, labels = found if isinstance(found, tuple) else (found, [""] * len(found))
        clouds = [torch.as_tensor(c, dtype=torch.float32) for c in points]
        if any(c.ndim != 2 or not c.isfinite().all() for c in clouds):
            raise ValueError("points must be finite numbers, one row a point")
        if len(labels) != len(clouds):
            raise ValueError(f"{len(labels)} labels for {len(clouds)} clouds")
    except (ValueError, KeyError, IndexError, OSError, RuntimeError) as error:
        raise UserError(f"{file} holds no clouds: {str(error) or type(error).__name__}") from error
    names = [f"{file.stem}_{i:04d}" if len(clouds) > 1 else file.stem for i in range(len(clouds))]
    return [Cloud(*parts) for parts in zip(clouds, names, labels, strict=True)]


def _npz(file: Path) -> tuple[list, list[str]]:
    with np.load(file, allow_pickle=False) as stored:
        name = "x" if "x" in stored else next(n for n in stored if stored[n].ndim in (2, 3))
        x = stored[name]
        clouds = list(x) if x.ndim == 3 else [x]
        if "sizes" in stored:
            clouds = np.split(x, np.cumsum(stored["sizes"])[:-1])
        return clouds, [str(k) for k in stored["labels"]] if "labels" in stored else [""] * len(clouds)


def _csv(file: Path) -> list:
    rows = [row for row in csv.reader(file.read_text().splitlines()) if row]
    header = [] if _number(rows[0][0]) else [word.strip().lower() for word in rows.pop(0)]
    table = [[float(word) for word in row] for row in rows]
    if "cloud" not in header:
        return [table]
    k = header.index("cloud")
    return [[p[:k] + p[k + 1 :] for p in points] for _, points in groupby(table, key=lambda row: row[k])]


def _xyz(file: Path) -> tuple[list, list[str]]:
    lines, clouds, labels = file.read_text().splitlines(), [], []
    while lines and lines[0].strip():
        n = int(lines[0])
        if len(lines) < n + 2:
            raise ValueError(f"a frame of {n} points ends early")
        points = [[float(word) for word in line.split()[1:4]] for line in lines[2 : n + 2]]
        clouds.append([p[:2] for p in points] if "dim=2" in lines[1].split() else points)
        labels.append(lines[1].partition("label=")[2].strip())
        lines = lines[n + 2 :]
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
