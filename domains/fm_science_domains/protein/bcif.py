"""BinaryCIF: the tables of mmCIF as packed arrays (Sehnal, Bittrich, Velankar et al. 2020, PLoS Comput. Biol. 16).

A column has a chain of encodings, such as numbers to integers to differences to few bits; they are inverted in reverse
order. Values are given as text, ``.`` and ``?`` by the mask, as if the file were mmCIF.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from fm_science.errors import UserError

DTYPES = {1: "<i1", 2: "<i2", 3: "<i4", 4: "<u1", 5: "<u2", 6: "<u4", 32: "<f4", 33: "<f8"}
LARGEST = 1 << 27  # entries of a column; more are a mistake or an attack on the memory
Encoding = Mapping[str, Any]  #: as in the file: ``kind`` and its parameters


def category(data: bytes, name: str) -> dict[str, list[str]]:
    """The columns of a category of the first block that has it, as text; empty if there is none.

    Raises:
        ValueError, KeyError, TypeError: if the file is broken.
        UserError: if msgpack is not installed.
    """
    try:
        import msgpack
    except ImportError as error:
        raise UserError("reading BinaryCIF needs msgpack: pip install 'fm-science[protein]'") from error

    for block in msgpack.unpackb(data)["dataBlocks"]:
        for table in block["categories"]:
            if table["name"] == name:
                return {column["name"]: _column(column) for column in table["columns"]}
    return {}


def _column(column: Encoding) -> list[str]:
    values = _decoded(column["data"])
    text = list(map(str, values))  # for a float as many digits as its precision has
    if column.get("mask") is not None:
        mask = _decoded(column["mask"]).tolist()
        text = [value if m == 0 else ".?"[m - 1] for value, m in zip(text, mask, strict=True)]
    return text


def _decoded(packed: Encoding) -> np.ndarray:
    """An array after decoding."""
    values: Any = packed["data"]
    for encoding in reversed(packed["encoding"]):
        values = DECODERS[encoding["kind"]](values, encoding)
        if len(values) > LARGEST:
            raise ValueError(f"a column of {len(values)} entries")
    return np.asarray(values)


def _bytes(values: bytes, e: Encoding) -> np.ndarray:
    return np.frombuffer(values, DTYPES[e["type"]])


def _fixed_point(values: np.ndarray, e: Encoding) -> np.ndarray:
    return (values / e["factor"]).astype(DTYPES[e["srcType"]])


def _interval(values: np.ndarray, e: Encoding) -> np.ndarray:
    step = (e["max"] - e["min"]) / (e["numSteps"] - 1)
    return (e["min"] + values * step).astype(DTYPES[e["srcType"]])


def _run_length(values: np.ndarray, e: Encoding) -> np.ndarray:
    if int(values[1::2].sum()) != e["srcSize"] or e["srcSize"] > LARGEST or (values[1::2] < 0).any():
        raise ValueError("a column's runs do not add up to its size")
    return np.repeat(values[::2], values[1::2])


def _delta(values: np.ndarray, e: Encoding) -> np.ndarray:
    return (np.cumsum(values, dtype=np.int64) + e["origin"]).astype(np.int64)


def _integer_packing(values: np.ndarray, e: Encoding) -> np.ndarray:
    """Numbers too large for one entry are sums: entries at a limit are added to what follows them."""
    info = np.iinfo(values.dtype)
    ends = (values != info.max) & ((values != info.min) | bool(e["isUnsigned"]))
    last = np.flatnonzero(ends)
    total = np.cumsum(values, dtype=np.int64)[last]
    found = np.diff(total, prepend=0)
    if len(found) != e["srcSize"]:
        raise ValueError("a packed column has not the size that is written")
    return found


def _strings(values: bytes, e: Encoding) -> np.ndarray:
    offsets = _decoded({"data": e["offsets"], "encoding": e["offsetEncoding"]}).tolist()
    words = [e["stringData"][i:j] for i, j in pairwise(offsets)]
    which = _decoded({"data": values, "encoding": e["dataEncoding"]})
    return np.array([*words, ""], dtype=object)[which]  # -1, no value, is the empty text


DECODERS: dict[str, Callable[[Any, Encoding], np.ndarray]] = {
    "ByteArray": _bytes, "FixedPoint": _fixed_point, "IntervalQuantization": _interval, "RunLength": _run_length,
    "Delta": _delta, "IntegerPacking": _integer_packing, "StringArray": _strings,
}  # fmt: skip
