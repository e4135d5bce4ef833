"""Stochastic interpolants: two ends joined by a line with noise of its own in the middle.

The noise of the path is drawn anew for each point, so the law of x_t is smooth and has a score whatever the coupling of
the two ends. With the noise of a Brownian bridge and ends paired by entropic transport, this is the Schrödinger bridge.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fm_science.paths.base import Path, value_and_rate
from fm_science.predictions import Noise, Prediction, Velocity, mean_square
from fm_science.priors import Prior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.base import Space, safe_sqrt
from fm_science.state import Context, expand_like


@dataclass(frozen=True)
class Brownian:
    """gamma(t) = sigma sqrt(t (1 - t)), the spread of a Brownian bridge; see :func:`brownian`."""

    sigma: float

    def __call__(self, t: Tensor) -> Tensor:
        return self.sigma * safe_sqrt(t * (1 - t))


def brownian(sigma: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The spread of a Brownian bridge of rate ``sigma``. With ends paired by entropic transport of regularisation
    2 sigma² it gives the Schrödinger bridge (Tong et al. 2024, eq. 7)."""
    return Brownian(sigma)


@dataclass(frozen=True)
class Bump:
    """gamma(t) = height sin²(pi t); see :func:`bump`."""

    height: float

    def __call__(self, t: Tensor) -> Tensor:
        return self.height * torch.sin(math.pi * t).square()


def bump(height: float = 1.0) -> Callable[[Tensor], Tensor]:
    """A spread that begins and ends at rest, ``height`` half way, so that the velocity of the noise is finite at both
    ends, which that of a Brownian bridge is not (Albergo, Boffi & Vanden-Eijnden 2023, section 2)."""
    return Bump(height)


@dataclass(frozen=True)
class Interpolant(Path):
    """x_t = alpha x1 + sigma x0 + gamma(t) z with standard normal z (Albergo, Boffi & Vanden-Eijnden 2023, eq. 2.1).

    The network's raw output is a dict: ``velocity`` is E[dx_t/dt | x_t], and ``noise``, where it is predicted too, is
    E[z | x_t], which gives the score -E[z | x_t] / gamma for any coupling.

    Args:
        space: a linear space. Raises TypeError otherwise.
        schedule: weights of both ends.
        gamma: spread of the noise in the middle, ``t (B,) -> (B,)``, zero at both ends; a module is learned.
        predicts: (Velocity(), Noise()), or (Velocity(),) where only the flow is wanted.
    """

    space: Space
    schedule: Schedule = Linear()
    gamma: Callable[[Tensor], Tensor] = Brownian(1.0)
    predicts: tuple[Prediction, ...] = (Velocity(), Noise())
    context: Context | None = field(default=None, repr=False, compare=False)
    singular = False
    score_needs_independence = False

    def __post_init__(self) -> None:
        if not self.space.linear:
            raise TypeError(f"an interpolant adds noise, and {self.space!r} is no linear space. Use Geodesic.")
        if self.schedule.steep:
            raise ValueError(f"the velocity of an interpolant is infinite at t = 0 with {self.schedule!r}.")
        if self.predicts not in ((Velocity(), Noise()), (Velocity(),)):
            raise TypeError(f"predicts={self.predicts!r}: an interpolant predicts (Velocity(), Noise()) or the first.")

    @property
    def has_score(self) -> bool:
        return len(self.predicts) == 2

    def bind(self, context: Context, prior: Prior | None = None) -> Interpolant:
        return replace(self, space=self.space.bind(context), context=context)

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        shape = (*self.space.mask.shape, *self.space.leaf.tangent_event)
        return dict.fromkeys(("velocity", "noise")[: len(self.predicts)], shape)

    def modules(self) -> list[nn.Module]:
        return [self.gamma] if isinstance(self.gamma, nn.Module) else []

    def _line(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point without noise, and its velocity."""
        alpha, sigma, dalpha, dsigma = (expand_like(value, x1) for value in self.schedule.rates(t))
        return alpha * x1 + sigma * x0, dalpha * x1 + dsigma * x0

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        point, _ = self._line(x0, x1, t)
        return self.space.project(point + expand_like(self.gamma(t), x1) * self.space.gaussian(point))

    def loss(self, raw: dict[str, Tensor], x0: Tensor, x1: Tensor, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        point, motion = self._line(x0, x1, t)
        spread, rate = value_and_rate(self.gamma, t)
        noisy = expand_like(spread > 0, x)
        safe = torch.where(noisy, expand_like(spread, x), 1.0)
        z = self.space.tangent(x, torch.where(noisy, (x - point) / safe, 0.0))
        motion = self.space.tangent(x, motion + torch.where(noisy, expand_like(rate, x) * z, 0.0))
        targets = {"velocity": motion, "noise": z}
        return {
            name: mean_square(self.space, x, self.space.tangent(x, raw[name]) - targets[name])
            for name in ("velocity", "noise")[: len(self.predicts)]
        }

    def velocity(self, raw: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        return self.space.tangent(x, raw["velocity"])

    def _noise(self, raw: dict[str, Tensor], x: Tensor) -> Tensor:
        if not self.has_score:
            raise TypeError(f"{self!r} predicts only the velocity: for scores, say predicts=(Velocity(), Noise()).")
        return self.space.tangent(x, raw["noise"])

    def endpoint(self, raw: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        z = self._noise(raw, x)
        spread, drate = (expand_like(value, x) for value in value_and_rate(self.gamma, t))
        alpha, sigma, dalpha, dsigma = (expand_like(value, x) for value in self.schedule.rates(t))
        point, motion = x - spread * z, raw["velocity"] - drate * z
        return self.space.project((sigma * motion - dsigma * point) / (dalpha * sigma - alpha * dsigma))

    def step(self, raw: dict[str, Tensor], x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.space.exp(x, expand_like(s - t, x) * self.velocity(raw, x, t))

    def score(self, raw: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        """-E[z | x_t] / gamma(t). Raises ValueError where gamma is zero: the noise says nothing of the score there."""
        noise, spread = self._noise(raw, x), self.gamma(t)
        if not bool((spread > 0).all()):
            raise ValueError(f"{self!r} has no score where gamma is zero, at t = 0 and t = 1: ask between the ends.")
        return -noise / expand_like(spread, x)

    def renoise_step(self, raw: dict[str, Tensor], x: Tensor, t: Tensor, s: Tensor, keep: Tensor) -> Tensor:
        spread = expand_like(self.gamma(t), x)
        share = expand_like((1 - keep * keep).clamp_min(0).sqrt(), x)
        noise = share * self.space.gaussian(x) - (1 - expand_like(keep, x)) * self._noise(raw, x)
        return self.space.exp(x, expand_like(s - t, x) * self.velocity(raw, x, t) + spread * noise)

    def check_compatible(self, trained: Path) -> None:
        same = isinstance(trained, Interpolant) and (trained.schedule, trained.gamma) == (self.schedule, self.gamma)
        if not same:
            raise TypeError(f"the velocity was learned on {trained!r}; {self!r} has another clock or noise.")
