"""Schedules: how much signal and how much noise there is at each time.

A schedule maps t in [0, 1] (0 is noise, 1 is data) to alpha(t), the weight of the data point, and sigma(t), the weight
of the noise. Derivatives need not be written by hand: they come from forward-mode differentiation. Geodesic paths take
alpha as the fraction of the geodesic that is done, so for them it must run from 0 to 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.declarations import derived


class Schedule(ABC):
    """A pair of functions of time, alpha (signal) and sigma (noise), with alpha / sigma increasing."""

    singular: bool = False  #: whether a derivative is infinite at t = 1
    is_linear: bool = False  #: whether alpha is t itself
    steep: bool = False  #: whether a derivative is infinite at t = 0

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``t`` ``(B,)`` to ``(alpha, sigma)``, each ``(B,)``."""

    def remaining(self, t: Tensor) -> Tensor:
        """1 - alpha(t) ``(B,)``, the remaining fraction of the path; accurate near t = 1 where the difference is
        not."""
        return 1 - self(t)[0]

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(alpha, sigma, d alpha/dt, d sigma/dt)`` at ``t`` ``(B,)``."""
        (alpha, sigma), (dalpha, dsigma) = torch.func.jvp(self, (t.clone(),), (torch.ones_like(t),))[:2]
        return alpha, sigma, dalpha, dsigma

    def time(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The time ``(B,)`` at which the ratio of signal to noise is that of ``alpha`` and ``sigma`` ``(B,)``; the
        nearer end if it is never reached. By bisection, to machine precision."""
        low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
        for _ in range(2 - math.frexp(torch.finfo(alpha.dtype).eps)[1]):
            middle = 0.5 * (low + high)
            signal, noise = self(middle)
            early = signal * sigma < alpha * noise
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return high

    @property
    def ends(self) -> tuple[float, float, float, float]:
        """alpha(0), sigma(0), alpha(1), sigma(1)."""
        alpha, sigma = self(torch.tensor([0.0, 1.0], dtype=torch.float64))
        return float(alpha[0]), float(sigma[0]), float(alpha[1]), float(sigma[1])


