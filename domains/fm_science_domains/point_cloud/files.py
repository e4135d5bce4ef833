"""Clouds in files: .npz for programs, .xyz for viewers, .csv for people; files of scanners and meshes are read too.

.npz has ``x`` ``(clouds, points, dimensions)``, or for clouds of varying size ``x`` ``(all points, dimensions)`` and
``sizes``; and ``labels``, the class of each, if they have classes; .npy has such an ``x`` only. .xyz has one frame per
cloud, planar ones with z = 0 and ``dim=2`` in the comment, which may end in ``label=CLASS``; extended XYZ is read by
its ``Properties``, and points without frames as scanners write them, in .pts too. .csv has one point per line; with a
header, its coordinates are the columns ``x``, ``y`` and ``z``, and a column ``cloud`` names the cloud of each point if
there are several. From .ply, .pcd, .off and .obj the vertices are read. In a folder, subfolders with clouds in them are
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science import viewer
from fm_science.errors import UserError
from fm_science.files import UNREADABLE, Dropped, read_each, reason_of
from fm_science.samples import RECORD

from . import formats, meshes

PRECISE = 1e-6  # of a cloud's size: resolution needed of single precision, else points are kept in double


@dataclass(frozen=True, eq=False)
class Cloud:
    """One cloud: points ``(N, D)`` in the units of its source, a name, and the class if it has one. Points are in
    single precision, or in double precision if they are so far from the origin that single precision would round
    them."""

    points: Tensor
    name: str = ""
    label: str = ""

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        kind = f", {self.label!r}" if self.label else ""
        return f"Cloud({self.name!r}, {len(self)} points in {self.points.shape[1]} dimensions{kind})"

    def _repr_html_(self) -> str:
        text = xyz([self])
        return viewer.frame(viewer.Scene(self.name, "xyz", text, radius=viewer.point_radius(text)))


def read(paths: Iterable[str | Path], dropped: list[Dropped] | None = None) -> list[Cloud]:
    """The clouds of files and folders; of files in one folder that differ only in their extension, one is read.

    Clouds in subfolders of a folder have the subfolder's name as their class; subfolders without clouds are skipped,
    and so are those of a folder of samples (see :mod:`fm_science.samples`). A file of a folder that cannot be read is
    listed in ``dropped``, one that is named itself raises an error.

    Raises:
        UserError: for a path that does not exist, a file without clouds, an unknown extension, and a folder with clouds
            both in itself and in its subfolders.
    """
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    classes = classified(given)
    found = read_each([*classes], lambda file: read_file(file, classes[file]), given, dropped)
    if not found:
        raise _nothing(given)
    return found


def _nothing(paths: Sequence[Path]) -> UserError:
    return UserError(f"no clouds in {', '.join(map(str, paths))}: expected {', '.join(ORDER)} files")


def classified(paths: Sequence[Path]) -> dict[Path, str]:
    """The files of clouds that the paths name, each with the class that its folder gives, or "". Raises UserError where
    there are none, or a folder holds clouds both beside and in its subfolders."""
    classes: dict[Path, str] = {}
    for path in paths:
        classes |= _folder(path) if path.is_dir() else {path: ""}
    if not classes:
        raise _nothing(paths)
    return classes


def _folder(folder: Path) -> dict[Path, str]:
    """The files of clouds in a folder, or those in its subfolders, which are their classes."""
    mine = _readable(folder)
    inside = [] if (folder / RECORD).is_file() else sorted(f for f in folder.iterdir() if f.is_dir())
    below = {f.name: _readable(f) for f in inside if not f.name.startswith(".")}
    classes = [name for name, files in below.items() if files]
    if mine and classes:
        raise UserError(
            f"{folder} holds clouds, and so do its subfolders {', '.join(classes)}: which are meant? Name one of them, "
            f"or move {mine[0].name} and the files next to it into a subfolder, another class"
        )
    return {**dict.fromkeys(mine, ""), **{file: name for name in classes for file in below[name]}}


def _readable(folder: Path) -> list[Path]:
    """The files of a folder to read, one of each stem."""
    known = [f for f in folder.iterdir() if f.suffix.lower() in READERS and f.is_file() and f.name not in OURS]
    known.sort(key=lambda f: ORDER.index(f.suffix.lower()), reverse=True)
    return sorted({f.stem: f for f in known}.values())


def read_file(file: Path, label: str = "") -> list[Cloud]:
    """The clouds of a file, of the class ``label`` where it does not say. Raises UserError where it holds none."""
    if not file.is_file():
        raise UserError(f"no file or folder {str(file)!r}")
    if file.suffix.lower() not in READERS:
        raise UserError(f"{file}: clouds are read from {', '.join(ORDER)}, not from {file.suffix or 'such files'}")
    try:
        points, labels = READERS[file.suffix.lower()](file)
        clouds = [_sound(np.asarray(p, dtype=np.float64)) for p in points]
        if len(labels) != len(clouds):
            raise ValueError(f"{len(labels)} labels for {len(clouds)} clouds")
    except UNREADABLE as error:
        raise UserError(f"{file} holds no clouds: {reason_of(error)}") from error
    names = [f"{file.stem}_{i:04d}" if len(clouds) > 1 else file.stem for i in range(len(clouds))]
    return [Cloud(x, name, label or own) for x, name, own in zip(clouds, names, labels, strict=True)]


def _sound(points: np.ndarray) -> Tensor:
    """The points of a cloud in the precision that they need. Raises ValueError if they are not points."""
    if points.ndim != 2 or not 1 <= points.shape[-1] <= 3:
        raise ValueError(f"points must be rows of 1 to 3 coordinates, not {points.shape}")
    if not len(points):
        raise ValueError("a cloud without points")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite numbers, one row a point")
    if np.abs(points).max() > LARGEST:
        raise ValueError(f"coordinates up to {np.abs(points).max():.3g}; give them in units in which they are smaller")
    rough = np.abs(points).max() * np.finfo(np.float32).eps / 2 > PRECISE * max(np.ptp(points, axis=0))
    x = torch.from_numpy(np.ascontiguousarray(points))
    return x if rough and len(points) > 1 else x.float()


LARGEST = 1e15  # coordinates whose squares single precision can represent
OURS = ("dropped.csv", "samples.csv", "metrics.csv")  # tables next to samples and runs
READERS: dict[str, Callable[[Path], formats.Clouds]] = {
    ".npz": formats.npz, ".npy": formats.npz, ".csv": formats.csv, ".xyz": formats.xyz, ".pts": formats.xyz,
    ".ply": meshes.ply, ".pcd": meshes.pcd, ".off": meshes.off, ".obj": meshes.obj,
}  # fmt: skip
ORDER = list(READERS)


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
    """Clouds as the frames of one .xyz file, every point as a carbon atom for viewers."""
    with file.open("w") as stream:
        for cloud in clouds:
            stream.write(xyz([cloud]))
    return file


def xyz(clouds: Sequence[Cloud]) -> str:
    """Clouds as the text of an .xyz file."""
    lines = []
    for cloud in clouds:
        label = f" label={cloud.label}" if cloud.label else ""
        lines += [f"{len(cloud)}", f"{cloud.name} dim={cloud.points.shape[1]}{label}"]
        lines += ["C {:.6f} {:.6f} {:.6f}".format(*(*point, 0.0, 0.0)[:3]) for point in cloud.points.tolist()]
    return "\n".join([*lines, ""])


def trajectories(frames: Sequence[Sequence[Cloud]], folder: str | Path, first: int = 0) -> list[Path]:
    """One .xyz file per sample with one frame per step; ``frames[k][i]`` is sample i after step k."""
    folder = Path(folder) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    ways = enumerate(zip(*frames, strict=True), start=first)
    return [write_xyz(way, folder / f"cloud_{i:06d}.xyz") for i, way in ways]
