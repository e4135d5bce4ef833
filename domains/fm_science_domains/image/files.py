"""Images in files: folders of PNG, JPEG or TIFF pictures, .npz and .npy arrays, and CIFAR's binary batches.

An image is a tensor (channels, height, width) of values in [-1, 1], black to white. A folder may have one folder for
each class, named after it. Everything is first converted to integer grey levels, 8 bits unless the file says otherwise,
so that densities of pixels have a unit; if pictures have more bits, one level is white for all of them.

Classes have names: those of their folders, or the values of an array's labels. Labels number the names in order, once
over all files; images that are compared with training images use the numbers of those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError, nearest
from fm_science.files import Dropped, read_each
from fm_science.samples import RECORD, files_in

from . import formats
from .formats import Page

SHEET = "sheet.png"  #: the contact sheet that is written next to samples
MARK = "contact sheet of fm-science"  #: and its title inside


@dataclass(frozen=True)
class Image:
    """A decoded image.

    Attributes:
        pixels: ``(C, H, W)`` float, -1 is black and 1 is white.
        label: number of its class, if one is known or was requested.
        name: for display.
    """

    pixels: Tensor
    label: int | None = None
    name: str = ""

    def __repr__(self) -> str:
        kind = "" if self.label is None else f", class {self.label}"
        return f"Image({self.name!r}, {'x'.join(map(str, self.pixels.shape))}{kind})"

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        picture = pillow(self.pixels)
        factor = max(1, 128 // max(picture.size))
        picture.resize((picture.width * factor, picture.height * factor), 0).save(buffer, "png")
        return buffer.getvalue()


@dataclass(frozen=True)
class Stack:
    """Many images of one shape, as stored.

    Attributes:
        levels: ``(n, C, H, W)`` uint8, grey levels from 0 to ``top``.
        labels: ``(n,)`` int64, or ``None``.
        top: the level that is white.
        names: of the images.
        classes: names of the classes, in the order of the labels; none without labels.
        white: the level of deeper pictures that was taken to be white; ``None`` if all had 8 bits.
        dropped: files that were left out.
        digest: of a prepared file that they come from.
    """

    levels: Tensor
    labels: Tensor | None = None
    top: int = 255
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    white: int | None = None
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""

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


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a file. levels: ``(C, H, W)`` uint8; folder: the name of the one it lies in; label: the number of
    its class, where one is kept inside; name: for people."""

    levels: Tensor
    folder: str
    label: int | None
    name: str


def read(
    paths: Sequence[str | Path], top: int = 255, size: int | None = None, classes: Sequence[str] | None = None,
    background: str = "white", white: int | None = None,
) -> list[Image]:  # fmt: skip
    """Images from files and folders, one per picture; grey levels are rounded to ``top`` + 1 of them. Labels number
    ``classes``, and transparency and deep pictures are treated, as in :func:`load`.

    Raises:
        UserError: if there is no image, a file cannot be read as one, or a class is unknown.
    """
    stack = load(paths, size, classes=classes, background=background, white=white)
    images = stack.images()
    if top == stack.top:
        return images
    return [replace(image, pixels=rounded(image.pixels, top)) for image in images]


def rounded(x: Tensor, top: int) -> Tensor:
    """Values clamped to [-1, 1] and rounded to the nearest of ``top`` + 1 grey levels."""
    return ((x.clamp(-1, 1) + 1) * (top / 2)).round() * (2 / top) - 1


def load(
    paths: Sequence[str | Path], size: int | None = None, without: Sequence[Path] = (),
    classes: Sequence[str] | None = None, background: str = "white", white: int | None = None,
) -> Stack:  # fmt: skip
    """All images of files and folders as one stack. Files of folders that cannot be read are left out and listed in it.

    Args:
        paths: files and folders, as :func:`listed` reads them.
        size: crop and scale to ``size`` x ``size``; ``None``: unchanged.
        without: files that are left out.
        classes: names of the classes that labels number, such as those of training; none: labels are left out;
            ``None``: the classes that the files have.
        background: ``white`` or ``black``, the colour of transparent pixels.
        white: the level that is white in pictures of more than 8 bits; ``None``: found over all of them.

    Raises:
        UserError: if there is no image, shapes differ, a file that is named itself cannot be read, or a class is not
            in ``classes``.
    """
    asked = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    dropped: list[Dropped] = []
    known = images_in(asked, without)
    found = read_each(known, lambda file: [(file, one) for one in read_file(file, size, background, white)], asked,
                      dropped)  # fmt: skip
    pages = [(f, page) for f, page in found if isinstance(page, Page)]
    stacks = [stack for _, stack in found if isinstance(stack, Stack)]
    return replace(together(stacks, *_pictures(pages, size, white), classes), dropped=tuple(dropped))


def together(
    stacks: Sequence[Stack], pictures: Sequence[Picture], level: int | None, classes: Sequence[str] | None
) -> Stack:
    """Arrays and pictures of files as one stack, as :func:`load` gives it; ``level``: the one that is white in deep
    pictures. Raises UserError where shapes differ, or a class is not in ``classes``."""
    stack = _joined([*stacks, *([_stacked(pictures, level, classes)] if pictures else [])])
    return stack if classes is None else _counted(stack, classes)


