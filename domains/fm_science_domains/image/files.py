"""Images in files: folders of PNG or JPEG pictures, .npz arrays, and CIFAR's binary batches.

An image is a tensor (channels, height, width) of values in [-1, 1], black to white. A folder may hold one folder for
each class, named after it. Whatever is read becomes whole grey levels first, 8 bits unless the file says otherwise, so
that densities of pixels have a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SHEET, WAYS = "sheet", "ways"  #: contact sheets and pictures of ways begin so, and are never read as images
KEYS = ("x", "images", "data", "x_train", "arr_0")
LABELS = ("y", "labels", "label", "y_train")


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
        classes: names of the classes.
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


def read(paths: Sequence[str | Path], top: int = 255, size: int | None = None) -> list[Image]:
    """Images from files and folders, one a picture; grey levels are rounded to ``top`` + 1 of them.

    Raises:
        UserError: where there is no image, or a file cannot be read as one.
    """
    stack = load(paths, size)
    images = stack.images()
    if top == stack.top:
        return images
    return [replace(image, pixels=rounded(image.pixels, top)) for image in images]


def rounded(x: Tensor, top: int) -> Tensor:
    """Values clamped to [-1, 1] and rounded to the nearest of ``top`` + 1 grey levels."""
    return ((x.clamp(-1, 1) + 1) * (top / 2)).round() * (2 / top) - 1


def load(paths: Sequence[str | Path], size: int | None = None, without: Sequence[Path] = ()) -> Stack:
    """All images of files and folders as one stack, cut and scaled to ``size`` x ``size`` where that is given; files
    ``without`` are left out.

    Raises:
        UserError: where there is no image, shapes differ, or a file cannot be read.
    """
    files = [f for path in map(Path, paths) for f in listed(path) if f.resolve() not in without]
    arrays = [f for f in files if f.suffix in READERS]
    pictures = [f for f in files if f.suffix.lower() in PICTURES]
    stacks = [_array(f, size) for f in arrays] + ([_pictures(pictures, size)] if pictures else [])
    if not stacks:
        raise UserError(
            f"no images in {', '.join(map(str, paths))}: expected .png, .jpg, ..., .npz or CIFAR-10 .bin files"
        )
    return _joined(stacks)


def listed(path: Path) -> list[Path]:
    """The files of a folder and its folders, in order; a file is itself. Contact sheets and pictures of ways are passed over."""
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}")
    files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return [f for f in files if not f.stem.startswith((SHEET, WAYS))]


def _joined(stacks: Sequence[Stack]) -> Stack:
    shapes = {tuple(s.levels.shape[1:]) for s in stacks}
    if len(shapes) > 1 or len({s.top for s in stacks}) > 1:
        raise UserError(f"the files hold images of shapes {sorted(shapes)}; give data.size to make them alike")
    labels = [s.labels for s in stacks if s.labels is not None]
    names = tuple(name for s in stacks for name in s.names)
    whole = torch.cat(labels) if len(labels) == len(stacks) else None
    return Stack(torch.cat([s.levels for s in stacks]), whole, stacks[0].top, names, stacks[0].classes)


def _pictures(files: Sequence[Path], size: int | None) -> Stack:
    """Pictures as a stack. Each lies in the folder of its class where all do, and there are several."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    pixels, asked = [], []
    for file in files:
        try:
            with Pillow.open(file) as picture:
                asked.append(getattr(picture, "text", {}).get("label"))
                grey = picture.mode in ("1", "L", "I", "I;16", "F")
                pixels.append(_scaled(picture.convert("L" if grey else "RGB"), size))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise UserError(f"{file} is no picture: {error}") from error
    channels = max(p.shape[0] for p in pixels)
    pixels = [p if p.shape[0] == channels else p.expand(channels, -1, -1) for p in pixels]
    shapes = {tuple(p.shape[1:]) for p in pixels}
    if len(shapes) > 1:
        raise UserError(f"the pictures have {len(shapes)} sizes, such as {sorted(shapes)[:3]}; give data.size")
    classes = tuple(sorted({f.parent.name for f in files}))
    labels = None
    if all(text is not None for text in asked):
        labels, classes = torch.tensor([int(text) for text in asked if text is not None]), ()
    elif len(classes) > 1:
        labels = torch.tensor([classes.index(f.parent.name) for f in files])
    return Stack(torch.stack(pixels), labels, 255, tuple(f.stem for f in files), classes if labels is not None else ())


