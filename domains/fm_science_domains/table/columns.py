"""Columns: what kind of quantity each is, and the coordinate in which it is learned.

A real number is standardised, y = (v - mean) / std. A positive one is learned as its logarithm, a bounded one as its
logit, an integer as the real number that is left when an even dither in [-1/2, 1/2) is added (dequantisation; Theis,
van den Oord & Bethge 2016). Angles and other periodic quantities lie on the circle, classes are classes. Everything
that is fitted to the training rows is a plain number or word of :class:`Column`, is kept with the run and undone on the
way out. Densities of coordinates become densities of the user's numbers through log |dy/dv|.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fm_science.errors import UserError, nearest

from .files import Numbers, Series

KINDS = ("real", "integer", "positive", "bounded", "angle", "radians", "period=P", "class", "ignore")
EDGE = 0.005  #: by how much of its range a bounded column is widened, so that the logit of its ends is finite


@dataclass(frozen=True)
class Column:
    """One column: its kind, and what was fitted to the training rows.

    Attributes:
        name: in the header.
        kind: real, integer, positive, bounded, period, class or ignore.
        mean, std: of the coordinate before standardisation.
        log: whether an integer is learned as a logarithm.
        low, high: ends of a bounded column; the smallest value of an integer.
        period: of a periodic column, in the user's units.
        start: the smallest value of a periodic column as it is written: 0, or minus half a period.
        classes: the words of a class column, in order.
        shares: how frequent each class is.
        decimals: digits after the point, as written; ``None``: as many as needed.
        constant: the only value of a column that does not vary; it is kept, and not learned.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    log: bool = False
    low: float = 0.0
    high: float = 1.0
    period: float = 0.0
    start: float = 0.0
    classes: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    decimals: int | None = None
    constant: str | None = None

    @property
    def learned(self) -> bool:
        """Whether the column is part of the state."""
        return self.kind != "ignore" and self.constant is None

    @property
    def linear(self) -> bool:
        """Whether its coordinate is a real number."""
        return self.kind in ("real", "integer", "positive", "bounded")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the summary of a run."""
        return {**asdict(self), "classes": list(self.classes), "shares": list(self.shares)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Column:
        """The inverse of :meth:`as_dict`."""
        return Column(**{**values, "classes": tuple(values["classes"]), "shares": tuple(values["shares"])})

    def coordinate(self, v: Numbers, dither: Numbers | float = 0.0) -> Numbers:
        """Values ``(n,)`` to coordinates; angles to radians in [-pi, pi), classes stay numbers. NaN stays NaN.

        Args:
            v: in the user's units; numbers of classes for class columns.
            dither: in [-1/2, 1/2), added to integers.
        """
        if self.kind == "period":
            return np.remainder(2 * np.pi / self.period * v + np.pi, 2 * np.pi) - np.pi
        return (self._unscaled(v, dither) - self.mean) / self.std if self.linear else v

    def _unscaled(self, v: Numbers, dither: Numbers | float = 0.0) -> Numbers:
        w = v + dither if self.kind == "integer" else v
        if self.kind == "positive" or self.log:
            return np.log(w - self._origin)
        if self.kind == "bounded":
            low, high = self._widened
            share = np.clip((w - low) / (high - low), 1e-9, 1 - 1e-9)
            return np.log(share) - np.log1p(-share)
        return w

    @property
    def _origin(self) -> float:
        """Where the logarithm has its pole: at zero, and for integers one below the smallest."""
        return self.low - 1 if self.kind == "integer" else 0.0

    @property
    def _widened(self) -> tuple[float, float]:
        gap = EDGE * (self.high - self.low)
        return self.low - gap, self.high + gap

    def value(self, y: Numbers) -> Numbers:
        """Coordinates ``(n,)`` to values in the user's units: the inverse of :meth:`coordinate`."""
        if self.kind == "period":
            return self.start + np.remainder(self.period / (2 * np.pi) * y - self.start, self.period)
        if not self.linear:
            return y
        w = self.mean + self.std * y
        if self.kind == "positive" or self.log:
            w = self._origin + np.exp(np.minimum(w, 700.0))
        if self.kind == "bounded":
            low, high = self._widened
            w = np.clip(low + (high - low) / (1 + np.exp(-np.clip(w, -700, 700))), self.low, self.high)
        if self.kind == "integer":
            w = np.rint(w)
            w = np.maximum(w, self.low) if self.low >= 0 else w
        return w

    def log_slope(self, v: Numbers, dither: Numbers | float = 0.0) -> Numbers:
        """log |dy/dv| at values ``(n,)``; zero for classes, which have no density."""
        if self.kind == "period":
            return np.full_like(v, math.log(2 * math.pi / self.period))
        if not self.linear:
            return np.zeros_like(v)
        w, found = v + dither if self.kind == "integer" else v, np.full_like(v, -math.log(self.std))
        if self.kind == "positive" or self.log:
            found = found - np.log(w - self._origin)
        if self.kind == "bounded":
            low, high = self._widened
            found = found + math.log(high - low) - np.log((w - low) * (high - w))
        return found

    def text(self, value: float) -> str:
        """A value as it is written: the word of a class, a whole number, or as many decimals as the source had."""
        if self.constant is not None:
            return self.constant
        if math.isnan(value):
            return ""
        if self.kind == "class":
            return self.classes[int(value)]
        if self.kind == "integer":
            return str(int(value))
        if self.decimals is None:
            return f"{value:.9g}"
        shown = f"{value:.{self.decimals}f}"
        if self.kind == "positive" and float(shown) <= 0:
            return f"{value:.3g}"  # a positive number must not be rounded to zero
        if self.kind == "period" and float(shown) >= self.start + self.period:
            return f"{self.start:.{self.decimals}f}"
        return shown

    def numbers(self, series: Series, source: str) -> Numbers:
        """The cells of a series as values ``(n,)``, NaN where missing; numbers of classes for class columns.

        Raises:
            UserError: for a word that is no number or none of the classes, and a number that this column cannot hold.
        """
        if self.constant is not None:
            return np.full(len(series), np.nan)
        if self.kind == "class":
            return class_numbers(self, series, source)
        if series.numbers is None:
            raise UserError(f"{source}: column {self.name!r} holds text ({some_text(series)!r}); expected numbers")
        found = series.numbers.copy()
        bad = np.zeros(len(found), bool)
        if self.kind == "positive":
            bad, what = found <= 0, "positive numbers"
        if self.kind == "bounded":
            bad, what = (found < self.low) | (found > self.high), f"numbers from {self.low:g} to {self.high:g}"
        if self.kind == "integer":
            bad, what = (found != np.rint(found)) & ~np.isnan(found), "whole numbers"
            bad |= self.log & (found < self.low)
        if bad.any():
            row = int(bad.nonzero()[0][0])
            raise UserError(f"{source}: column {self.name!r} has {found[row]:g} in row {row + 1}; expected {what}")
        return found


def class_numbers(column: Column, series: Series, source: str) -> Numbers:
    """The number of the class of every cell, ``(n,)``; NaN where missing. Raises UserError for other words."""
    index = {name: k for k, name in enumerate(column.classes)}
    found = np.full(len(series), np.nan)
    for row, label in enumerate(series.labels):
        if label is None:
            continue
        if label not in index:
            raise UserError(
                f"{source}: column {column.name!r} has the class {label!r} in row {row + 1}; "
                f"{nearest(label, column.classes)}"
            )
        found[row] = index[label]
    return found


def some_text(series: Series) -> str:
    """A cell that is no number."""
    for word in series.texts or ():
        if word is not None and not re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", word):
            return word
    return ""