def images_in(paths: Sequence[Path], without: Sequence[Path] = ()) -> list[Path]:
    """The files of images that the paths name. Raises UserError where there are none."""
    files = [f for path in paths for f in listed(path) if f.resolve() not in without]
    known = [f for f in files if f.suffix.lower() in (*formats.READERS, *formats.PICTURES)]
    if not known:
        raise UserError(
            f"no images in {', '.join(map(str, paths))}: expected .png, .jpg, .tif, ..., .npz, .npy or CIFAR-10 .bin "
            "files"
        )
    return known


def listed(path: Path) -> list[Path]:
    """The files that :func:`~fm_science.samples.files_in` finds in a folder; a file gives itself. Contact sheets next
    to samples are left out. Raises UserError if nothing has that name."""
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}")
    if not path.is_dir():
        return [] if _sheet(path) else [path]
    return [f for f in files_in(path) if not _sheet(f)]


def _sheet(file: Path) -> bool:
    """Whether this is a contact sheet that was written next to samples."""
    if file.name != SHEET:
        return False
    return (file.parent / RECORD).is_file() or MARK.encode() in file.read_bytes()[:200]


def _joined(stacks: Sequence[Stack]) -> Stack:
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
    labels = [_counted(s, classes).labels for s in stacks]
    together = torch.cat([v for v in labels if v is not None]) if classes else None
    names = tuple(name for s in stacks for name in s.names)
    return Stack(torch.cat([s.levels for s in stacks]), together, stacks[0].top, names, classes, stacks[-1].white)


def _counted(stack: Stack, classes: Sequence[str]) -> Stack:
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


def read_file(file: Path, size: int | None, background: str, white: int | None) -> list[Page | Stack]:
    """The pictures of a file as they are stored, or an array file as a stack. Raises UserError where it holds none."""
    if file.suffix.lower() in formats.READERS:
        return [_array(file, size, white)]
    return [*formats.pictures(file, background)]


def _array(file: Path, size: int | None, white: int | None) -> Stack:
    """An array file as a stack; its classes are the values of its labels, in order."""
    levels, values, top = formats.array(file, size, white)
    names = tuple(f"{file.stem}_{i:06d}" for i in range(len(levels)))
    if values is None:
        return Stack(levels, None, top, names)
    known, labels = values.unique(return_inverse=True)
    return Stack(levels, labels, top, names, tuple(map(str, known.tolist())))


def _pictures(
    pages: Sequence[tuple[Path, Page]], size: int | None, white: int | None
) -> tuple[list[Picture], int | None]:
    """Pictures in levels of 8 bits, and the level that is white in deeper ones, where there are any."""
    deep = [page.values for _, page in pages if page.values.dtype != np.uint8]
    level = formats.white_level(deep, white, f"{len(deep)} pictures of more than 8 bits") if deep else None
    return [
        Picture(formats.scaled(_levels(page.values, level), size), file.parent.name, page.label, page.name)
        for file, page in pages
    ], level


def _stacked(pictures: Sequence[Picture], level: int | None, classes: Sequence[str] | None) -> Stack:
    """Pictures as a stack. Their classes are the numbers that are kept inside, where all have one; else the folders in
    which they lie, where there are several or the one is among ``classes``."""
    pixels = tuple(picture.levels for picture in pictures)
    channels = max(p.shape[0] for p in pixels)
    pixels = tuple(p if p.shape[0] == channels else p.expand(channels, -1, -1) for p in pixels)
    shapes = {tuple(p.shape[1:]) for p in pixels}
    if len(shapes) > 1:
        raise UserError(f"the pictures have {len(shapes)} sizes, such as {sorted(shapes)[:3]}; give data.size")
    labels, found = _labels([p.folder for p in pictures], [p.label for p in pictures], classes)
    return Stack(torch.stack(pixels), labels, 255, tuple(p.name for p in pictures), found, level)


def _levels(values: np.ndarray, white: int | None) -> np.ndarray:
    return values if white is None or values.dtype == np.uint8 else formats.eight_bits(values, white)


def _labels(
    places: Sequence[str], kept: Sequence[int | None], classes: Sequence[str] | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    """The numbers of classes of pictures in the folders ``places``, and the names of these classes."""
    folders = tuple(sorted({*places}))
    inside = [number for number in kept if number is not None]
    if len(inside) == len(kept):
        found = tuple(classes or map(str, range(max(inside) + 1)))
        if max(inside) >= len(found):
            raise UserError(
                f"a picture of class number {max(inside)}, but the training images have {len(found)} classes"
            )
        return torch.tensor(inside), found
    if len(folders) > 1 or folders[0] in (classes or ()):
        return torch.tensor([folders.index(place) for place in places]), folders
    return None, ()


def write(samples: Sequence[Image], folder: str | Path, first: int = 0) -> list[Path]:
    """One PNG per image, ``image_NUMBER.png`` from ``first`` on; the requested class is stored inside."""
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
