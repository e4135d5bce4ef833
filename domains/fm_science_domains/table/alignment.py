"""Tables brought to the columns of another, by name or by place, and their cells as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fm_science.errors import UserError

from .encoding import Encoding
from .files import Frame, Numbers, Series


def joined(first: Frame, second: Frame) -> Frame:
    """Two tables of the same columns, one below the other. Raises UserError where the columns differ."""
    second = aligned(second, first.names, first.header)
    whole = []
    for a, b in zip(first.series, second.series, strict=True):
        both = a.numbers is not None and b.numbers is not None
        texts = a.labels + b.labels if a.texts is not None or not both else None
        numbers = np.concatenate([a.numbers, b.numbers]) if both else None
        whole.append(Series(a.name, numbers, texts, a.whole and b.whole))
    return Frame(tuple(whole), first.header, first.source)


def aligned(frame: Frame, names: Sequence[str], header: bool = True) -> Frame:
    """The columns ``names`` of a frame, in this order; by their place where it has no header or the names were made up.

    Raises:
        UserError: where a column is not there.
    """
    if (not frame.header or not header) and len(frame.series) == len(names):
        named = (Series(n, s.numbers, s.texts, s.whole) for n, s in zip(names, frame.series, strict=True))
        return Frame(tuple(named), True, frame.source)
    by_name = {s.name: s for s in frame.series}
    for name in names:
        if name not in by_name:
            raise UserError(f"{frame.source} has no column {name!r}; its columns are {', '.join(frame.names)}")
    return Frame(tuple(by_name[name] for name in names), True, frame.source)


def values(frame: Frame, encoding: Encoding) -> Numbers:
    """The cells of a frame whose columns are those of the encoding, ``(n, C)``; NaN where missing or not learned."""
    found = np.full((len(frame), len(encoding.columns)), np.nan)
    for k, (column, series) in enumerate(zip(encoding.columns, frame.series, strict=True)):
        if column.learned:
            found[:, k] = column.numbers(series, frame.source)
    return found
