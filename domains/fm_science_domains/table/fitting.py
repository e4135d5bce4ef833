"""What each column of a table is: guessed from its cells, overruled by the user, fitted to training rows, and shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fm_science.errors import UserError, nearest

from .columns import KINDS, Column, class_numbers, some_text
from .files import Frame, Numbers, Series

PERIODS = {"angle": 360.0, "radians": 2 * math.pi}
LARGEST = 1e100  #: of the numbers of a column: the squares of larger ones overflow
MOST = 200  #: classes of a column, at most
NUMBERED = {"", "index", "id", "row", "unnamed: 0", "no", "nr", "number"}  #: names of columns that count the rows


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
    or true and false, are classes, as is one word that stands everywhere; other whole numbers are integers, unless they
    count the rows. Numbers above zero are positive where their logarithm is less skewed than they are.
    """
    if series.numbers is None:
        words = {w.lower() for w in series.texts or () if w is not None}
        return "class" if len(words) < 2 or words <= {"true", "false"} else "text"
    v = series.numbers[~np.isnan(series.numbers)]
    counts = series.name.strip().lower() in NUMBERED and 2 < len(v) == len(series)
    if series.whole and counts and np.array_equal(v - v[0], np.arange(len(v))):
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
        by_name = {s.name: s for s in frame.series}
        wanted = ",".join(f"{name}:{_proposed(by_name[name])}" for name in words)
        raise UserError(
            f"{frame.source}: column {words[0]!r} holds text ({some_text(by_name[words[0]])!r}); say what it is, such "
            f"as data.columns={wanted} (class, or ignore to leave it out)"
        )
    columns = tuple(_fitted(s, wishes.get(s.name) or inferred(s), train, frame.source) for s in frame.series)
    if not any(c.learned for c in columns):
        raise UserError(f"{frame.source}: there is no column to learn: all are constant or ignored")
    return columns


def _proposed(series: Series) -> str:
    """What a column of text is likely to be: classes where words come again, else nothing to learn."""
    words = [w for w in series.labels if w is not None]
    return "class" if len(set(words)) <= min(MOST, max(2, len(words) // 2)) else "ignore"


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
        raise UserError(
            f"{source}: column {series.name!r} holds text ({some_text(series)!r}); a column of kind {kind} has numbers"
        )
    v = series.numbers[~np.isnan(series.numbers)]
    if np.abs(v).max() > LARGEST:
        raise UserError(f"{source}: column {series.name!r} holds {v[np.abs(v).argmax()]:g}; give it in other units")
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
    seen = class_numbers(column, series, source)[train]
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
    for c, m in zip(columns, missing, strict=True):
        rows.append((c.name, c.kind if c.constant is None else "constant", _meaning(c), str(m)))
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
