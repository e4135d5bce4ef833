"""Schedules: how much signal and how much noise there is at each time.

A schedule maps t in [0, 1] (0 is noise, 1 is data) to alpha(t), the weight of the datum, and sigma(t), the weight of
the noise. Rates are never written by hand: they come from forward-mode differentiation. Geodesic paths read alpha as
the fraction of the way that is done.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Schedule(ABC):
    """A pair of functions of time, alpha (signal) and sigma (noise)."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``t`` ``(B,)`` to ``(alpha, sigma)``, each ``(B,)``."""

    def remaining(self, t: Tensor) -> Tensor:
        """1 - alpha(t) ``(B,)``, the part of the way still to go; accurate near t = 1 where the difference is not."""
        return 1 - self(t)[0]

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(alpha, sigma, d alpha/dt, d sigma/dt)`` at ``t`` ``(B,)``."""
        (alpha, sigma), (dalpha, dsigma) = torch.func.jvp(self, (t.clone(),), (torch.ones_like(t),))  # type: ignore[misc]
        return alpha, sigma, dalpha, dsigma


@dataclass(frozen=True)
class Linear(Schedule):
    """alpha = t, sigma = 1 - t: straight lines (Liu et al. 2023; Lipman et al. 2023)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t


@dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha = t^p, sigma = 1 - t^p; p > 1 stays near the noise for longer.

    Args:
        p: power, positive.
    """

    p: float = 2.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t**self.p, 1 - t**self.p


@dataclass(frozen=True)
class Trigonometric(Schedule):
    """alpha = sin(pi t/2), sigma = cos(pi t/2): keeps the variance of unit data (Albergo & Vanden-Eijnden 2023)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(0.5 * math.pi * t), torch.cos(0.5 * math.pi * t)

    def remaining(self, t: Tensor) -> Tensor:
        return 2 * torch.sin(0.25 * math.pi * (1 - t)).square()


@dataclass(frozen=True)
class Exponential(Schedule):
    """alpha = (1 - exp(-rate t)) / (1 - exp(-rate)), sigma = 1 - alpha: most of the way is done early.

    As the schedule of rotations at sampling it is the annealing of FrameFlow (Yim et al. 2023, rate 10), normalised so
    that the walk arrives exactly at t = 1.

    Args:
        rate: decay rate per unit of time, positive.
    """

    rate: float = 10.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.expm1(-self.rate * t) / math.expm1(-self.rate), self.remaining(t)

    def remaining(self, t: Tensor) -> Tensor:
        return torch.expm1(self.rate * (1 - t)) / math.expm1(self.rate)
