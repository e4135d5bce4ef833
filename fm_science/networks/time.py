"""How time reaches a network: as sines and cosines of many frequencies (Vaswani et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sines and cosines of a time in [0, 1].

    Args:
        width: number of features, even.
        highest: the highest frequency in radians per unit of time.
    """

    frequency: Tensor

    def __init__(self, width: int = 64, highest: float = 1000.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width={width}: a time embedding needs an even width, one sine and one cosine each.")
        self.register_buffer("frequency", torch.exp(torch.linspace(0, math.log(highest), width // 2)), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """``t`` ``(...)`` to ``(..., width)``."""
        phase = t[..., None] * self.frequency.to(t)
        return torch.cat([phase.sin(), phase.cos()], -1)
