"""One file of images at a time: what its bytes mean as grey levels and classes.

Pictures become 8 bits: 16 bits are divided by 257, and floats in [0, 1] multiplied by 255. They are turned upright as
their EXIF data say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
KEYS = ("x", "images", "data", "x_train", "arr_0")
LABELS = ("y", "labels", "label", "y_train")


def picture(file: Path, size: int | None) -> tuple[Tensor, int | None]:
    """A picture as levels ``(C, H, W)`` uint8, of one channel or three, and the number of its class where that is kept
    inside. Raises UserError where it cannot be read, or its values have no agreed white."""
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with Pillow.open(file) as opened:
            label = str(getattr(opened, "text", {}).get("label", ""))
            levels = _scaled(_bytes(ImageOps.exif_transpose(opened)), size)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file} is no picture: {error}") from error
    return levels, int(label) if label.isdecimal() else None


def _bytes(image: Any) -> Any:
    """A picture in 8 bits, grey or of three colours. Raises ValueError where its values have no agreed white."""
    from PIL import Image as Pillow

    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode[0] not in "IF":
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)
    white = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(
            f"its values go from {values.min():g} to {values.max():g}; expected 8 bits, 16 bits, or floats in [0, 1]"
        )
    return Pillow.fromarray((values * (255 / white)).round().astype(np.uint8))


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


def array(file: Path, size: int | None) -> tuple[Tensor, Tensor | None, int]:
    """An array file as levels ``(n, C, H, W)`` uint8, the values of its labels ``(n,)`` int64 where it has any, and the
    level that is white. Raises UserError where it holds no images."""
    try:
        levels, labels, top = READERS[file.suffix.lower()](file)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{file} holds no images: {str(error) or type(error).__name__}") from error
    if size is not None and levels.shape[2:] != (size, size):
        if top != 255:
            raise UserError(f"{file} holds images of {top + 1} grey levels: they cannot be scaled to data.size={size}")
        from PIL import Image as Pillow

        grey = levels.shape[1] == 1
        turned = [Pillow.fromarray((x[0] if grey else x.permute(1, 2, 0)).numpy()) for x in levels]
        levels = torch.stack([_scaled(image, size) for image in turned])
    return levels.contiguous(), labels, top


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
        if not np.issubdtype(x.dtype, np.floating) or not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"{name} must be uint8, or floats in [0, 1]; it is {x.dtype}, {x.min()} to {x.max()}")
        x = (x * top).round().astype(np.uint8)
    levels = _shaped(torch.from_numpy(x))
    return levels, None if label is None else _classes(label.reshape(-1), len(levels)), top


def _classes(label: np.ndarray, n: int) -> Tensor:
    """Labels ``(n,)`` as int64. Raises ValueError where they are not as many, or no whole numbers."""
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


def _bin(file: Path) -> tuple[Tensor, Tensor | None, int]:
    """A binary batch of CIFAR-10: a label and 3,072 levels a row."""
    raw = torch.from_numpy(np.fromfile(file, dtype=np.uint8))
    if len(raw) == 0 or len(raw) % 3073:
        raise ValueError("expected rows of 3,073 bytes, as in CIFAR-10's binary version")
    rows = raw.reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long(), 255


READERS: dict[str, Callable[[Path], tuple[Tensor, Tensor | None, int]]] = {".npz": _npz, ".bin": _bin}
