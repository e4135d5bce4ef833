"""One file of images at a time: its grey levels and classes.

Pictures become 8 bits, and transparent pixels get the background. Floats in [0, 1] are multiplied by 255. Integers of
more than 8 bits need a white level: it is given, or the end of the smallest range of 8, 10, 12, 14 or 16 bits that
contains all of them (a camera of 12 bits writes 0 to 4095 into files of 16). Pictures are rotated as their EXIF data
say, and the pages of a TIFF file are pictures.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import UNREADABLE, Arrays, reason_of, refuse_bomb

log = logging.getLogger(__name__)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
KEYS = ("x", "images", "data", "x_train", "arr_0")
LABELS = ("y", "labels", "label", "y_train")
BACKGROUNDS = {"white": 255, "black": 0}
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
REDUCED = 254  # the TIFF tag of a page that is a smaller copy of another


@dataclass(frozen=True)
class Page:
    """A picture as stored. values: (H, W) or (H, W, 3), uint8, or uint16 if its white level is still to be determined;
    label: the number of its class if one is stored inside; name: for display."""

    values: np.ndarray
    label: int | None
    name: str


def pictures(file: Path, background: str = "white") -> list[Page]:
    """The pictures of a file: one, or the pages of a TIFF file. Raises UserError if it cannot be read, or its white
    level is not known."""
    from PIL import Image as Pillow

    bad = (*UNREADABLE, SyntaxError, Pillow.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual metadata, which are not read
            with Pillow.open(file) as opened:
                return list(_pages(opened, file, background))
    except bad as error:
        raise UserError(f"{file} is no picture: {reason_of(error)}") from error


def _pages(opened: Any, file: Path, background: str) -> Iterator[Page]:
    from PIL import ImageOps

    label = str(getattr(opened, "text", {}).get("label", ""))
    number = int(label) if label.isdecimal() else None
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "TIFF":
        log.warning("%s: its first frame is read, the other %d are left out", file, frames - 1)
        frames = 1
    refuse_bomb(frames * opened.width * opened.height, file.stat().st_size)
    for k in range(frames):
        opened.seek(k)
        if k and int(getattr(opened, "tag_v2", {}).get(REDUCED, 0)) & 1:
            continue
        values = _values(ImageOps.exif_transpose(opened), background)
        yield Page(values, number, f"{file.stem}_{k:04d}" if frames > 1 else file.stem)


def _values(image: Any, background: str) -> np.ndarray:
    """A picture, grey or of three colours. Raises ValueError if its white level is not known."""
    if image.mode[0] in "IF":
        values = np.asarray(image).astype(np.float64)
        white = 1 if image.mode == "F" else 65535
        if not (values.min() >= 0 and values.max() <= white):
            raise ValueError(
                f"its values go from {values.min():g} to {values.max():g}; expected 8 bits, 16 bits, or floats in "
                "[0, 1]"
            )
        return (values * 255).round().astype(np.uint8) if image.mode == "F" else values.astype(np.uint16)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        from PIL import Image as Pillow

        clear = image.convert("RGBA")
        image = Pillow.alpha_composite(Pillow.new("RGBA", clear.size, (BACKGROUNDS[background],) * 3 + (255,)), clear)
    return np.array(image.convert("L" if grey else "RGB"), dtype=np.uint8)


def white_level(values: Sequence[np.ndarray], given: int | None, where: str) -> int:
    """The level that is white in arrays of integers from 0 on: the given one, else the end of the smallest depth that
    contains them all. Raises UserError if a value is beyond."""
    top = max(int(v.max()) for v in values)
    if given is not None and top > given:
        raise UserError(f"{where}: values up to {top} lie beyond data.white={given}")
    found = given or next(2**bits - 1 for bits in DEPTHS if top < 2**bits)
    if given is None and found not in (255, 65535):
        log.warning("%s: values up to %d of 16 bits; white is taken to be %d (data.white=LEVEL says otherwise)",
                    where, top, found)  # fmt: skip
    return found


def eight_bits(values: np.ndarray, white: int) -> np.ndarray:
    """Integers from 0 to ``white`` as levels of 8 bits."""
    return values.astype(np.uint8) if white == 255 else (values * (255 / white)).round().astype(np.uint8)


def scaled(values: np.ndarray, size: int | None) -> Tensor:
    """A picture of 8 bits as levels ``(C, H, W)``: the central square, averaged down or interpolated up to ``size``."""
    from PIL import Image as Pillow

    if size is not None and values.shape[:2] != (size, size):
        image = Pillow.fromarray(values)
        side = min(image.size)
        left, above = (image.width - side) // 2, (image.height - side) // 2
        box = (left, above, left + side, above + side)
        rule = Pillow.Resampling.BOX if side > size else Pillow.Resampling.BICUBIC
        values = np.array(image.resize((size, size), rule, box=box), dtype=np.uint8)
    levels = torch.from_numpy(values)
    return levels[None] if levels.ndim == 2 else levels.permute(2, 0, 1)


def array(file: Path, size: int | None, white: int | None = None) -> tuple[Tensor, Tensor | None, int]:
    """An array file as levels ``(n, C, H, W)`` uint8, the values of its labels ``(n,)`` int64 if it has any, and the
    level that is white. Raises UserError if it has no images."""
    try:
        levels, labels, top = READERS[file.suffix.lower()](file, white)
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"{file} holds no images: {reason_of(error)}") from error
    if size is not None and levels.shape[2:] != (size, size):
        if top != 255:
            raise UserError(f"{file} holds images of {top + 1} grey levels: they cannot be scaled to data.size={size}")
        grey = levels.shape[1] == 1
        levels = torch.stack([scaled((x[0] if grey else x.permute(1, 2, 0)).numpy(), size) for x in levels])
    return levels.contiguous(), labels, top


def _npz(file: Path, white: int | None) -> tuple[Tensor, Tensor | None, int]:
    """``x`` (n, H, W), (n, C, H, W), (n, H, W, C) or (n, C H W): integers up to 16 bits, or floats in [0, 1];
    ``y`` (n,) classes. An .npy file has ``x`` only, or one picture, (H, W) or (H, W, 3)."""
    stored = Arrays(file)
    name = next((k for k in ("", *KEYS) if k in stored), None)
    if name is None:
        raise ValueError(f"expected an array named {', '.join(KEYS)}, found {', '.join(stored) or 'nothing'}")
    x, what = stored.numbers(name), name or "the array"
    if not x.size:
        raise ValueError(f"{what} is empty: its shape is {x.shape}")
    label = next((stored.numbers(k) for k in LABELS if k in stored), None)
    top = int(stored["top"]) if "top" in stored else 255
    low, high = x.min(), x.max()
    if x.dtype.kind == "f":
        if not (low >= 0 and high <= 1):
            raise ValueError(f"{what} must be whole numbers, or floats in [0, 1]; it is {x.dtype}, {low} to {high}")
        x = (x * top).round().astype(np.uint8)
    elif x.dtype != np.uint8 or white is not None:
        if not (low >= 0 and high <= 65535):
            raise ValueError(f"{what} must be whole numbers from 0 to 65535; it is {x.dtype}, {low} to {high}")
        x = x.astype(np.uint8) if "top" in stored and high <= top else eight_bits(
            x, white_level([x], white, str(file))
        )
    if x.max() > top:
        raise ValueError(f"{what} goes up to {x.max()}, but its white level, top, is {top}")
    single = stored.single and (x.ndim == 2 or (x.ndim == 3 and x.shape[-1] == 3 < x.shape[0]))
    levels = _shaped(torch.from_numpy(np.ascontiguousarray(x[None] if single else x)))
    return levels, None if label is None else _classes(label.reshape(-1), len(levels)), top


def _classes(label: np.ndarray, n: int) -> Tensor:
    """Labels ``(n,)`` as int64. Raises ValueError if the numbers differ, or they are not integers."""
    if len(label) != n:
        raise ValueError(f"{len(label)} labels for {n} images")
    values = label.astype(np.float64)
    if not (values == values.round()).all():
        raise ValueError("labels must be whole numbers")
    return torch.from_numpy(label.astype(np.int64))


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


def _bin(file: Path, white: int | None) -> tuple[Tensor, Tensor | None, int]:
    """A binary batch of CIFAR-10: a label and 3,072 levels per row."""
    raw = torch.from_numpy(np.fromfile(file, dtype=np.uint8))
    if len(raw) == 0 or len(raw) % 3073:
        raise ValueError("expected rows of 3,073 bytes, as in CIFAR-10's binary version")
    rows = raw.reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long(), 255


READERS: dict[str, Callable[[Path, int | None], tuple[Tensor, Tensor | None, int]]] = {
    ".npz": _npz, ".npy": _npz, ".bin": _bin,
}  # fmt: skip
