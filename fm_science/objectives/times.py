"""At which times a network is trained, and how much each time counts.

A law of times is any callable from a number n to n times in [0, 1); a weight is any callable from times to weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.schedules import Linear, Schedule

LAST = 1 - 1e-5  #: the latest time that is ever drawn


@dataclass(frozen=True)
class UniformTime:
    """Uniform on [low, high)."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, n: int) -> Tensor:
        return torch.empty(n).uniform_(self.low, self.high).clamp_(max=LAST)


@dataclass(frozen=True)
class Stratified:
    """Uniform, one draw in each of n equal intervals: less variance for the same law (Kingma et al. 2021)."""

    def __call__(self, n: int) -> Tensor:
        return ((torch.randperm(n) + torch.rand(n)) / n).clamp(max=LAST)


@dataclass(frozen=True)
class BetaTime:
    """The beta law; (1.9, 1) favours late times (Geffner et al. 2025)."""

    a: float = 1.9
    b: float = 1.0

    def __call__(self, n: int) -> Tensor:
        return torch.distributions.Beta(self.a, self.b).sample((n,)).clamp(max=LAST)


@dataclass(frozen=True)
class LogitNormalTime:
    """The logistic function of a Gaussian of mean m and standard deviation s: favours the middle (Esser et al. 2024,
    section 3.1)."""

    m: float = 0.0
    s: float = 1.0

    def __call__(self, n: int) -> Tensor:
        return torch.sigmoid(self.m + self.s * torch.randn(n)).clamp(max=LAST)


@dataclass(frozen=True)
class ChainTime:
    """The times 1 - k / steps of a discrete chain, k from 1 to ``steps``, equally likely (Ho et al. 2020, algorithm
    1)."""

    steps: int = 1000

    def __call__(self, n: int) -> Tensor:
        return 1 - torch.randint(1, self.steps + 1, (n,)) / self.steps


@dataclass(frozen=True)
class Mixture:
    """Times from ``second`` with probability ``share``, else from ``first``."""

    first: Callable[[int], Tensor]
    second: Callable[[int], Tensor]
    share: float = 0.02

    def __call__(self, n: int) -> Tensor:
        return torch.where(torch.rand(n) < self.share, self.second(n), self.first(n))


@dataclass(frozen=True)
class InverseSquare:
    """The weight 1 / max(1 - alpha(t), 1 - until)², which turns an endpoint error into a velocity error, bounded near
    the data (Yim et al. 2023).

    Args:
        until: the part of the way from which the weight stays as it is.
        schedule: the clock of the path.
    """

    until: float = 0.9
    schedule: Schedule = Linear()

    def __call__(self, t: Tensor) -> Tensor:
        return 1 / self.schedule.remaining(t).clamp(min=1 - self.until).square()
