"""Images in files: folders of PNG, JPEG or TIFF pictures, .npz and .npy arrays, and CIFAR's binary batches.

An image is a tensor (channels, height, width) of values in [-1, 1], black to white. A folder may have one folder for
each class, named after it. Everything is first converted to integer grey levels, 8 bits unless the file says otherwise,
so that densities of pixels have a unit; if pictures have more bits, one level is white for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fm_science.errors import UserError
from fm_science.files import Dropped, read_each
from fm_science.samples import RECORD, files_in

from . import formats
from .formats import Page
from .picture import Image, pillow, rounded
from .stack import Stack, classes_of, one_shape, together

SHEET = "sheet.png"  #: the contact sheet that is written next to samples
MARK = "contact sheet of fm-science"  #: and its title inside


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
    given = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    dropped: list[Dropped] = []
    known = images_in(given, without)
    found = read_each(known, lambda file: [(file, one) for one in read_file(file, size, background, white)], given,
                      dropped)  # fmt: skip
    pages = [(f, page) for f, page in found if isinstance(page, Page)]
    stacks = [stack for _, stack in found if isinstance(stack, Stack)]
    stacks += [_pictures(pages, size, white, classes)] if pages else []
    return replace(together(stacks, classes), dropped=tuple(dropped))


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
    pages: Sequence[tuple[Path, Page]], size: int | None, white: int | None, classes: Sequence[str] | None
) -> Stack:
    """Pictures as a stack in levels of 8 bits."""
    deep = [page.values for _, page in pages if page.values.dtype != np.uint8]
    level = formats.white_level(deep, white, f"{len(deep)} pictures of more than 8 bits") if deep else None
    pixels = [formats.scaled(_levels(page.values, level), size) for _, page in pages]
    event = one_shape([tuple(p.shape) for p in pixels])
    folders = {name: k for k, name in enumerate(dict.fromkeys(file.parent.name for file, _ in pages))}
    lying = torch.tensor([folders[file.parent.name] for file, _ in pages])
    inside = torch.tensor([page.label for _, page in pages if page.label is not None], dtype=torch.long)
    labels, found = classes_of([*folders], lying, inside, classes)
    names = tuple(page.name for _, page in pages)
    return Stack(torch.stack([p.expand(event) for p in pixels]), labels, 255, names, found, level)


def _levels(values: np.ndarray, white: int | None) -> np.ndarray:
    return values if white is None or values.dtype == np.uint8 else formats.eight_bits(values, white)


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