def _scaled(image: Any, size: int | None) -> Tensor:
    """A picture as levels ``(C, H, W)``: the middle square, averaged down or interpolated up to ``size``."""
    from PIL import Image as Pillow

    if size is not None and image.size != (size, size):
        side = min(image.size)
        left, above = (image.width - side) // 2, (image.height - side) // 2
        box = (left, above, left + side, above + side)
        rule = Pillow.Resampling.BOX if side > size else Pillow.Resampling.BICUBIC
        image = image.resize((size, size), rule, box=box)
    levels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1)


def _array(file: Path, size: int | None) -> Stack:
    """An array file as a stack."""
    try:
        levels, labels, top = READERS[file.suffix](file)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{file} holds no images: {str(error) or type(error).__name__}") from error
    if size is not None and levels.shape[2:] != (size, size):
        if top != 255:
            raise UserError(f"{file} holds images of {top + 1} grey levels: they cannot be scaled to data.size={size}")
        from PIL import Image as Pillow

        grey = levels.shape[1] == 1
        turned = [Pillow.fromarray((x[0] if grey else x.permute(1, 2, 0)).numpy()) for x in levels]
        levels = torch.stack([_scaled(picture, size) for picture in turned])
    names = tuple(f"{file.stem}_{i:06d}" for i in range(len(levels)))
    return Stack(levels.contiguous(), labels, top, names)


def _npz(file: Path) -> tuple[Tensor, Tensor | None, int]:
    """``x`` (n, H, W), (n, C, H, W), (n, H, W, C) or (n, C H W), uint8 or floats in [0, 1]; ``y`` (n,) classes."""
    with np.load(file, allow_pickle=False) as stored:
        name = next((k for k in KEYS if k in stored), None)
        if name is None:
            raise ValueError(f"expected an array named {', '.join(KEYS)}, found {', '.join(stored.files)}")
        x = stored[name]
        label = next((stored[k] for k in LABELS if k in stored), None)
        top = int(stored["top"]) if "top" in stored else 255
    if x.dtype != np.uint8:
        if not np.issubdtype(x.dtype, np.floating) or x.min() < 0 or x.max() > 1:
            raise ValueError(f"{name} must be uint8, or floats in [0, 1]; it is {x.dtype}, {x.min()} to {x.max()}")
        x = (x * top).round().astype(np.uint8)
    levels = _shaped(torch.from_numpy(x))
    if label is None:
        return levels, None, top
    labels = torch.from_numpy(label.reshape(-1).astype(np.int64))
    if len(labels) != len(levels):
        raise ValueError(f"{len(labels)} labels for {len(levels)} images")
    return levels, labels - labels.min(), top  # ImageNet counts from 1


def _shaped(x: Tensor) -> Tensor:
    """An array of images as ``(n, C, H, W)``."""
    if x.ndim == 2:  # rows, channel after channel, as CIFAR and ImageNet are stored
        for channels in (3, 1):
            side = round((x.shape[1] / channels) ** 0.5)
            if channels * side * side == x.shape[1]:
                return x.reshape(-1, channels, side, side)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.permute(0, 3, 1, 2)
    raise ValueError(f"expected images (n, H, W), (n, C, H, W) or (n, H, W, C), got {tuple(x.shape)}")


def _bin(file: Path) -> tuple[Tensor, Tensor | None, int]:
    """A binary batch of CIFAR-10: a label and 3,072 levels a row."""
    raw = torch.from_numpy(np.fromfile(file, dtype=np.uint8))
    if len(raw) == 0 or len(raw) % 3073:
        raise ValueError("expected rows of 3,073 bytes, as in CIFAR-10's binary version")
    rows = raw.reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long(), 255


READERS: dict[str, Callable[[Path], tuple[Tensor, Tensor | None, int]]] = {".npz": _npz, ".bin": _bin}


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
