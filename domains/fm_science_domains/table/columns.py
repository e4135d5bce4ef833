"""Columns: what kind of quantity each is, and the coordinate in which it is learned.

A real number is standardised, y = (v - mean) / std. A positive one is learned as its logarithm, a bounded one as its
logit, an integer as the real number that is left when an even dither in [-1/2, 1/2) is added (dequantisation; Theis, van
den Oord & Bethge 2016). Angles and other periodic quantities lie on the circle, classes are classes. Everything that is
fitted to the training rows is a plain number or word of :class:`Column`, is kept with the run and undone on the way
out. Densities of coordinates become densities of the user's numbers through log |dy/dv|.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fm_science.errors import UserError, nearest

from .files import Frame, Numbers, Series

KINDS = ("real", "integer", "positive", "bounded", "angle", "radians", "period=P", "class", "ignore")
PERIODS = {"angle": 360.0, "radians": 2 * math.pi}
MOST = 200  #: classes of a column, at most
EDGE = 0.005  #: by how much of its range a bounded column is widened, so that the logit of its ends is finite
NUMBERED = {"", "index", "id", "row", "unnamed: 0", "no", "nr", "number"}  #: names of columns that count the rows


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
        """Plain values, for the statistics of a run."""
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
            return _class_numbers(self, series, source)
        if series.numbers is None:
            raise UserError(f"{source}: column {self.name!r} holds text ({_some_text(series)!r}); expected numbers")
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


def _class_numbers(column: Column, series: Series, source: str) -> Numbers:
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


def parse(text: str, names: Sequence[str]) -> dict[str, str]:
    """The kinds of ``bearing:angle,kind:class`` by name of the column.

    Raises:
        UserError: for a column that the table does not have, a kind that there is not, or a word without a colon.
    """
    found: dict[str, str] = {}
    for word in filter(None, (w.strip() for w in text.split(","))):
        name, colon, kind = (part.strip() for part in word.rpartition(":"))
        if not colon:
            raise UserError(f"data.columns={text}: expected name:kind, such as {names[0]}:real, not {word!r}")
        if name not in names:
            raise UserError(f"data.columns={text}: the table has no column {name!r}; {nearest(name, names)}")
        base, _, rest = kind.partition("=")
        plain = base in KINDS and not rest
        if not (plain or (base == "period" and _positive(rest)) or (base == "bounded" and _limits(rest))):
            raise UserError(f"data.columns={text}: {kind!r} is no kind of column; expected one of {', '.join(KINDS)}")
        found[name] = kind
    return found


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _limits(text: str) -> tuple[float, float] | None:
    """The limits of ``0..100``."""
    try:
        low, high = (float(word) for word in text.split(".."))
    except ValueError:
        return None
    return (low, high) if low < high else None


def inferred(series: Series) -> str:
    """The kind that the cells of a column speak for.

    Words are not guessed to be classes, since they may as well be names or dates: the user says so. Two whole numbers,
    or true and false, are classes; other whole numbers are integers, unless they count the rows. Numbers above zero are
    positive where their logarithm is less skewed than they are.
    """
    if series.numbers is None:
        words = {w.lower() for w in series.texts or () if w is not None}
        return "class" if words <= {"true", "false"} else "text"
    v = series.numbers[~np.isnan(series.numbers)]
    if series.whole and len(v) == len(series) and len(v) > 2 and series.name.strip().lower() in NUMBERED:
        if np.array_equal(v - v[0], np.arange(len(v))):
            return "ignore"
    if series.whole:
        return "class" if len(np.unique(v)) == 2 else "integer"
    if len(v) and v.min() > 0 and abs(_skewness(np.log(v))) < abs(_skewness(v)):
        return "positive"
    return "real"


def _skewness(v: Numbers) -> float:
    spread = v.std()
    return float((((v - v.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def fit(frame: Frame, train: Numbers, wishes: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of a table, fitted to the rows ``train`` (numbers of rows).

    Args:
        frame: the table.
        train: ``(m,)`` which rows are learned from. Classes and limits are those of all rows.
        wishes: kinds that the user asks for, by name.

    Raises:
        UserError: for text that is not said to be a class, a kind that the cells do not fit, a column without a value,
            and tables in which nothing varies.
    """
    words = [s.name for s in frame.series if s.name not in wishes and inferred(s) == "text"]
    if words:
        some = next(s for s in frame.series if s.name == words[0])
        wanted = ",".join(f"{name}:class" for name in words)
        raise UserError(
            f"{frame.source}: column {words[0]!r} holds text ({_some_text(some)!r}); write data.columns={wanted}, or "
            f"{words[0]}:ignore to leave it out"
        )
    columns = tuple(_fitted(s, wishes.get(s.name) or inferred(s), train, frame.source) for s in frame.series)
    if not any(c.learned for c in columns):
        raise UserError(f"{frame.source}: there is no column to learn: all are constant or ignored")
    return columns


