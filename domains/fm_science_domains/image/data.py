"""Images as training data: the shipped digits, a folder of pictures, or arrays in a file.

An image becomes the state ``(1, C, H, W)``, one site, of values in [-1, 1]. Stored images have integer grey levels, and
a density on a lattice is not defined: training and likelihoods add noise of one level's width (uniform
dequantisation; Theis, van den Oord & Bethge 2016).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError
from fm_science.files import Dropped

from .files import listed, load
from .formats import BACKGROUNDS
from .stack import Stack, together
from .stored import ImagePreparation, stacks

log = logging.getLogger(__name__)
Item = tuple[Tensor, dict[str, Tensor]]
DIGITS = Path(__file__).with_name("digits.npz")


@dataclass(frozen=True)
class Data:
    """Which images to learn from, and how many at a time."""

    source: str = option(
        "digits", "digits (8x8, shipped), or a folder or file: pictures, .npz, CIFAR-10 .bin, or a prepared file"
    )
    held_out: str | None = option(None, "file or folder of the held-out images; none: a share of the source")
    share: float = option(0.2, "held-out share of the source if data.held_out is none", low=0, high=0.9)
    size: int | None = option(None, "crop and scale to this many pixels per side; none: unchanged", "pixels", low=2)
    background: str = option("white", "colour of transparent pixels", choices=tuple(BACKGROUNDS))
    white: int | None = option(
        None, "the level that is white in pictures of 16 bits; none: the end of the smallest depth for all",
        low=1, high=65535,
    )  # fmt: skip
    labels: bool = option(True, "learn the classes, if the source has them")
    flip: bool = option(False, "mirror half of the images left to right in training")
    dither: bool = option(True, "add uniform noise within each grey level, as a likelihood needs")
    limit: int = option(0, "train on at most this many images; 0: all", low=0)
    batch: int = option(128, "images per batch", low=1)
    workers: int = option(0, "processes that prepare batches, pairing included", low=0)


class Images(Dataset):
    """Images as items ``(1, C, H, W)``, with the condition ``label`` if they have one. sizes: ``(len,)`` ones."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.sizes = torch.ones(len(stack), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, index: int) -> Item:
        labels = self.stack.labels
        return self.stack.pixels(slice(index, index + 1)), {} if labels is None else {"label": labels[index]}


@dataclass(frozen=True)
class Sets:
    """The data of a source.

    Attributes:
        train, held_out: the images.
        classes: the number of classes; 0: none are learned.
        guide: labels of the training images that features may be learned from, ``(n,)``, or ``None``.
    """

    train: Stack
    held_out: Stack
    classes: int
    guide: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train.levels.shape[1:]
        return channels, height, width

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Files that were left out."""
        return tuple(dict.fromkeys((*self.train.dropped, *self.held_out.dropped)))

    @property
    def bin(self) -> float:
        """The width of one grey level."""
        return 2 / self.train.top

    @cached_property
    def spread(self) -> float:
        """Standard deviation of a value over some training images."""
        return float(self.train.pixels(slice(10_000)).std())


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs to know about the training images.

    Attributes:
        shape: channels, height and width.
        top: the grey level that is white.
        names: of the learned classes.
        counts: ``(classes,)`` the number of training images of each.
        white: the level that was white in pictures of more than 8 bits; ``None`` if all had 8.
    """

    shape: tuple[int, int, int]
    top: int
    names: tuple[str, ...]
    counts: Tensor
    white: int | None = None

    @staticmethod
    def of(found: Sets) -> Summary:
        """From the training images of some sets."""
        labels = torch.zeros(0, dtype=torch.long) if found.train.labels is None else found.train.labels
        counts = torch.bincount(labels, minlength=found.classes)
        return Summary(found.shape, found.train.top, found.train.classes, counts, found.train.white)

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """From the statistics of a run: a mapping of the attributes."""
        channels, height, width = kept["shape"]
        return Summary((channels, height, width), kept["top"], tuple(kept["names"]), kept["counts"], kept.get("white"))

    @property
    def classes(self) -> int:
        """The number of classes; 0: none are learned."""
        return len(self.names)

    @property
    def bin(self) -> float:
        """The width of one grey level."""
        return 2 / self.top

    def draw(self, n: int) -> Tensor:
        """The classes ``(n,)`` of random training images."""
        return torch.searchsorted(self.counts.cumsum(0), torch.randint(int(self.counts.sum()), (n,)), right=True)

    def check(self, found: Sets) -> None:
        """Raise UserError if images have another shape, depth or classes than the training images."""
        other = Summary.of(found)
        have, wanted = ((s.shape, s.top + 1, s.names) for s in (other, self))
        if have != wanted:
            raise UserError(f"these images have (shape, grey levels, classes) {have}; what was trained has {wanted}")


def digits() -> Stack:
    """The 1,797 digits of the package; see ``digits.md`` for their origin and licence (CC BY 4.0)."""
    with np.load(DIGITS, allow_pickle=False) as stored:
        x, y = torch.from_numpy(stored["x"])[:, None], torch.from_numpy(stored["y"]).long()
    names = tuple(f"digit_{i:04d}" for i in range(len(x)))
    return Stack(x, y, 16, names, tuple("0123456789"))


def sets(o: Data) -> Sets:
    """The training and held-out images. Raises UserError if there are none, both have different shapes, or a class
    of held-out images is not trained."""
    train, held_out = _split(o)
    if train.levels.shape[1:] != held_out.levels.shape[1:]:
        raise UserError(
            f"training images are {tuple(train.levels.shape[1:])} and held-out ones {tuple(held_out.levels.shape[1:])} "
            "(channels, height, width); give data.size, or images of one kind"
        )
    if o.limit and len(train) > o.limit:
        train = train.take(_order(len(train))[: o.limit])
    guide = train.labels
    if o.labels and train.labels is not None and held_out.labels is None:
        log.warning("the images of %s have no classes: none are learned", o.held_out)
    if not o.labels or train.labels is None or held_out.labels is None:
        train, held_out = replace(train, labels=None, classes=()), replace(held_out, labels=None, classes=())
    return Sets(train, held_out, len(train.classes), guide)


def _split(o: Data) -> tuple[Stack, Stack]:
    if o.held_out is not None:
        apart = Path(o.held_out)
        files = [f.resolve() for f in listed(apart)]
        source = digits() if o.source == "digits" else _load(o, o.source, o.white, None, files)
        return source, _load(o, apart, o.white or source.white, source.classes if o.labels else ())
    if o.source == "digits":
        if o.size not in (None, 8):
            raise UserError(f"data.size={o.size}: the shipped digits have 8x8 pixels")
        whole = digits()
    else:
        whole = _load(o, o.source, o.white)
    order = _order(len(whole))
    some = max(1, round(o.share * len(whole)))
    if some >= len(whole):
        log.warning("%s holds too few images to hold out any: all are trained and held out", o.source)
        return whole, whole
    return whole.take(order[some:].sort().values), whole.take(order[:some].sort().values)


def _load(
    o: Data, place: str | Path, white: int | None, classes: Sequence[str] | None = None, without: Sequence[Path] = ()
) -> Stack:
    """The images of a file or folder, or of a prepared file."""
    kept = ImagePreparation(vars(o)).open(place)
    if kept is None:
        return load([place], o.size, without, classes, o.background, white)
    return replace(together(stacks(kept, classes), classes), dropped=kept.dropped, digest=kept.digest)


def _order(n: int) -> Tensor:
    """A fixed random order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))
