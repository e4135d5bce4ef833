"""Functions in files: .npz for programs, .csv for people.

An .npz file has functions on one regular grid as ``values`` ``(functions, n1, n2, ...)``, with ``channels`` (a
number) if the last axis is the channel, and the coordinates of each axis as ``axis0``, ``axis1`` and so on
(default: 0 to 1). Functions at their own sensors are ``values`` ``(all sensors, channels)``, ``coords`` ``(all
sensors, d)`` and ``sizes``, the number of sensors of each; with sensors in common, ``values`` is ``(functions, N)`` or
``(functions, N, channels)`` together with ``coords`` ``(N, d)``.

A .csv file is wide or long. Wide: one function per line; the first line may give the coordinates of the sensors,
``name,0,0.1,...`` with the name of the function in the first column; an empty first cell means the same. Long: one
sensor per line, with columns ``function,x,value`` or ``function,x,y,value1,value2``, in any order. Empty cells, ``NA``
and ``nan`` are values that were not measured.

An .npy file has ``values`` only, and netCDF files, .nc, are read as their module says.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError, nearest
from fm_science.files import UNREADABLE, Arrays, Dropped, read_each, reason_of

from . import netcdf, tables
from .sensors import Sampled, line, on_axes, scattered, scattered_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How an array of a file is interpreted.

    Args:
        array: its name, or several with commas, which are channels; ``None``: ``values``, else ``x``, else the only one
            with two axes or more; in netCDF all of them if their dimensions are the same.
        axis: the name of the array with the coordinates of its only axis.
        channel_axis: whether the last axis is the channel.
        periodic: whether the axes have a period.
    """

    array: str | None = None
    axis: str | None = None
    channel_axis: bool = False
    periodic: bool = False


def read(
    paths: Iterable[str | Path], layout: Layout | None = None, dropped: list[Dropped] | None = None
) -> list[Sampled]:
    """The functions of files and folders; of files in one folder that differ only in their extension, one is read.
    Values that were not measured are left out, and the function then has its own sensors; functions without any value
    are left out. They are listed in ``dropped``, and so are files of a folder that cannot be read; a file that is named
    itself raises an error.

    Raises:
        UserError: for a path that does not exist, a file without functions, and an unknown extension.
    """
    layout, dropped = layout or Layout(), [] if dropped is None else dropped
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    nowhere: list[Dropped] = []
    found = read_each(listed(given), lambda file: read_file(file, layout, nowhere), given, dropped)
    dropped += nowhere
    return found


