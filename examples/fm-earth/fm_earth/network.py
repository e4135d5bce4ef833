"""The network: a place seen through waves of several lengths, and the time that steers what is made of them.

Events cluster on lines and spots much finer than the globe, and a perceptron of plain coordinates learns fine things
last. Sines and cosines of random projections (Tancik et al. 2020) show it every length from the start; early in the
walk, when the law is still smooth, the time turns the short ones down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fm_science import Context, Network, TimeEmbedding, UserError, option

CLOCK = 64  # features of the time that steer the layers


@dataclass(frozen=True)
class Options:
    """A residual perceptron on waves of the coordinates."""

    width: int = option(128, "hidden features", low=1)
    layers: int = option(3, "residual blocks", low=0)
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
        seen = 2 * self.directions.shape[1]
        self.time = TimeEmbedding(32, highest=100.0)
        self.clock = nn.Sequential(nn.Linear(32, CLOCK), nn.SiLU(), nn.Linear(CLOCK, CLOCK), nn.SiLU())
        self.gate = nn.Linear(CLOCK, seen)
        self.enter = nn.Linear(3 + seen, o.width)
        self.blocks = nn.ModuleList(Block(o.width, o.dropout) for _ in range(o.layers))
        last = nn.Linear(o.width, 3)
        nn.init.zeros_(last.weight)  # the first flow moves nothing: its law is the uniform one
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(o.width), last)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        place, clock = x[:, 0], self.clock(self.time(t))
        phase = place @ self.directions.to(x.dtype)
        waves = torch.cat([phase.sin(), phase.cos()], -1) * 2 * torch.sigmoid(self.gate(clock))
        h = self.enter(torch.cat([place, waves], -1))
        for block in self.blocks:
            h = block(h, clock)
        return self.leave(h)[:, None]


class Block(nn.Module):
    """Normalise, scale and shift by the time (Perez et al. 2018), two layers, add."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.steer = nn.Linear(CLOCK, 2 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )  # fmt: skip

    def forward(self, h: Tensor, clock: Tensor) -> Tensor:
        scale, shift = self.steer(clock).chunk(2, -1)
        return h + self.layers(self.norm(h) * (1 + scale) + shift)
