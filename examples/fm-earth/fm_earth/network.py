"""The network: a place seen through waves of several lengths, beside the time.

Events cluster on lines and spots much finer than the globe, and a perceptron of plain coordinates learns fine things
last. Sines and cosines of random projections (Tancik et al. 2020) show it every length from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fm_science import Context, Network, TimeEmbedding, UserError, option


@dataclass(frozen=True)
class Options:
    """A perceptron on waves of the coordinates, whose later layers add to what is there."""

    width: int = option(128, "hidden features", low=1)
    layers: int = option(3, "hidden layers", low=1)
    scales: str = option("1,3,8,20,50", "lengths of waves: standard deviations of their numbers, radians a radius")
    waves: int = option(48, "waves of each length", low=1)
    dropout: float = option(0.0, "share of hidden features that training hides", low=0, high=0.9)

    @property
    def frequencies(self) -> tuple[float, ...]:
        """``scales`` as numbers. Raises UserError where they are none."""
        try:
            found = tuple(float(word) for word in self.scales.split(","))
        except ValueError:
            found = ()
        if not found or min(found) <= 0:
            raise UserError(f"network.scales={self.scales!r}: expected positive numbers with commas, such as 1,3,8,20")
        return found


class Waves(Network):
    """The velocity ``(B, 1, 3)`` at places ``(B, 1, 3)`` and times ``(B,)``. The space keeps its tangential part."""

    directions: Tensor

    def __init__(self, o: Options) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)  # the waves are part of the architecture: the same in every run
        drawn = [scale * torch.randn(3, o.waves, generator=generator) for scale in o.frequencies]
        self.register_buffer("directions", torch.cat(drawn, 1))
        self.time = TimeEmbedding(32, highest=100.0)
        self.enter = nn.Linear(3 + 2 * self.directions.shape[1] + self.time.features, o.width)
        self.blocks = nn.ModuleList(nn.Linear(o.width, o.width) for _ in range(o.layers - 1))
        self.hide = nn.Dropout(o.dropout)
        self.leave = nn.Linear(o.width, 3)
        nn.init.zeros_(self.leave.weight)  # the first flow moves nothing: its law is the uniform one
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        phase = x @ self.directions.to(x.dtype)
        when = self.time(t)[:, None].expand(-1, x.shape[1], -1)
        h = silu(self.enter(torch.cat([x, phase.sin(), phase.cos(), when], -1)))
        for block in self.blocks:
            h = h + silu(block(self.hide(h)))
        return self.leave(h)
