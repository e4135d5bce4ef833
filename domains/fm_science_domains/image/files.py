"""Images in files: folders of PNG or JPEG pictures, .npz arrays, and CIFAR's binary batches.

An image is a tensor (channels, height, width) of values in [-1, 1], black to white. A folder may hold one folder for
each class, named after it. Whatever is read becomes whole grey levels first, 8 bits unless the file says otherwise, so
that densities of pixels have a unit.

Classes have names: those of their folders, or the values of an array's labels. Numbers count the names in order, once
over all files; what is compared with training images counts theirs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.errors import UserError, nearest
from fm_science.samples import RECORD, files_in

from . import formats

SHEET = "sheet.png"  #: the contact sheet that is written beside samples
MARK = "contact sheet of fm-science"  #: and its title inside


@dataclass(frozen=True)
class Image:
    """A decoded image.

    Attributes:
        pixels: ``(C, H, W)`` float, -1 is black and 1 is white.
        label: number of its class, where one is known or was asked for.
        name: for people.
    """

    pixels: Tensor
    label: int | None = None
    name: str = ""


@dataclass(frozen=True)
class Stack:
    """Many images of one shape as they are stored.

    Attributes:
        levels: ``(n, C, H, W)`` uint8, grey levels from 0 to ``top``.
        labels: ``(n,)`` int64, or ``None``.
        top: the level that is white.
        names: of the images.
        classes: names of the classes, in the order that labels count; none without labels.
    """

    levels: Tensor
    labels: Tensor | None = None
    top: int = 255
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.levels)

    def take(self, index: Tensor) -> Stack:
        """The images ``index``."""
        labels = None if self.labels is None else self.labels[index]
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return replace(self, levels=self.levels[index], labels=labels, names=names)

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Values in [-1, 1] of the images ``index``, ``(n, C, H, W)`` float."""
        return self.levels[index].float() * (2 / self.top) - 1

    def images(self, count: int | None = None) -> list[Image]:
        """The first ``count`` images as decoded objects."""
        x = self.pixels(slice(count))
        labels = [None] * len(x) if self.labels is None else self.labels[: len(x)].tolist()
        names = self.names or tuple(f"image_{i:06d}" for i in range(len(x)))
        return [Image(pixels, label, name) for pixels, label, name in zip(x, labels, names, strict=False)]


def read(
    paths: Sequence[str | Path], top: int = 255, size: int | None = None, classes: Sequence[str] | None = None
) -> list[Image]:
    """Images from files and folders, one a picture; grey levels are rounded to ``top`` + 1 of them. Labels count
    ``classes``, as in :func:`load`.

    Raises:
        UserError: where there is no image, a file cannot be read as one, or a class is unknown.
    """
    stack = load(paths, size, classes=classes)
    images = stack.images()
    if top == stack.top:
        return images
    return [replace(image, pixels=rounded(image.pixels, top)) for image in images]


def rounded(x: Tensor, top: int) -> Tensor:
    """Values clamped to [-1, 1] and rounded to the nearest of ``top`` + 1 grey levels."""
    return ((x.clamp(-1, 1) + 1) * (top / 2)).round() * (2 / top) - 1


def load(
    paths: Sequence[str | Path], size: int | None = None, without: Sequence[Path] = (),
    classes: Sequence[str] | None = None,
) -> Stack:  # fmt: skip
    """All images of files and folders as one stack.

    Args:
        paths: files and folders, as :func:`listed` reads them.
        size: cut and scale to ``size`` x ``size``; ``None``: as they are.
        without: files that are left out.
        classes: names of the classes that labels count, such as those of training; none: labels are left out;
            ``None``: the classes that the files have.

    Raises:
        UserError: where there is no image, shapes differ, a file cannot be read, or a class is not in ``classes``.
    """
    files = [f for path in map(Path, paths) for f in listed(path) if f.resolve() not in without]
    arrays = [f for f in files if f.suffix.lower() in formats.READERS]
    pictures = [f for f in files if f.suffix.lower() in formats.PICTURES]
    stacks = [_array(f, size) for f in arrays] + ([_pictures(pictures, size, classes)] if pictures else [])
    if not stacks:
        raise UserError(
            f"no images in {', '.join(map(str, paths))}: expected .png, .jpg, ..., .npz or CIFAR-10 .bin files"
        )
    stack = _joined(stacks)
    return stack if classes is None else _counted(stack, classes)