@dataclass(frozen=True)
class Linear(Schedule):
    """alpha = t, sigma = 1 - t: straight lines (Liu et al. 2023; Lipman et al. 2023)."""

    is_linear = True

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        one = torch.ones_like(t)  # used in every training step, where differentiation would be expensive
        return t, 1 - t, one, -one

    def time(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / (alpha + sigma)


@dataclass(frozen=True)
class LipmanOT(Schedule):
    """alpha = t, sigma = 1 - (1 - sigma_min) t: a little noise stays on the data (Lipman et al. 2023, eq. 20).

    Args:
        sigma_min: the noise at t = 1, positive.
    """

    sigma_min: float = 1e-4

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - (1 - self.sigma_min) * t


@dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha = t^p, sigma = 1 - t^p; p > 1 stays near the noise for longer. With p < 1 the derivative is infinite at t =
    0: then predict Endpoint() or Posterior(), and integrate with Euler().

    Args:
        p: power. Raises ValueError unless it is positive.
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise ValueError(f"Polynomial(p={self.p}): the power must be positive.")

    @derived
    def steep(self) -> bool:
        return self.p < 1

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t**self.p, 1 - t**self.p

    def time(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha / (alpha + sigma)) ** (1 / self.p)


@dataclass(frozen=True)
class Trigonometric(Schedule):
    """alpha = sin(pi t/2), sigma = cos(pi t/2): keeps the variance of unit data (Albergo & Vanden-Eijnden 2023)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sin(0.5 * math.pi * t), torch.sin(0.5 * math.pi * (1 - t))  # the cosine, exactly zero at t = 1

    def remaining(self, t: Tensor) -> Tensor:
        return 2 * torch.sin(0.25 * math.pi * (1 - t)).square()

    def time(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return torch.atan2(alpha, sigma) / (0.5 * math.pi)


@dataclass(frozen=True)
class Exponential(Schedule):
    """alpha = (1 - exp(-rate t)) / (1 - exp(-rate)), sigma = 1 - alpha: most of the path is done early.

    As the schedule of rotations at sampling it is the annealing of FrameFlow (Yim et al. 2023, rate 10), normalised so
    that the integration ends exactly at t = 1.

    Args:
        rate: decay rate per unit of time, positive.
    """

    rate: float = 10.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.expm1(-self.rate * t) / math.expm1(-self.rate), self.remaining(t)

    def remaining(self, t: Tensor) -> Tensor:
        late = torch.exp(-self.rate * t)  # a growing exponential would overflow
        return late * torch.expm1(-self.rate * (1 - t)) / math.expm1(-self.rate)


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha = cos(a) / cos(b), sigma² = 1 - alpha², with a = (1 - t + offset) / (1 + offset) pi/2 and b the value of a
    at t = 1 (Nichol & Dhariwal 2021, eq. 17).

    Args:
        offset: keeps the last steps from being too small, positive.
    """

    offset: float = 0.008
    singular = True

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        scale = 0.5 * math.pi / (1 + self.offset)
        final, rest = scale * self.offset, scale * (1 - t)  # b and a - b
        # cos² b - cos² a = sin(a - b) sin(a + b), which does not cancel near t = 1
        square = torch.sin(rest) * torch.sin(rest + 2 * final)
        return torch.sin(scale * t) / math.cos(final), square.sqrt() / math.cos(final)

    def remaining(self, t: Tensor) -> Tensor:
        alpha, sigma = self(t)
        return sigma * sigma / (1 + alpha)


@dataclass(frozen=True)
class VP(Schedule):
    """The variance-preserving diffusion (Ho et al. 2020; Song et al. 2021, eq. 29 and 33): with r = 1 - t,
    b = r beta_min + r² (beta_max - beta_min) / 2, alpha = exp(-b/2), sigma² = 1 - exp(-b).

    Args:
        beta_min, beta_max: rates of the diffusion at the data and at the noise.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    singular = True

    def _integral(self, t: Tensor) -> Tensor:
        rest = 1 - t
        return rest * (self.beta_min + 0.5 * rest * (self.beta_max - self.beta_min))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = self._integral(t)
        return torch.exp(-0.5 * b), (-torch.expm1(-b)).sqrt()

    def remaining(self, t: Tensor) -> Tensor:
        return -torch.expm1(-0.5 * self._integral(t))


@dataclass(frozen=True)
class SubVP(VP):
    """As :class:`VP` with the square of its noise: sigma = 1 - exp(-b) (Song et al. 2021, eq. 34)."""

    singular = False

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = self._integral(t)
        return torch.exp(-0.5 * b), -torch.expm1(-b)


@dataclass(frozen=True)
class Betas(Schedule):
    """The chain of DDPM, the discrete relative of :class:`VP` (Ho et al. 2020, section 4): step k multiplies the data
    point by sqrt(1 - beta_k) and adds noise of variance beta_k, with betas in equal steps from ``first`` to ``last``.
    Time t = 1 - k / steps is after k of them; in between the log of alpha is linear.

    Args:
        steps: length of the chain.
        first, last: betas next to the data and next to the noise, in (0, 1). Raises ValueError otherwise.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    singular = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not (0 < self.first < 1 and 0 < self.last < 1):
            raise ValueError(f"{self!r}: expected at least one step and betas between 0 and 1.")

    def _log_alpha(self, t: Tensor) -> Tensor:
        beta = torch.linspace(self.first, self.last, self.steps, dtype=torch.float64, device=t.device)
        rates = 0.5 * torch.log1p(-beta)
        done = (1 - t.double()) * self.steps
        k = done.detach().floor().long().clamp(0, self.steps - 1)
        whole = rates.cumsum(0)[k] - rates[k]
        return (whole + (done - k) * rates[k]).to(t.dtype)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self._log_alpha(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).clamp_min(0).sqrt()

    def remaining(self, t: Tensor) -> Tensor:
        return -torch.expm1(self._log_alpha(t))


@dataclass(frozen=True)
class VE(Schedule):
    """The variance-exploding diffusion (Song et al. 2021, eq. 30): alpha = 1, sigma from sigma_max at t = 0 to
    sigma_min at t = 1 in equal ratios. The data point is still visible at t = 0: centre the data, and let sigma_max be
    much larger than their standard deviation.

    Args:
        sigma_min, sigma_max: noise at t = 1 and t = 0, in the units of the data for a prior of unit scale.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_min * torch.exp(math.log(self.sigma_max / self.sigma_min) * (1 - t))

    def time(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        rest = torch.log(sigma / (alpha * self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)
        return (1 - rest).clamp(0, 1)
