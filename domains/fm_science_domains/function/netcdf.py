"""Functions in classic netCDF files (version 3, .nc), as weather and ocean models write them.

The first dimension of an array counts functions, the others are axes, whose coordinates are the variables of the same
names. Packed values are unpacked by ``scale_factor`` and ``add_offset``, and fill values are values that were not
measured. An axis that descends, as latitudes often do, is turned around.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fm_science.errors import UserError, nearest

HDF = b"\x89HDF"  # how netCDF-4 begins


def arrays(file: Path, wanted: str | None, axis: str | None) -> tuple[np.ndarray, list[np.ndarray | None], str]:
    """An array of the file ``(functions, n1, ...)`` in double precision, not measured values as NaN; the ascending
    coordinates of its axes, ``None`` where the file has none; and its name.

    Args:
        file: to read.
        wanted: the array; ``None``: ``values``, else the only one with two dimensions or more.
        axis: the variable with the coordinates of its only axis; ``None``: those named as the dimensions.

    Raises:
        UserError: for netCDF-4, and for names that the file does not hold.
    """
    from scipy.io import netcdf_file

    with file.open("rb") as stream:
        if stream.read(4) == HDF:
            raise UserError(
                f"{file} is netCDF-4, and classic netCDF is read: convert it by `nccopy -k classic {file.name} "
                "out.nc`, or save the array as .npz"
            )
    try:
        opened = netcdf_file(str(file), "r", mmap=False, maskandscale=True)
    except TypeError as error:  # what SciPy says of other files
        raise ValueError("this is no classic netCDF file") from error
    with opened:
        found = opened.variables
        name = _name(file, found, wanted)
        dims = found[name].dimensions[1:]
        values = _plain(found[name])
        if axis is not None and axis not in found:
            raise UserError(f"{file} holds no variable {axis!r}; {nearest(axis, found)}")
        named = [axis] if axis is not None else [d if d in found else None for d in dims]
        coords = [None if n is None else _plain(found[n]) for n in named]
    for k, along in enumerate(coords):
        if along is not None and along.ndim == 1 and len(along) > 1 and (np.diff(along) < 0).all():
            values, coords[k] = np.flip(values, k + 1), along[::-1].copy()
    return np.ascontiguousarray(values), coords, name


def _name(file: Path, found: Any, wanted: str | None) -> str:
    if wanted is not None and wanted not in found:
        raise UserError(f"{file} holds no variable {wanted!r}; {nearest(wanted, found)}")
    if wanted is not None or "values" in found:
        return wanted or "values"
    wide = [n for n, v in found.items() if len(v.dimensions) >= 2 and not n.endswith(("_bnds", "_bounds"))]
    if len(wide) != 1:
        raise UserError(f"{file} holds {', '.join(wide) or 'no arrays of functions'}: name one with data.array=NAME")
    return wide[0]


def _plain(variable: Any) -> np.ndarray:
    """Values in double precision and native order, fill values as NaN."""
    return np.ma.filled(np.ma.asarray(variable[:], dtype=np.float64), np.nan)
