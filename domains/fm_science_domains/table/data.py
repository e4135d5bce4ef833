"""Rows as training data, and what is fitted to them.

A table is read, its columns are typed and fitted to the training rows, and a tenth of the rows is held out. What was
fitted, :class:`Summary`, is all that drawing new rows takes: a run needs its table no more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.data import Item
from fm_science.domain import option
from fm_science.errors import UserError, nearest
from fm_science.memory import reserve

from .alignment import aligned, joined, values
from .columns import Column
from .encoding import NUMBERS, Encoding
from .files import Frame, Numbers, Series, read
from .fitting import described, fit, parse
from .laws import LAWS, drawn

log = logging.getLogger(__name__)
QUANTILES = 101  # values of a continuous condition that are kept, to draw it from
SMALL = 5_000  # rows up to which they are blurred


@dataclass(frozen=True)
class Data:
    """Which rows to learn from, and how many at a time."""

    source: str = option(
        "moons", f"{', '.join(LAWS)}, or a file: .csv, .tsv, .txt (also .gz), .parquet, .npy, .npz"
    )  # fmt: skip
    columns: str = option(
        "", "kinds of columns where the guess is wrong, such as phase:angle,kind:class: real, integer, positive, "
        "bounded or bounded=0..1, angle (degrees), radians, period=24, class, ignore",
    )  # fmt: skip
    header: str = option("auto", "whether the first line names the columns", choices=("auto", "yes", "no"))
    condition: str | None = option(None, "column that samples are drawn for instead of being drawn itself")
    held_out: str | None = option(None, "file of held-out rows; none: a share of the rows")
    share: float = option(0.1, "share of the rows that is held out", low=0.001, high=0.9)
    train: int = option(20_000, "training rows drawn from a law that is made here", low=2)
    test: int = option(5_000, "held-out rows drawn from a law that is made here", low=2)
    blur: float | None = option(
        None, "Gaussian noise on training rows, in spreads; none: chosen by the rows, 0 beyond 5,000", low=0, high=1
    )  # fmt: skip
    batch: int = option(256, "rows a batch", low=1)
    workers: int = option(0, "processes that load rows", low=0)


class Rows(Dataset):
    """Rows as items: an unbatched state with ``observed`` ``(L,)``, and the condition ``label`` where there is one.

    Attributes:
        values: ``(n, C)`` in the user's units, numbers of classes for class columns; NaN where missing.
        sizes: ``(n,)`` sites of each row.
    """

    def __init__(self, values: Numbers, encoding: Encoding) -> None:
        self.values, self.encoding = values, encoding
        state, self.observed = encoding.encode(values)
        self.state = {name: x.float() for name, x in state.items()}
        self.label = encoding.condition_codes(values) if encoding.condition_index is not None else None
        self.sizes = torch.full((len(values),), encoding.sites, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Item:
        cond = {"observed": self.observed[index]}
        if self.label is not None:
            cond["label"] = self.label[index]
        return {name: x[index] for name, x in self.state.items()}, cond

    @cached_property
    def complete(self) -> Numbers:
        """The rows ``(m, C)`` without a missing cell."""
        some = [k for k, c in enumerate(self.encoding.columns) if c.learned]
        return self.values[~np.isnan(self.values[:, some]).any(1)]


@dataclass(frozen=True)
class Summary:
    """What is fitted to the training rows; plain numbers and words.

    Attributes:
        encoding: the columns.
        header: whether the table had a header.
        rows: number of training rows.
        blur: noise on training rows, in spreads.
        quantiles: of a continuous condition, evenly spaced, in the user's units.
    """

    encoding: Encoding
    header: bool
    rows: int
    blur: float
    quantiles: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values that a run keeps."""
        return {
            "columns": [c.as_dict() for c in self.encoding.columns], "condition": self.encoding.condition,
            "header": self.header, "rows": self.rows, "blur": self.blur, "quantiles": list(self.quantiles),
        }  # fmt: skip

    @staticmethod
    def from_dict(kept: Mapping[str, Any]) -> Summary:
        """The inverse of :meth:`as_dict`."""
        return Summary(Encoding.of(kept), kept["header"], kept["rows"], kept["blur"], tuple(kept["quantiles"]))

    @property
    def condition(self) -> Column | None:
        """The column that is the condition."""
        index = self.encoding.condition_index
        return None if index is None else self.encoding.columns[index]


@dataclass(frozen=True, eq=False)
class Sets:
    """What a source gives.

    Attributes:
        train, held_out: the rows.
        summary: what was fitted to the training rows.
        shown: the columns as text, which is shown before training.
    """

    train: Rows
    held_out: Rows
    summary: Summary
    shown: str


