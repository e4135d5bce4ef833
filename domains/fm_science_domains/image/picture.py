"""One image, decoded: values in [-1, 1] from black to white."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor


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


def rounded(x: Tensor, top: int) -> Tensor:
    """Values clamped to [-1, 1] and rounded to the nearest of ``top`` + 1 grey levels."""
    return ((x.clamp(-1, 1) + 1) * (top / 2)).round() * (2 / top) - 1


def pillow(pixels: Tensor) -> Any:
    """Values in [-1, 1] ``(C, H, W)`` as a picture of 8 bits."""
    from PIL import Image as Pillow

    levels = ((pixels.detach().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Pillow.fromarray((levels[0] if len(levels) == 1 else levels.permute(1, 2, 0)).numpy())
