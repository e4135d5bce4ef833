"""Tables that are not text: numpy arrays, parquet files, and data frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fm_science.errors import UserError

from .text import DataFrame, Frame, Series, series


def _of_array(name: str, values: Any) -> Series:
    """A column from an array of numbers, booleans or words. Raises TypeError for anything else."""
    array = np.asarray(values)
    if array.dtype.kind == "b":
        return Series(name, None, tuple("true" if v else "false" for v in array.tolist()))
    if array.dtype.kind in "iuf":
        numbers = array.astype(np.float64)
        numbers[~np.isfinite(numbers)] = np.nan
        known = numbers[~np.isnan(numbers)]
        gaps = len(known) < len(numbers)  # whole numbers with a missing one among them become floats in arrays
        return Series(name, numbers, None, array.dtype.kind in "iu" or (gaps and bool((known == np.rint(known)).all())))
    if array.dtype.kind in "US":
        return series(name, [str(v) for v in array.astype(str).tolist()])
    if array.dtype.kind == "O":
        return series(name, ["" if v is None else str(v) for v in array.tolist()])
    raise TypeError(f"the column {name!r} holds {array.dtype}")


def of_frame(frame: DataFrame) -> Frame:
    """A data frame. Raises UserError for columns that hold neither numbers nor words."""
    try:
        found = tuple(_of_array(str(name), frame[name]) for name in frame.columns)
    except TypeError as error:
        raise UserError(f"the data frame: {error}; expected numbers, booleans or words") from error
    return Frame(found, True, "the data frame")


def read_numpy(path: Path) -> Frame:
    """An array of rows; a structured array; or one array a column."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {k: loaded[k] for k in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {"x": loaded}
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    names = next(
        (arrays.pop(k) for k in ("columns", "names", "header") if k in arrays and arrays[k].dtype.kind in "US"), None
    )
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


def read_parquet(path: Path) -> Frame:
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