def _some_text(series: Series) -> str:
    """A cell that is no number."""
    for word in series.texts or ():
        if word is not None and not re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", word):
            return word
    return ""


def _fitted(series: Series, kind: str, train: Numbers, source: str) -> Column:
    kind, _, rest = kind.partition("=")
    column = Column(series.name, "period" if kind in PERIODS else kind, decimals=_decimals(series))
    if kind == "ignore":
        return column
    present = sorted({w for w in series.labels if w is not None}, key=_order)
    if not present:
        raise UserError(f"{source}: column {series.name!r} holds no value; write data.columns={series.name}:ignore")
    if kind == "class":
        return _fitted_classes(column, series, present, train, source)
    if series.numbers is None:
        raise UserError(f"{source}: column {series.name!r} holds text ({_some_text(series)!r}), and is said to be {kind}")
    v = series.numbers[~np.isnan(series.numbers)]
    if v.min() == v.max():
        return replace(column, constant=present[0])
    if column.kind == "period":
        period = PERIODS.get(kind) or float(rest)
        return replace(column, period=period, start=-period / 2 if v.min() < 0 else 0.0)
    limits = _limits(rest) or (float(v.min()), float(v.max()))
    column = replace(column, low=limits[0], high=limits[1])
    if kind == "integer":
        skewed = v.min() >= 0 and abs(_skewness(np.log(v - v.min() + 1))) < abs(_skewness(v))
        column = replace(column, log=bool(skewed))
    seen = column.numbers(series, source)[train]
    y = column._unscaled(seen[~np.isnan(seen)])
    mean, std = (float(y.mean()), float(y.std())) if len(y) else (0.0, 1.0)
    return replace(column, mean=mean, std=std if std > 0 else 1.0)


def _fitted_classes(column: Column, series: Series, present: list[str], train: Numbers, source: str) -> Column:
    if len(present) == 1:
        return replace(column, constant=present[0])
    if len(present) > MOST:
        raise UserError(
            f"{source}: column {series.name!r} has {len(present)} classes, and at most {MOST} can be learned; write "
            f"data.columns={series.name}:ignore, or :integer or :real where its values are numbers"
        )
    column = replace(column, classes=tuple(present))
    seen = _class_numbers(column, series, source)[train]
    count = np.bincount(seen[~np.isnan(seen)].astype(int), minlength=len(present)) + 0.5
    return replace(column, shares=tuple((count / count.sum()).tolist()))


def _order(word: str) -> tuple[int, float, str]:
    """Numbers by size, then words by the alphabet."""
    try:
        return (0, float(word), word)
    except ValueError:
        return (1, 0.0, word)


def _decimals(series: Series) -> int | None:
    """Digits after the point of the longest number as written; ``None`` where some are written in powers of ten, or
    there is no text."""
    if series.texts is None or series.numbers is None:
        return None
    found = [re.fullmatch(r"[+-]?\d*(?:\.(\d*))?", t) for t in series.texts if t is not None]
    return max((len(m[1] or "") for m in found if m), default=0) if all(found) else None


def described(columns: Sequence[Column], missing: Sequence[int]) -> str:
    """The columns as a table: what each was taken for, and how many of its cells are missing."""
    rows = [("column", "kind", "what is learned", "missing")]
    rows += [(c.name, c.kind if c.constant is None else "constant", _meaning(c), str(m)) for c, m in zip(columns, missing, strict=True)]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join("  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _meaning(c: Column) -> str:
    if c.constant is not None:
        return f"always {c.constant}: kept as it is"
    words = {
        "real": f"mean {c.mean:.4g}, spread {c.std:.3g}",
        "positive": f"its logarithm; median about {math.exp(min(c.mean, 700)):.4g}",
        "bounded": f"its logit between {c.low:g} and {c.high:g}",
        "integer": f"whole numbers from {c.low:g} to {c.high:g}" + (", by their logarithm" if c.log else ""),
        "period": f"on a circle of {c.period:.6g}, from {c.start:.6g}",
        "class": f"{len(c.classes)} classes: {', '.join(c.classes[:6])}{', ...' if len(c.classes) > 6 else ''}",
        "ignore": "nothing: it is left out",
    }
    return words[c.kind]
