"""The network of rows: what is in the cells, which of them are given and which are not there, and the time.

Real coordinates are seen as they are and through waves of several lengths, which let a smooth network draw sharp edges
(Tancik et al. 2020); angles through harmonics; classes as they are. A residual perceptron whose layers are scaled and
shifted by the time (Perez et al. 2018; Peebles & Xie 2023) gives the velocity of every number and angle and the
probabilities of every class.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fm_science.networks.time import TimeEmbedding
from fm_science.paths.base import value_and_rate
from fm_science.predictions import Endpoint, Noise, Prediction, Score, Velocity
from fm_science.schedules import Linear, Schedule
from fm_science.state import Context, State

from .encoding import NUMBERS, Encoding, Parts

Gamma = Callable[[Tensor], Tensor]
TIMES, CLOCK = 32, 64  # features of the time, and of what steers the layers
INSIDE = 1e-3  # the least distance of a time from both ends at which the slope of a spread is asked for
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
        schedule, predicts: of the path of the numbers.
        gamma: spread of the noise in the middle of their path, ``t (B,) -> (B,)``: then both the velocity and that
            noise are told. ``None``: there is none.

    What is told of a number is its departure from what holds for Gaussian data of spread one, such as the velocity
    (2t - 1) / (t² + (1 - t)²) x on straight paths, so that the network begins as the flow of such data, and learns
    something of unit size whatever it tells (Karras et al. 2022, section 5).
    """

    frequency: Tensor

    def __init__(
        self, encoding: Encoding, width: int = 256, layers: int = 4, waves: int = 8, dropout: float = 0.0,
        two_times: bool = False, schedule: Schedule = Linear(), predicts: Prediction = Velocity(),
        gamma: Gamma | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoding, self.two_times = encoding, two_times
        self.schedule, self.predicts, self.gamma = schedule, predicts, gamma
        frequency = torch.exp(torch.linspace(math.log(SLOWEST), math.log(FASTEST), waves)) if waves else torch.zeros(0)
        self.register_buffer("frequency", frequency, persistent=False)
        self.classes = {k: len(encoding.columns[c].classes) for k, c in encoding.others.items()}
        numbers = len(encoding.linear)
        self.outputs_per_number = 1 if gamma is None else 2
        seen = numbers * (1 + 2 * waves) + 2 * len(encoding.order)
        seen += sum(count + 1 if count else 2 * HARMONICS for count in self.classes.values())
        outputs = self.outputs_per_number * numbers + sum(count + 1 if count else 1 for count in self.classes.values())
        self.time = TimeEmbedding(TIMES, highest=100.0, two_times=two_times)
        self.clock = nn.Sequential(nn.Linear(self.time.features, CLOCK), nn.SiLU(), nn.Linear(CLOCK, CLOCK))
        self.condition = _condition(encoding, CLOCK)
        self.enter = nn.Linear(seen, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(layers))
        last = nn.Linear(width, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)

    def forward(self, x: Parts, t: Tensor, context: Context) -> dict[str, State]:
        """States and times ``(B,)`` to raw states of the same shapes. ``context.cond["observed"]`` ``(B, L)`` says
        which cells are there, ``context.free`` which of those are not given."""
        seen = torch.cat([*self._cells(self._sized(x, t)), *self._flags(x, context)], -1)
        when = self.clock(self.time(t, context.t_end if self.two_times else None))
        if self.condition is not None:
            when = when + self.condition(context.cond["label"])
        h, steered = self.enter(seen), nn.functional.silu(when)
        for block in self.blocks:
            h = block(h, steered)
        return self._outputs(self.leave(h), x, t)

    def _sized(self, x: Parts, t: Tensor) -> Parts:
        """The state with its numbers at a spread of one where the noise is larger than the data."""
        if not self.encoding.linear:
            return x
        alpha, sigma = self.schedule(t)
        return {**x, NUMBERS: x[NUMBERS] / (alpha.square() + sigma.square()).sqrt().clamp_min(1)[:, None, None]}

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

    def _outputs(self, out: Tensor, x: Parts, t: Tensor) -> dict[str, State]:
        raw: dict[str, State] = {}
        start = len(self.encoding.linear)
        if start:
            raw[NUMBERS] = self._numbers(out[:, : self.outputs_per_number * start], x[NUMBERS], t)
            start *= self.outputs_per_number
        for name, count in self.classes.items():
            wide = count + 1 if count else 1
            raw[name] = out[:, start : start + wide]
            start += wide
        return raw

    def _numbers(self, out: Tensor, z: Tensor, t: Tensor) -> Tensor | Parts:
        """What is told of numbers ``z`` ``(B, R, 1)``, from the last layer ``(B, told * R)``."""
        count = out.shape[1] // self.outputs_per_number
        learned = [nn.functional.pad(part[..., None], (0, 0, 0, z.shape[1] - count)) for part in out.split(count, 1)]
        if self.gamma is not None:
            laws = unit_interpolant(self.schedule, self.gamma, t)
            return {
                name: pull[:, None, None] * z + gain[:, None, None] * part
                for name, (pull, gain), part in zip(("velocity", "noise"), laws, learned, strict=True)
            }
        pull, gain = unit_gaussian(self.schedule, self.predicts, t)
        if self.two_times:  # a mean velocity is that of no time alone
            pull = torch.zeros_like(t)
        return pull[:, None, None] * z + gain[:, None, None] * learned[0]


class RowPotential(RowNetwork):
    """Rows to one number ``(B,)``, whose gradient begins as the velocity of Gaussian data of spread one; for
    :class:`~fm_science.networks.Potential`. Classes have no gradient."""

    def forward(self, x: Parts, t: Tensor, context: Context) -> Tensor:  # type: ignore[override]
        raw = super().forward(x, t, context)
        found = torch.zeros_like(t)
        for name, outputs_per_number in raw.items():
            if name == NUMBERS:
                pull, _ = unit_gaussian(self.schedule, self.predicts, t)
                outputs_per_number = x[name] * (outputs_per_number - 0.5 * pull[:, None, None] * x[name])
            found = found + outputs_per_number.flatten(1).sum(1)
        return found


class AtRest(nn.Module):
    """A network of rows that is asked at one time, at which it begins as no motion at all: a block of a JKO flow."""

    def __init__(self, network: RowNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Parts, t: Tensor, context: Context) -> dict[str, State]:
        return self.network(x, torch.full_like(t, 0.5), context)


def unit_gaussian(schedule: Schedule, predicts: Prediction, t: Tensor) -> tuple[Tensor, Tensor]:
    """What a prediction is for Gaussian data of spread one beside noise of spread one: the factor of x, and that of a
    departure of unit size which is the same for all predictions, each ``(B,)``."""
    alpha, sigma = schedule(t)
    size = alpha.square() + sigma.square()
    if isinstance(predicts, Endpoint):
        return alpha / size, sigma / size.sqrt()
    if isinstance(predicts, Score):
        return -1 / size, alpha / (sigma * size.sqrt())
    if isinstance(predicts, Noise):
        return sigma / size, -alpha / size.sqrt()
    _, _, dalpha, dsigma = schedule.rates(t)
    return (alpha * dalpha + sigma * dsigma) / size, (dalpha * sigma - alpha * dsigma) / size.sqrt()


def unit_interpolant(schedule: Schedule, gamma: Gamma, t: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """The same of the velocity and of the noise of a stochastic interpolant between such ends: with v the variance of
    x_t they are v' / (2 v) x and gamma / v x."""
    inner = t.clamp(INSIDE, 1 - INSIDE)  # the spread of a Brownian bridge begins with an infinite slope
    alpha, sigma, dalpha, dsigma = schedule.rates(inner)
    spread, rate = value_and_rate(gamma, inner)
    size = alpha.square() + sigma.square()
    whole = size + spread.square()
    velocity = (alpha * dalpha + sigma * dsigma + spread * rate) / whole, (dalpha - dsigma) / (2 * size).sqrt()
    return velocity, (spread / whole, (size / whole).sqrt())


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