@dataclass(frozen=True, eq=False)
class Source:
    """A table that was read, and which of its rows are learned and held out.

    Attributes:
        frame: the table, held-out rows included.
        train, held_out: numbers of rows.
    """

    frame: Frame
    train: np.ndarray
    held_out: np.ndarray

    @staticmethod
    def open(o: Data, frame: Frame | None = None) -> Source:
        """The table that the options name, or ``frame``.

        Raises:
            UserError: where it cannot be read, or has one row only.
        """
        if frame is None and o.source in LAWS:
            reserve(o.train + o.test, 200, f"data.train={o.train} with data.test={o.test} rows")  # columns as text too
            frame = drawn(o.source, o.train + o.test, seed=0)
            return Source(frame, np.arange(o.test, o.train + o.test), np.arange(o.test))
        frame = _read(o) if frame is None else frame
        if o.held_out is not None:
            whole = joined(frame, read(o.held_out, o.header))
            return Source(whole, np.arange(len(frame)), np.arange(len(frame), len(whole)))
        if len(frame) < 2:
            raise UserError(f"{frame.source} holds one row; a distribution is learned from many")
        order = np.random.default_rng(0).permutation(len(frame))
        some = max(1, round(o.share * len(frame)))
        return Source(frame, np.sort(order[some:]), np.sort(order[:some]))

    def summary(self, o: Data) -> Summary:
        """What is fitted to the training rows.

        Raises:
            UserError: where a column cannot be what it is said to be, or there is nothing to learn.
        """
        columns = fit(self.frame, self.train, parse(o.columns, self.frame.names))
        _check_condition(o.condition, columns)
        encoding = Encoding(columns, o.condition)
        if not encoding.learned:
            raise UserError(f"{self.frame.source}: there is no column to learn beside the condition {o.condition!r}")
        train = values(self.frame, encoding)[self.train]
        quantiles: tuple[float, ...] = ()
        if encoding.condition_index is not None and columns[encoding.condition_index].kind != "class":
            seen = train[:, encoding.condition_index]
            quantiles = tuple(np.quantile(seen[~np.isnan(seen)], np.linspace(0, 1, QUANTILES)).tolist())
        blur = o.blur if o.blur is not None else bandwidth(Rows(train, encoding))
        return Summary(encoding, self.frame.header, len(train), float(blur), quantiles)

    def sets(self, summary: Summary) -> Sets:
        """The rows in the coordinates of a run. Raises UserError where the table has other columns."""
        encoding = summary.encoding
        frame = aligned(self.frame, [c.name for c in encoding.columns], summary.header)
        found = values(frame, encoding)
        missing = [sum(v is None for v in s.labels) for s in frame.series]
        head = f"{frame.source}: {len(self.train)} rows to learn from, {len(self.held_out)} held out"
        shown = f"{head}\n{described(encoding.columns, missing)}"
        return Sets(Rows(found[self.train], encoding), Rows(found[self.held_out], encoding), summary, shown)


def _read(o: Data) -> Frame:
    """The file of the options. Raises UserError with the nearest name where there is none."""
    if "." not in o.source and "/" not in o.source:
        known = nearest(o.source, LAWS)
        raise UserError(f"data.source={o.source}: no such distribution, and no file with a suffix; {known}")
    return read(o.source, o.header)


def _check_condition(name: str | None, columns: Sequence[Column]) -> None:
    names = [c.name for c in columns]
    if name is None:
        return
    if name not in names:
        raise UserError(f"data.condition={name}: the table has no such column; {nearest(name, names)}")
    if not columns[names.index(name)].learned:
        raise UserError(f"data.condition={name}: that column is constant or ignored, and cannot be a condition")


def bandwidth(rows: Rows) -> float:
    """Half of the bandwidth, in spreads, under which a Gaussian kernel density of the training rows best predicts each
    from the others (Duin 1976); 0 for more rows than 5,000 and for rows without numbers. So much noise keeps a network
    from learning few rows by heart, and hides little of their law."""
    if NUMBERS not in rows.state or len(rows) > SMALL or len(rows) < 4:
        return 0.0
    z = rows.state[NUMBERS][..., 0].double()
    z = z[rows.observed[:, : z.shape[1]].all(1)][:2000]
    if len(z) < 4:
        return 0.0
    square = torch.cdist(z, z).square().fill_diagonal_(torch.inf)
    grid = torch.logspace(-1.7, 0, 30, dtype=torch.float64)
    fit = torch.stack([(-square / (2 * h * h)).logsumexp(1).mean() - z.shape[1] * h.log() for h in grid])
    return 0.5 * float(grid[fit.argmax()])


def label_codes(summary: Summary, n: int, label: str | None, balanced: bool) -> Tensor:
    """Conditions of ``n`` new rows as the network reads them: the one that is asked for, each class equally often, or
    as they are distributed in training.

    Raises:
        UserError: for a class that there is not, or words where a number is expected.
    """
    column = summary.condition
    assert column is not None
    if label is not None:
        series = Series(column.name, None, (str(label),))
        if column.kind != "class":
            series = Series(column.name, np.array([_number(label, column.name)]), None)
        v = column.numbers(series, f"sample.label={label}")
        row = np.full((1, len(summary.encoding.columns)), np.nan)
        row[0, summary.encoding.condition_index] = v[0]
        return summary.encoding.condition_codes(row).expand(n).clone()
    if column.kind == "class":
        shares = torch.ones(len(column.classes)) if balanced else torch.tensor(column.shares)
        return torch.multinomial(shares, n, replacement=True)
    place = torch.rand(n).double().numpy()
    drawn_ = np.interp(place, np.linspace(0, 1, len(summary.quantiles)), summary.quantiles)
    return torch.from_numpy(column.coordinate(drawn_)).float()


def _number(text: Any, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"sample.label={text}: expected a number, since {name!r} holds numbers") from None