def listed(path: Path) -> list[Path]:
    """The files that :func:`~fm_science.samples.files_in` finds in a folder; a file is itself. Contact sheets beside
    samples are left out. Raises UserError where nothing has that name."""
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}")
    if not path.is_dir():
        return [] if _sheet(path) else [path]
    return [f for f in files_in(path) if not _sheet(f)]


def _sheet(file: Path) -> bool:
    """Whether this is a contact sheet that was written beside samples."""
    if file.name != SHEET:
        return False
    return (file.parent / RECORD).is_file() or MARK.encode() in file.read_bytes()[:200]


def _joined(stacks: Sequence[Stack]) -> Stack:
    """One stack, whose labels count the classes of all; without labels where some have none."""
    if len(stacks) == 1:
        return stacks[0]
    shapes = {tuple(s.levels.shape[1:]) for s in stacks}
    if len(shapes) > 1 or len({s.top for s in stacks}) > 1:
        raise UserError(f"the files hold images of shapes {sorted(shapes)}; give data.size to make them alike")
    classes: tuple[str, ...] = ()
    if all(s.labels is not None for s in stacks):
        words = {name for s in stacks for name in s.classes}
        whole = all(re.fullmatch(r"-?\d+", word) for word in words)
        classes = tuple(sorted(words, key=int if whole else str))
    labels = [_counted(s, classes).labels for s in stacks]
    together = torch.cat([v for v in labels if v is not None]) if classes else None
    names = tuple(name for s in stacks for name in s.names)
    return Stack(torch.cat([s.levels for s in stacks]), together, stacks[0].top, names, classes)


def _counted(stack: Stack, classes: Sequence[str]) -> Stack:
    """The stack with labels that count ``classes``; none where there are no classes. Raises UserError for a class that
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


def _array(file: Path, size: int | None) -> Stack:
    """An array file as a stack; its classes are the values of its labels, in order."""
    levels, values, top = formats.array(file, size)
    names = tuple(f"{file.stem}_{i:06d}" for i in range(len(levels)))
    if values is None:
        return Stack(levels, None, top, names)
    known, labels = values.unique(return_inverse=True)
    return Stack(levels, labels, top, names, tuple(map(str, known.tolist())))


def _pictures(files: Sequence[Path], size: int | None, classes: Sequence[str] | None) -> Stack:
    """Pictures as a stack. Their classes are the numbers that are kept inside, where all have one; else the folders in
    which they lie, where there are several or the one is among ``classes``."""
    pixels, kept = zip(*(formats.picture(file, size) for file in files), strict=True)
    channels = max(p.shape[0] for p in pixels)
    pixels = tuple(p if p.shape[0] == channels else p.expand(channels, -1, -1) for p in pixels)
    shapes = {tuple(p.shape[1:]) for p in pixels}
    if len(shapes) > 1:
        raise UserError(f"the pictures have {len(shapes)} sizes, such as {sorted(shapes)[:3]}; give data.size")
    folders = tuple(sorted({f.parent.name for f in files}))
    labels = None
    found: tuple[str, ...] = ()
    if all(number is not None for number in kept):
        labels, found = torch.tensor(kept), tuple(classes or map(str, range(max(kept) + 1)))
        if max(kept) >= len(found):
            raise UserError(f"a picture of class number {max(kept)}, but the training images have {len(found)} classes")
    elif len(folders) > 1 or folders[0] in (classes or ()):
        labels, found = torch.tensor([folders.index(f.parent.name) for f in files]), folders
    return Stack(torch.stack(pixels), labels, 255, tuple(f.stem for f in files), found)


def write(samples: Sequence[Image], folder: str | Path, first: int = 0) -> list[Path]:
    """One PNG an image, ``image_NUMBER.png`` from ``first`` on; the class that was asked for is kept inside."""
    from PIL.PngImagePlugin import PngInfo

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, image in enumerate(samples, first):
        about = PngInfo()
        if image.label is not None:
            about.add_text("label", str(image.label))
        files.append(folder / f"image_{number:06d}.png")
        pillow(image.pixels).save(files[-1], pnginfo=about)
    return files


def pillow(pixels: Tensor) -> Any:
    """Values in [-1, 1] ``(C, H, W)`` as a picture of 8 bits."""
    from PIL import Image as Pillow

    levels = ((pixels.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Pillow.fromarray((levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)).numpy())