def listed(paths: Sequence[Path]) -> list[Path]:
    """The files of functions that the paths name. Raises UserError where there are none."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            known = [f for f in path.iterdir() if f.suffix.lower() in READERS and f.is_file() and f.name not in OURS]
            known.sort(key=lambda f: ORDER.index(f.suffix.lower()))
            files += sorted({f.stem: f for f in reversed(known)}.values())
        else:
            files.append(path)
    if not files:
        raise UserError(f"no functions in {', '.join(map(str, paths))}: expected {', '.join(ORDER)} files")
    return files


def read_file(file: Path, layout: Layout, nowhere: list[Dropped]) -> list[Sampled]:
    """The functions of a file; those that were measured nowhere are listed in ``nowhere``. Raises UserError where it
    holds none."""
    if not file.is_file():
        raise UserError(f"no file or folder {str(file)!r}")
    if file.suffix.lower() not in READERS:
        raise UserError(f"{file}: functions are read from {', '.join(ORDER)}, not from {file.suffix or 'such files'}")
    try:
        found = READERS[file.suffix.lower()](file, layout)
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{file} holds no functions: {reason_of(error)}") from error
    if any(bool(f.values.isinf().any()) for f in found):
        raise UserError(f"{file} holds values that are infinite")
    there = [f for f in found if not bool(f.values.isnan().any(1).all())]
    if not there:
        raise UserError(f"{file} holds functions that were measured nowhere: all of their values are missing")
    most = max(float(f.values.nan_to_num().abs().max()) for f in there)
    if most > LARGEST:
        raise UserError(f"{file} holds values up to {most:.3g}; give them in units in which they are smaller")
    if len(there) < len(found):
        log.warning("%s: %d of %d functions were measured nowhere and are left out",
                    file, len(found) - len(there), len(found))  # fmt: skip
        nowhere += [Dropped(str(file), f.name, "measured nowhere") for f in found if f not in there]
    return [measured(f) for f in there]


def measured(f: Sampled) -> Sampled:
    """The function without the sensors that have no value; it has at least one value."""
    gone = f.values.isnan().any(1)
    if not bool(gone.any()):
        return f
    coords = f.coords[~gone]
    return Sampled(f.values[~gone], coords, None, scattered_weights(coords), f.name)


def _npz(file: Path, layout: Layout) -> list[Sampled]:
    arrays = Arrays(file)
    names = _named(file, arrays, layout.array)
    parts = [arrays.numbers(name).astype(np.float64) for name in names]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"{', '.join(names)} differ in shape; channels of one function have the same")
    values, name = parts[0], ", ".join(names)
    if len(parts) > 1:
        values, layout = np.stack(parts, -1), replace(layout, channel_axis=True)
    if "sizes" in arrays:
        return _ragged(values, arrays.numbers("coords"), arrays["sizes"], file.stem)
    channels = int(arrays["channels"]) if "channels" in arrays else (values.shape[-1] if layout.channel_axis else 0)
    if channels and values.shape[-1] != channels:
        raise ValueError(f"the last axis of {name!r} has {values.shape[-1]} entries, not {channels} channels")
    if "coords" in arrays:
        coords = arrays.numbers("coords")
        values = values if values.ndim == 3 else values[..., None]
        return [scattered(v, coords, f"{file.stem}_{i:04d}") for i, v in enumerate(values)]
    values = values if channels else values[..., None]
    if not 3 <= values.ndim <= 5:
        raise ValueError(f"{name!r} has shape {parts[0].shape}; expected (functions, n1[, n2[, n3]][, channels])")
    return _gridded(values, _axes(file, arrays, layout, values.shape[1:-1]), layout.periodic, file.stem)


def _ragged(values: np.ndarray, coords: np.ndarray, sizes: np.ndarray, stem: str) -> list[Sampled]:
    """Functions at their own sensors, ``sizes`` (functions,) rows each. Raises ValueError if they do not add up."""
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not (sizes > 0).all() or sizes.sum() != len(values):
        raise ValueError(f"sizes must be whole numbers above 0 that add up to the {len(values)} values; "
                         f"they add up to {sizes.sum()}")  # fmt: skip
    if len(values) != len(coords):
        raise ValueError(f"{len(values)} values at {len(coords)} places")
    parts = [np.split(a, np.cumsum(sizes)[:-1]) for a in (values, coords)]
    return [scattered(v, x, f"{stem}_{i:04d}") for i, (v, x) in enumerate(zip(*parts, strict=True))]


def _named(file: Path, arrays: Arrays, wanted: str | None) -> list[str]:
    """The arrays with functions."""
    if arrays.single:
        return [""]
    if wanted is not None:
        names = [word.strip() for word in wanted.split(",")]
        for name in names:
            if name not in arrays:
                raise UserError(f"{file} holds no array {name!r}; {nearest(name, arrays)}")
        return names
    for name in ("values", "x"):
        if name in arrays and arrays.headers[name].ndim >= 2:
            return [name]
    wide = [name for name, header in arrays.headers.items() if header.ndim >= 2 and header.numeric]
    if len(wide) != 1:
        odd = [n for n, h in arrays.headers.items() if h.ndim >= 2 and not h.numeric]
        if odd and not wide:
            arrays.refuse(odd[0])
        raise UserError(
            f"{file} holds {', '.join(wide) or 'no arrays of functions'}: name one with data.array=NAME, or several of "
            "one shape, which are channels"
        )
    return wide


def _axes(file: Path, arrays: Mapping[str, Any], layout: Layout, shape: Sequence[int]) -> list[Tensor]:
    """The coordinates of each axis, ascending or descending; from 0 to 1 if the file does not give them."""
    if layout.axis is not None:
        if layout.axis not in arrays:
            raise UserError(f"{file} holds no array {layout.axis!r}; {nearest(layout.axis, arrays)}")
        given = [arrays[layout.axis]]
    else:
        given = [arrays.get(f"axis{k}") for k in range(len(shape))]
    axes = []
    for k, n in enumerate(shape):
        own = given[k] if k < len(given) else None
        even = np.arange(n) / (n if layout.periodic else max(1, n - 1))
        places = torch.as_tensor(np.asarray(even if own is None else own, dtype=np.float64))
        if n < 2:
            raise ValueError(f"axis {k} has {n} sensors; a function is known at two or more")
        steps = places.diff() if places.shape == (n,) else torch.zeros(1)
        if not bool((steps > 0).all()) and not bool((steps < 0).all()):
            raise ValueError(f"axis {k} must hold {n} ascending or descending coordinates")
        axes.append(places)
    return axes


def _gridded(values: np.ndarray, axes: Sequence[Tensor], periodic: bool, stem: str) -> list[Sampled]:
    """Functions on axes, of which descending ones, such as latitudes and wavenumbers, are reversed."""
    down = [k for k, places in enumerate(axes) if float(places[0]) > float(places[-1])]
    values = np.ascontiguousarray(np.flip(values, tuple(k + 1 for k in down)))
    turned = [places.flip(0) if k in down else places for k, places in enumerate(axes)]
    return on_axes(torch.from_numpy(values), turned, periodic, stem)


def _netcdf(file: Path, layout: Layout) -> list[Sampled]:
    values, coords, name = netcdf.arrays(file, layout.array, layout.axis)
    if layout.channel_axis:
        if values.shape[-1] > 1:
            raise ValueError(f"{name} are channels, so the last axis of each cannot count channels too")
        values = values[..., 0]
    if not 3 <= values.ndim <= 5:
        raise ValueError(f"{name!r} has shape {values.shape[:-1]}; expected (functions, n1[, n2[, n3]][, channels])")
    arrays = {f"axis{k}": c for k, c in enumerate(coords) if c is not None}
    axes = _axes(file, arrays, replace(layout, axis=None), values.shape[1:-1])
    return _gridded(values, axes, layout.periodic, file.stem)


def _csv(file: Path, layout: Layout) -> list[Sampled]:
    return tables.functions(tables.rows(file), file.stem, layout.periodic)


LARGEST = 1e37  # a value that single precision can represent
OURS = ("dropped.csv", "samples.csv", "metrics.csv")  # tables next to samples and runs
READERS: dict[str, Callable[[Path, Layout], list[Sampled]]] = {
    ".npz": _npz, ".npy": _npz, ".csv": _csv, ".nc": _netcdf, ".nc4": _netcdf, ".cdf": _netcdf,
}  # fmt: skip
ORDER = list(READERS)


def write(samples: Sequence[Sampled], folder: str | Path, first: int = 0) -> list[Path]:
    """All samples as one .npz, ``functions_FIRST-LAST``, and also as a wide .csv if they are one value on a common
    line; numbered from ``first``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"functions_{first:06d}-{first + len(samples) - 1:06d}"
    alike = all(f.grid == samples[0].grid and torch.equal(f.coords, samples[0].coords) for f in samples)
    values = [np.asarray(f.values.detach().cpu()) for f in samples]
    coords = [np.asarray(f.coords.detach().cpu()) for f in samples]
    grid, channels = samples[0].grid, samples[0].values.shape[1]
    if alike and grid is not None:
        axes = {f"axis{k}": np.asarray(line(samples[0].coords, grid, k)) for k in range(len(grid))}
        stacked = np.stack(values).reshape(len(samples), *grid, channels)
        np.savez_compressed(place.with_suffix(".npz"), values=stacked, channels=channels, **axes)  # type: ignore[arg-type]
    else:
        sizes = np.array([len(v) for v in values])
        together = {"values": np.concatenate(values), "coords": np.concatenate(coords), "sizes": sizes}
        np.savez_compressed(place.with_suffix(".npz"), **together)  # type: ignore[arg-type]
    files = [place.with_suffix(".npz")]
    if alike and channels == 1 and coords[0].shape[1] == 1:
        with place.with_suffix(".csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["name", *(f"{x:.9g}" for x in coords[0][:, 0].tolist())])
            table.writerows([f.name, *(f"{v:.7g}" for v in f.values[:, 0].tolist())] for f in samples)
        files.append(place.with_suffix(".csv"))
    return files
