"""The network of rows: what is in the cells, which of them are given and which are not there, and the time.

Real coordinates are seen as they are and through waves of several lengths, which let a smooth network draw sharp edges
(Tancik et al. 2020); angles through harmonics; classes as they are. A residual perceptron whose layers are scaled and
shifted by the time (Perez et al. 2018; Peebles & Xie 2023) gives the velocity of every number and angle and the
probabilities of every class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fm_science.networks.time import TimeEmbedding
from fm_science.state import Context

from .encoding import NUMBERS, Encoding, Parts

TIMES, CLOCK = 32, 64  # features of the time, and of what steers the layers
HARMONICS = 4  # of an angle
SLOWEST, FASTEST = 0.5, 16.0  # waves of a real coordinate, radians a spread


class RowNetwork(nn.Module):
    """Rows to velocities and logits.

    Args:
        encoding: what a state is.
        width: features of the hidden layers.
        layers: residual blocks.
        waves: lengths of waves through which a real coordinate is seen.
        dropout: share of hidden features that training hides.
        two_times: whether the time to land at is read, for flow maps.

    A number's velocity is given as its departure from that of Gaussian data of spread one, (2t - 1) / (t² + (1 - t)²)
    x, so that the network begins as the flow of such data.
    """

    frequency: Tensor

    def __init__(
        self, encoding: Encoding, width: int = 256, layers: int = 4, waves: int = 8, dropout: float = 0.0,
        two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoding, self.two_times = encoding, two_times
        frequency = torch.exp(torch.linspace(math.log(SLOWEST), math.log(FASTEST), waves)) if waves else torch.zeros(0)
        self.register_buffer("frequency", frequency, persistent=False)
        self.classes = {k: len(encoding.columns[c].classes) for k, c in encoding.others.items()}
        numbers = len(encoding.linear)
        seen = numbers * (1 + 2 * waves) + 2 * len(encoding.order)
        seen += sum(count + 1 if count else 2 * HARMONICS for count in self.classes.values())
        outputs = numbers + sum(count + 1 if count else 1 for count in self.classes.values())
        self.time = TimeEmbedding(TIMES, highest=100.0, two_times=two_times)
        self.clock = nn.Sequential(nn.Linear(self.time.features, CLOCK), nn.SiLU(), nn.Linear(CLOCK, CLOCK))
        self.condition = _condition(encoding, CLOCK)
        self.enter = nn.Linear(seen, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(layers))
        last = nn.Linear(width, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, x: Parts, t: Tensor, context: Context) -> Parts:
        """States and times ``(B,)`` to raw states of the same shapes. ``context.cond["observed"]`` ``(B, L)`` says
        which cells are there, ``context.free`` which of those are not given."""
        seen = torch.cat([*self._cells(x), *self._flags(x, context)], -1)
        when = self.clock(self.time(t, context.t_end if self.two_times else None))
        if self.condition is not None:
            when = when + self.condition(context.cond["label"])
        h, steered = self.enter(seen), nn.functional.silu(when)
        for block in self.blocks:
            h = block(h, steered)
        return self._outputs(self.leave(h), x, t)

    def _cells(self, x: Parts) -> list[Tensor]:
        found = []
        if self.encoding.linear:
            z = x[NUMBERS][:, : len(self.encoding.linear), 0]
            phase = (z[..., None] * self.frequency).flatten(1)
            found += [z, phase.sin(), phase.cos()]
        for name, count in self.classes.items():
            if count:
                found.append(x[name])
            else:
                phase = x[name] * torch.arange(1, HARMONICS + 1, dtype=x[name].dtype, device=x[name].device)
                found += [phase.sin(), phase.cos()]
        return found

    def _flags(self, x: Parts, context: Context) -> list[Tensor]:
        like = next(iter(x.values()))
        there = context.cond["observed"][:, : len(self.encoding.order)].bool()
        return [(there & ~self.encoding.free(context)).to(like), (~there).to(like)]

    def _outputs(self, out: Tensor, x: Parts, t: Tensor) -> Parts:
        raw: Parts = {}
        start = len(self.encoding.linear)
        if start:
            z = x[NUMBERS]
            velocity = torch.zeros_like(z)
            velocity[:, :start, 0] = out[:, :start]
            size = t.square() + (1 - t).square()
            pull = (2 * t - 1) / size if not self.two_times else torch.zeros_like(t)
            raw[NUMBERS] = pull[:, None, None] * z + velocity / size.sqrt()[:, None, None]
        for name, count in self.classes.items():
            wide = count + 1 if count else 1
            raw[name] = out[:, start : start + wide]
            start += wide
        return raw


class Block(nn.Module):
    """Normalise, scale and shift by the time, two layers, add."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.steer = nn.Linear(CLOCK, 3 * width)
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )  # fmt: skip

    def forward(self, h: Tensor, steered: Tensor) -> Tensor:
        scale, shift, gate = self.steer(steered).chunk(3, -1)
        return h + (1 + gate) * self.layers(self.norm(h) * (1 + scale) + shift)


class ConditionEmbedding(nn.Module):
    """A condition as features: a class (-1: not known), or a number or angle (NaN: not known)."""

    def __init__(self, classes: int, period: bool, width: int) -> None:
        super().__init__()
        self.period = period
        self.table = nn.Embedding(classes + 1, width) if classes else None
        self.mix = (
            None if classes else nn.Sequential(nn.Linear(2 * HARMONICS + 2, width), nn.SiLU(), nn.Linear(width, width))
        )

    def forward(self, value: Tensor) -> Tensor:
        if self.table is not None:
            return self.table(value.long() + 1)
        assert self.mix is not None
        value = value.to(next(self.parameters()).dtype)
        known = value.isfinite()
        z = torch.where(known, value, 0.0)[:, None]
        phase = z * torch.arange(1, HARMONICS + 1, dtype=z.dtype, device=z.device)
        plain = torch.zeros_like(z) if self.period else z
        return self.mix(torch.cat([plain, phase.sin(), phase.cos(), torch.ones_like(z)], -1) * known[:, None])


def _condition(encoding: Encoding, width: int) -> ConditionEmbedding | None:
    if encoding.condition_index is None:
        return None
    column = encoding.columns[encoding.condition_index]
    return ConditionEmbedding(len(column.classes), column.kind == "period", width)
