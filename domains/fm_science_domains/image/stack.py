"""Many images of one shape with their classes, in memory or in a prepared file.

Classes have names: those of their folders, or the values of an array's labels. Labels number the names in order, once
over all files; images that are compared with training images use the numbers of those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError, nearest
from fm_science.files import Dropped
from fm_science.prepared import Prepared, Texts

from .picture import Image


class StoredLevels:
    """Grey levels ``(n, C, H, W)`` uint8 in a prepared file, read when they are asked for.

    Args:
        prepared: the file.
        chosen: ``(n,)`` int64, the numbers of its records.
        event: C, H and W; an image of one channel is repeated in each of C.
    """

    def __init__(self, prepared: Prepared, chosen: np.ndarray, event: tuple[int, int, int]) -> None:
        self.prepared, self.chosen, self.event = prepared, chosen, event

    @property
    def shape(self) -> torch.Size:
        """n, C, H and W."""
        return torch.Size((len(self.chosen), *self.event))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        numbers = self.chosen[index if isinstance(index, slice) else index.numpy()].tolist()
        found = torch.empty(len(numbers), *self.event, dtype=torch.uint8)
        for row, i in zip(found, numbers, strict=True):
            row[:] = torch.from_numpy(self.prepared.get("levels", i)).reshape(-1, *self.event[1:])
        return found

    def take(self, index: Tensor) -> StoredLevels:
        """The images ``index``."""
        return StoredLevels(self.prepared, self.chosen[index.numpy()], self.event)


@dataclass(frozen=True)
class Stack:
    """Many images of one shape, as stored.

    Attributes:
        levels: ``(n, C, H, W)`` uint8, grey levels from 0 to ``top``; in memory, or in a prepared file.
        labels: ``(n,)`` int64, or ``None``.
        top: the level that is white.
        names: of the images.
        classes: names of the classes, in the order of the labels; none without labels.
        white: the level of deeper pictures that was taken to be white; ``None`` if all had 8 bits.
        dropped: files that were left out.
        digest: of a prepared file that they come from.
    """

    levels: Tensor | StoredLevels
    labels: Tensor | None = None
    top: int = 255
    names: Sequence[str] = ()
    classes: tuple[str, ...] = ()
    white: int | None = None
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, index: Tensor) -> Stack:
        """The images ``index``."""
        labels = None if self.labels is None else self.labels[index]
        levels = self.levels.take(index) if isinstance(self.levels, StoredLevels) else self.levels[index]
        return replace(self, levels=levels, labels=labels, names=_taken(self.names, index))

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Values in [-1, 1] of the images ``index``, ``(n, C, H, W)`` float."""
        return self.levels[index].float() * (2 / self.top) - 1

    def images(self, count: int | None = None) -> list[Image]:
        """The first ``count`` images as decoded objects."""
        x = self.pixels(slice(count))
        labels = [None] * len(x) if self.labels is None else self.labels[: len(x)].tolist()
        names = self.names[: len(x)] or tuple(f"image_{i:06d}" for i in range(len(x)))
        return [Image(pixels, label, name) for pixels, label, name in zip(x, labels, names, strict=False)]


def together(stacks: Sequence[Stack], classes: Sequence[str] | None) -> Stack:
    """Stacks as one. Raises UserError where shapes differ, or a class is not in ``classes``."""
    stack = joined(stacks)
    return stack if classes is None else counted(stack, classes)


def joined(stacks: Sequence[Stack]) -> Stack:
    """One stack, whose labels number the classes of all; without labels if some have none."""
    if len(stacks) == 1:
        return stacks[0]
    shapes = {tuple(s.levels.shape[1:]) for s in stacks}
    if len(shapes) > 1 or len({s.top for s in stacks}) > 1:
        raise UserError(f"the files hold images of shapes {sorted(shapes)}; give data.size to scale them to one")
    classes: tuple[str, ...] = ()
    if all(s.labels is not None for s in stacks):
        words = {name for s in stacks for name in s.classes}
        whole = all(re.fullmatch(r"-?\d+", word) for word in words)
        classes = tuple(sorted(words, key=int if whole else str))
    labels = [counted(s, classes).labels for s in stacks]
    together = torch.cat([v for v in labels if v is not None]) if classes else None
    levels, names = _levels([s.levels for s in stacks]), _names([s.names for s in stacks])
    return Stack(levels, together, stacks[0].top, names, classes, stacks[-1].white)


def _levels(parts: Sequence[Tensor | StoredLevels]) -> Tensor | StoredLevels:
    """All levels, one part after the other."""
    stored = [part for part in parts if isinstance(part, StoredLevels)]
    if stored:
        return StoredLevels(stored[0].prepared, np.concatenate([part.chosen for part in stored]), stored[0].event)
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def _names(parts: Sequence[Sequence[str]]) -> Sequence[str]:
    """All names, one part after the other."""
    stored = [part for part in parts if isinstance(part, Texts)]
    if stored:
        return Texts(stored[0].prepared, stored[0].name, np.concatenate([part.chosen for part in stored]))
    return tuple(name for part in parts for name in part)


def _taken(names: Sequence[str], index: Tensor) -> Sequence[str]:
    if isinstance(names, Texts):
        return Texts(names.prepared, names.name, names.chosen[index.numpy()])
    return tuple(names[i] for i in index.tolist()) if names else ()


def counted(stack: Stack, classes: Sequence[str]) -> Stack:
    """The stack with labels that number ``classes``; none if there are no classes. Raises UserError for a class that
    is not among them."""
    if stack.labels is None or not classes:
        return replace(stack, labels=None, classes=())
    for name in stack.classes:
        if name not in classes:
            raise UserError(
                f"images of class {name!r}, which no training image has ({nearest(name, classes)}): rename it, or say "
                "data.labels=false"
            )
    number = torch.tensor([classes.index(name) for name in stack.classes])
    return replace(stack, labels=number[stack.labels], classes=tuple(classes))


def classes_of(
    folders: Sequence[str], lying: Tensor, inside: Tensor, classes: Sequence[str] | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The numbers of the classes of pictures, and the names of these classes: the numbers that are kept inside, where
    all have one; else the folders, where there are several or the one is among ``classes``.

    Args:
        folders: names of folders, no two alike.
        lying: ``(n,)`` int64, the folder of each picture.
        inside: ``(m,)`` int64, the numbers that are kept inside of those pictures that have one.
        classes: those of the training images, if there are some.
    """
    if len(inside) == len(lying):
        most = int(inside.max())
        found = tuple(classes or map(str, range(most + 1)))
        if most >= len(found):
            raise UserError(f"a picture of class number {most}, but the training images have {len(found)} classes")
        return inside, found
    if len(folders) > 1 or folders[0] in (classes or ()):
        ordered = tuple(sorted(folders))
        return torch.tensor([ordered.index(name) for name in folders])[lying], ordered
    return None, ()


def one_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, int, int]:
    """The common C, H and W of pictures with these; one channel goes with several. Raises UserError where there is
    none."""
    places = sorted({shape[1:] for shape in shapes})
    if len(places) > 1:
        raise UserError(f"the pictures have {len(places)} sizes, such as {places[:3]}; give data.size")
    height, width = places[0]
    return max(shape[0] for shape in shapes), height, width
