"""Mixtures of Gaussians, for which everything that a network would learn is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.predictions import Endpoint
from fm_science.priors import Normal
from fm_science.schedules import Schedule
from fm_science.spaces import Euclidean
from fm_science.state import Context


@dataclass(frozen=True)
class Shown:
    """A picture, and its measurements as lines of text."""

    figure: Any
    facts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians of equal standard deviation.

    Args:
        weights: ``(K,)``, summing to one.
        means: ``(K, d)``.
        std: of each coordinate of each Gaussian.
    """

    weights: Tensor
    means: Tensor
    std: float

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Points ``(n, 1, d)``."""
        rng = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        noise = torch.randn(n, self.means.shape[1], generator=rng, dtype=self.means.dtype)
        return (self.means[k] + self.std * noise)[:, None]

    def _laws(self, schedule: Schedule, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The log of weight times density of each Gaussian at x_t ``(B, K)``, alpha and variance ``(B, 1)``."""
        alpha, sigma = (v[:, None] for v in schedule(t))
        var = (alpha * self.std).square() + sigma.square()
        square = (x - alpha[:, None] * self.means).square().sum(-1)
        return self.weights.log() - 0.5 * (square / var + x.shape[-1] * (2 * math.pi * var).log()), alpha, var

    def density(self, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
        """The density of x_t ``(B,)`` at points ``(B, 1, d)``, for standard normal noise."""
        return self._laws(schedule, x, t)[0].exp().sum(1)

    def endpoint(self, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
        """E[x1 | x_t] ``(B, 1, d)``."""
        logs, alpha, var = self._laws(schedule, x, t)
        middle = logs.softmax(1) @ self.means
        return (middle + alpha * self.std**2 / var * (x[:, 0] - alpha * middle))[:, None]

    def shares(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """How likely a point came from each Gaussian ``(B, K)``, if noise was added to the data."""
        square = (x - self.means).square().sum(-1)
        return (self.weights.log() - 0.5 * square / (self.std**2 + noise**2)).softmax(1)

    def score(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """The score ``(B, 1, d)`` of the data with Gaussian noise added."""
        return ((self.shares(x, noise) @ self.means)[:, None] - x) / (self.std**2 + noise**2)

    def flow(self, schedule: Schedule) -> Flow:
        """The exact flow from the standard normal distribution along a Gaussian path."""
        network = lambda x, t, context: self.endpoint(schedule, x, t)  # noqa: E731
        return Flow(Gaussian(Euclidean(self.means.shape[1]), schedule, Endpoint()), Normal(), network)

    def velocity(self, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
        """The velocity ``(B, 1, d)`` of that flow."""
        flow = self.flow(schedule)
        return flow.path.bind(Context.full(len(x)), flow.prior).velocity(self.endpoint(schedule, x, t), x, t)


def far_modes() -> Mixture:
    """Two far and unequal modes on the line: .8 at -4 and .2 at 4, of standard deviation 1/2."""
    return Mixture(torch.tensor([0.8, 0.2]), torch.tensor([[-4.0], [4.0]]), 0.5)


def ring(modes: int = 8, radius: float = 3.0, std: float = 0.25) -> Mixture:
    """Equal modes around a circle in the plane."""
    angle = 2 * math.pi * torch.arange(modes) / modes
    return Mixture(torch.full((modes,), 1 / modes), radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def straightness(places: Tensor) -> float:
    """How far trajectories ``(steps + 1, n, d)`` of equal steps are from straight ones: the mean squared deviation of
    their velocity from the whole displacement, over the mean squared length of that (Liu et al. 2023, eq. 7,
    relative)."""
    velocities, whole = places.diff(dim=0) * (len(places) - 1), places[-1] - places[0]
    return float((velocities - whole).square().sum(2).mean() / whole.square().sum(1).mean())


def ways(flow: Flow, x0: Tensor, steps: int = 60, solver: Any = None) -> Tensor:
    """The positions of noise ``(n, 1, d)`` after each step, ``(steps + 1, n, d)``."""
    from fm_science.solvers import RK4

    states = flow.trajectory(x0, Context.full(len(x0)), solver or RK4(), steps)
    return torch.stack([x0, *states])[:, :, 0]
