"""The U-Net of diffusion models: residual blocks at a few resolutions, joined by skip connections.

Each block normalises, convolves, is conditioned on time (and class) by a scale and a shift of its channels (Perez et
al. 2018), and convolves again; at coarse resolutions attention covers the whole image (Ho et al. 2020; Song et al.
2021; Dhariwal & Nichol 2021). Last convolutions start at zero: each block begins as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fm_science.errors import OptionError
from fm_science.networks import accept_older_weights
from fm_science.state import Context

from .embedding import Embedding


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all its weights at zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def normalised(channels: int) -> nn.GroupNorm:
    """Group normalisation: 32 groups, fewer where there are few channels."""
    groups = next(g for g in (32, 16, 8, 4, 2, 1) if (channels % g == 0 and channels // g >= 4) or g == 1)
    return nn.GroupNorm(groups, channels)


class Residual(nn.Module):
    """x + conv(SiLU(FiLM(norm(conv(SiLU(norm(x)))))), with x projected to the new number of channels."""

    def __init__(self, channels: int, out: int, condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.before, self.after = normalised(channels), normalised(out)
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.condition = nn.Linear(condition, 2 * out)
        accept_older_weights(self, condition="told")
        self.dropout = nn.Dropout(dropout)
        self.last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``x`` ``(B, channels, H, W)`` and ``condition`` ``(B, width)`` to ``(B, out, H, W)``."""
        h = self.first(F.silu(self.before(x)))
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, 1)
        h = self.last(self.dropout(F.silu(self.after(h) * (1 + scale) + shift)))
        return self.skip(x) + h


class Attention(nn.Module):
    """Attention of every pixel to every other, in a few heads; added to its input."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head)
        self.norm = normalised(channels)
        self.look = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        b, c, h, w = x.shape
        q, k, v = self.look(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(-1, -2).reshape(b, c, h, w))


class Level(nn.Module):
    """A residual block, with attention after it if requested."""

    def __init__(self, channels: int, out: int, condition: int, dropout: float, head: int | None) -> None:
        super().__init__()
        self.block = Residual(channels, out, condition, dropout)
        self.attention = Attention(out, head) if head else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(B, channels, H, W)`` to ``(B, out, H, W)``."""
        return self.attention(self.block(x, condition))


class UNet(nn.Module):
    """The velocity (or another prediction of the path) of an image.

    Args:
        shape: channels, height and width of an image.
        width: channels at full resolution.
        multipliers: channels at each resolution, in multiples of the width; each next one is half the size.
        blocks: residual blocks per resolution going down (one more going up).
        attention: resolutions, in pixels per side, with attention.
        head: channels of a head of attention.
        dropout: in every block.
        classes: the number of classes of the condition ``label`` ; 0: there is none.

    Raises:
        OptionError: when the size cannot be halved that often.
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int = 32, multipliers: tuple[int, ...] = (1, 2), blocks: int = 2,
        attention: tuple[int, ...] = (4,), head: int = 32, dropout: float = 0.0, classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, _ = shape
        halvings = 2 ** (len(multipliers) - 1)
        if height % halvings or shape[2] % halvings:
            raise OptionError(
                f"network.multipliers has {len(multipliers)} resolutions, and images of {height}x{shape[2]} pixels "
                f"cannot be halved {len(multipliers) - 1} times: give fewer, or a data.size that {halvings} divides"
            )
        condition = 4 * width
        self.condition = Embedding(width, condition, classes)
        accept_older_weights(self, condition="told")
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        widths, now, skips = [m * width for m in multipliers], width, [width]
        sees = [head if height // 2**i in attention else None for i in range(len(widths))]
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for i, out in enumerate(widths):
            inner = [now, *[out] * (blocks - 1)]
            self.down.append(nn.ModuleList(Level(n, out, condition, dropout, sees[i]) for n in inner))
            self.shrink.append(nn.Conv2d(out, out, 3, stride=2, padding=1) if i < len(widths) - 1 else nn.Identity())
            skips += [out] * (blocks + (i < len(widths) - 1))
            now = out
        self.middle = nn.ModuleList(Level(now, now, condition, dropout, h) for h in (head, None))
        for i, out in reversed(list(enumerate(widths))):
            inner = [(now if k == 0 else out) + skips.pop() for k in range(blocks + 1)]
            self.up.append(nn.ModuleList(Level(n, out, condition, dropout, sees[i]) for n in inner))
            self.grow.append(nn.Conv2d(out, out, 3, padding=1) if i else nn.Identity())
            now = out
        self.norm, self.last = normalised(now), zeroed(nn.Conv2d(now, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """``x`` ``(B, 1, C, H, W)`` and ``t`` ``(B,)`` to raw output like ``x``."""
        condition = self.condition(t, context)
        h = self.first(x[:, 0])
        skips = [h]
        for k, (levels, shrink) in enumerate(zip(self.down, self.shrink, strict=True)):
            for level in levels.children():
                h = level(h, condition)
                skips.append(h)
            if k < len(self.down) - 1:
                h = shrink(h)
                skips.append(h)
        for level in self.middle:
            h = level(h, condition)
        for k, (levels, grow) in enumerate(zip(self.up, self.grow, strict=True)):
            for level in levels.children():
                h = level(torch.cat([h, skips.pop()], 1), condition)
            if k < len(self.up) - 1:
                h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(h)))[:, None]
