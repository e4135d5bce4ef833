"""Functions in netCDF files, .nc, as weather and ocean models write them: classic, 64-bit, CDF-5 and netCDF-4.

The first dimension of a variable is the function, the others are axes, whose coordinates are the variables of the same
names. Variables on the same dimensions are the channels of one function. The netCDF library unpacks values by
``scale_factor``, ``add_offset`` and ``_Unsigned``; values equal to ``_FillValue``, ``missing_value`` or the format's
own fill value, or outside the valid range, were not measured.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from fm_science.errors import UserError, nearest
from fm_science.files import refuse_bomb

log = logging.getLogger(__name__)
KINDS = {b"CDF\x01": "classic netCDF", b"CDF\x02": "netCDF with 64-bit offsets", b"CDF\x05": "CDF-5 (64-bit data)",
         b"\x89HDF": "netCDF-4 (HDF5)"}  # fmt: skip


def arrays(file: Path, wanted: str | None, axis: str | None) -> tuple[np.ndarray, list[np.ndarray | None], str]:
    """Variables of the file ``(functions, n1, ..., channels)`` in double precision, not measured values as NaN; the
    coordinates of the axes, ``None`` where the file has none; and the names of the variables.

    Args:
        file: the file to read.
        wanted: the variable, or several with commas, which are channels; ``None``: ``values``, else all with two
            dimensions or more, which must be the same.
        axis: the variable with the coordinates of its only axis; ``None``: those named as the dimensions.

    Raises:
        ValueError: for a file that is damaged, or not netCDF.
        UserError: for names that are not in the file, and if the netCDF library is not installed.
    """
    with _opened(file) as found:
        names = _names(file, found.variables, wanted)
        first = found.variables[names[0]]
        for name in names:
            refuse_bomb(first.size * 8, file.stat().st_size)
            if found.variables[name].dimensions != first.dimensions:
                raise UserError(
                    f"{file}: {names[0]} has the dimensions {first.dimensions} and {name} "
                    f"{found.variables[name].dimensions}; channels of one function have the same"
                )
        if axis is not None and axis not in found.variables:
            raise UserError(f"{file} holds no variable {axis!r}; {nearest(axis, found.variables)}")
        values = np.stack([_plain(found.variables[name]) for name in names], -1)
        dims = [axis] if axis is not None else [d if d in found.variables else None for d in first.dimensions[1:]]
        coords = [None if d is None else _plain(found.variables[d]) for d in dims]
    return values, coords, ", ".join(names)


def _opened(file: Path) -> Any:
    """The file as a ``netCDF4.Dataset``."""
    with file.open("rb") as stream:
        start = stream.read(4)
    if start not in KINDS:
        raise ValueError("the file is empty" if not start else "this is no netCDF file, whatever its name says")
    try:
        import netCDF4
    except ImportError as error:
        raise UserError(
            f"reading {KINDS[start]} needs the netCDF library: pip install 'fm-science[function]'"
        ) from error
    try:
        found = netCDF4.Dataset(str(file))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"it begins as {KINDS[start]}, but cannot be opened ({getattr(error, 'strerror', None) or error}): it is "
            "cut short or damaged"
        ) from error
    least, size = _least(found, start), file.stat().st_size
    if start != b"\x89HDF" and least > size:
        found.close()
        raise ValueError(f"it is cut short: {size} of {least} bytes or more")
    return found


def _least(found: Any, start: bytes) -> int:
    """The fewest bytes of a file of the classic formats with these variables, by their grammar (NetCDF Users Guide,
    file format specifications): the library reads zeros beyond the end of a truncated file."""
    count = 8 if start == b"CDF\x05" else 4  # bytes of a length
    offset = 4 if start == b"CDF\x01" else 8

    def padded(size: int) -> int:
        return -(-size // 4) * 4

    def name(text: str) -> int:
        return count + padded(len(text.encode()))

    def attributes(item: Any) -> int:
        values = [item.getncattr(key) for key in item.ncattrs()]
        sizes = [len(v.encode()) if isinstance(v, str) else np.asarray(v).nbytes for v in values]
        parts = zip(item.ncattrs(), sizes, strict=True)
        return 4 + count + sum(name(key) + 4 + count + padded(size) for key, size in parts)

    total = 4 + count + 4 + count + sum(name(d) + count for d in found.dimensions) + attributes(found) + 4 + count
    for key, variable in found.variables.items():
        total += name(key) + count * (1 + variable.ndim) + attributes(variable) + 4 + count + offset
        total += math.prod(variable.shape) * np.dtype(variable.dtype).itemsize
    return total


def _names(file: Path, found: Any, wanted: str | None) -> list[str]:
    """The variables that are read."""
    if wanted is not None:
        names = [word.strip() for word in wanted.split(",")]
        for name in names:
            if name not in found:
                raise UserError(f"{file} holds no variable {name!r}; {nearest(name, found)}")
        return names
    if "values" in found:
        return ["values"]
    bounds = {getattr(v, "bounds", "") for v in found.values()}
    wide = [n for n, v in found.items() if v.ndim >= 2 and n not in bounds and not n.endswith(("_bnds", "_bounds"))
            and np.dtype(v.dtype).kind in "iuf"]  # fmt: skip
    if not wide or len({found[n].dimensions for n in wide}) > 1:
        raise UserError(
            f"{file} holds {', '.join(wide) or 'no arrays of functions'}: name one with data.array=NAME, or several of "
            "the same dimensions, which are channels"
        )
    if len(wide) > 1:
        log.warning("%s: %s are read as channels; data.array=%s reads one", file, ", ".join(wide), wide[0])
    return wide


def _plain(variable: Any) -> np.ndarray:
    """Values in double precision, not measured ones as NaN."""
    if variable.dtype is str or np.dtype(variable.dtype).kind not in "iuf":
        raise ValueError(f"{variable.name!r} holds no numbers")
    return np.ma.filled(np.ma.asarray(variable[...]).astype(np.float64), np.nan)
