"""A small diffusion transformer: an image as patches, and attention among them (Peebles & Xie 2023, adaLN-Zero).

Time and class set the scale and shift of the input of attention and perceptron in every block, and the factor with
which their output is added. All of these start at zero, so that each block begins as the identity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_science.errors import OptionError
from fm_science.networks import accept_older_weights
from fm_science.state import Context

from .embedding import Embedding
from .unet import zeroed


def places(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the row and column of each patch, ``(rows columns, width)``; width a multiple of 4."""
    rate = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    phases = [p.reshape(-1, 1) * rate for p in (y, x)]
    return torch.cat([f(p) for p in phases for f in (torch.sin, torch.cos)], 1)


class Block(nn.Module):
    """Attention and a perceptron, each scaled, shifted and gated by the conditioning."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.look, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.condition = zeroed(nn.Linear(condition, 6 * width))
        accept_older_weights(self, condition="told")

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x`` ``(B, N, width)`` and ``condition`` ``(B, condition)`` to the shape of ``x``."""
        shift, scale, gate, shift2, scale2, gate2 = self.condition(condition)[:, None].chunk(6, -1)
        x = x + gate * self._attended(self.norms[0](x) * (1 + scale) + shift)
        return x + gate2 * self.think(self.norms[1](x) * (1 + scale2) + shift2)

    def _attended(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.look(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class Transformer(nn.Module):
    """The velocity (or another prediction of the path) of an image, patch by patch.

    Args:
        shape: channels, height and width of an image.
        width: features of a patch, a multiple of 4 and of the heads.
        layers: blocks.
        heads: of attention.
        patch: pixels per side of a patch.
        classes: the number of classes of the condition ``label`` ; 0: there is none.

    Raises:
        OptionError: when patches do not tile the image, or heads the width.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int = 128, layers: int = 6, heads: int = 4, patch: int = 2,
        classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, across = shape
        if height % patch or across % patch:
            raise OptionError(f"network.patch={patch} does not divide images of {height}x{across} pixels")
        if width % heads or width % 4:
            raise OptionError(f"network.width={width} must be a multiple of 4 and of network.heads={heads}")
        self.patch, self.rows = patch, height // patch
        self.register_buffer("place", places(height // patch, across // patch, width), persistent=False)
        self.first = nn.Conv2d(channels, width, patch, patch)
        self.condition = Embedding(width, width, classes)
        accept_older_weights(self, condition="told")
        self.blocks = nn.ModuleList(Block(width, heads, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.final = zeroed(nn.Linear(width, 2 * width))
        self.last = zeroed(nn.Linear(width, channels * patch * patch))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """``x`` ``(B, 1, C, H, W)`` and ``t`` ``(B,)`` to raw output like ``x``."""
        condition = self.condition(t, context)
        h = self.first(x[:, 0]).flatten(2).transpose(1, 2) + self.place.to(x)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.final(condition)[:, None].chunk(2, -1)
        h = self.last(self.norm(h) * (1 + scale) + shift).transpose(1, 2)
        h = h.reshape(len(x), -1, self.rows, h.shape[-1] // self.rows)
        return F.pixel_shuffle(h, self.patch)[:, None]
