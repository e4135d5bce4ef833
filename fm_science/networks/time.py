"""How time reaches a network: as sines and cosines of many frequencies (Vaswani et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fm_science.errors import OptionError

SLOW = 10.0  # the highest frequency of a gap: flow maps are taught by derivatives, which multiply by the frequency


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1], and for flow maps of the gap to the time to land at.

    Args:
        width: number of features of a time, even.
        highest: the highest frequency in radians per unit of time.
        two_times: whether the gap is told too, in ``width`` more features.

    Attributes:
        features: number of features in all.
    """

    frequency: Tensor
    gaps: Tensor

    def __init__(self, width: int = 64, highest: float = 1000.0, two_times: bool = False) -> None:
        super().__init__()
        if width % 2:
            raise OptionError(f"width={width}: a time embedding needs an even width, one sine and one cosine each.")
        self.two_times, self.features = two_times, 2 * width if two_times else width
        self.register_buffer("frequency", _frequencies(width // 2, highest), persistent=False)
        if two_times:
            self.register_buffer("gaps", _frequencies(width // 2, min(highest, SLOW)), persistent=False)

    def forward(self, t: Tensor, t_end: Tensor | None = None) -> Tensor:
        """``t`` ``(...)`` to ``(..., features)``. Two-time embeddings read ``t_end`` ``(...)``; ``None``: ``t``."""
        phase = t[..., None] * self.frequency.to(t)
        seen = [phase.sin(), phase.cos()]
        if self.two_times:
            gap = (torch.zeros_like(t) if t_end is None else t_end - t)[..., None] * self.gaps.to(t)
            seen += [gap.sin(), gap.cos()]
        return torch.cat(seen, -1)


def _frequencies(count: int, highest: float) -> Tensor:
    return torch.exp(torch.linspace(0, math.log(highest), count))
