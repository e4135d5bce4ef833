"""The Gaussian path: signal fades in while noise fades out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.paths.bridge import Bridge, add_noise, deviation, noise_score, shrink, stir_noise
from fm_science.priors import Prior
from fm_science.state import expand_like


@dataclass(frozen=True)
class Gaussian(Bridge):
    """x_t = alpha(t) x1 + sigma(t) x0 on a linear space (Lipman et al. 2023; Albergo & Vanden-Eijnden 2023).

    With a Gaussian prior that is independent of the data, this is a diffusion (Song et al. 2021) and has a score. The
    noise x0 keeps the scale of the prior; the walk starts from the prior scaled by sigma(0).

    Raises TypeError on curved spaces and classes.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.space.linear:
            raise TypeError(f"a Gaussian path adds noise, and {self.space!r} is no linear space. Use Geodesic.")
        if self.context is None:
            alpha, sigma, _, _ = self.schedule.ends
            if alpha > 0.01 * sigma:
                warnings.warn(
                    f"{self.schedule!r} leaves a share {alpha:.3g} of the datum beside noise of scale {sigma:.3g} at "
                    "t = 0, where walks start from pure noise: centre the data, and see that they spread much less.",
                    stacklevel=3,
                )

    @property
    def singular(self) -> bool:
        return self.schedule.singular or (self.predicts.singular and self.schedule.ends[3] == 0)

    @property
    def std(self) -> float:
        """Standard deviation of a Normal prior."""
        return deviation(self)

    def sigma(self, t: Tensor) -> Tensor:
        return self.schedule(t)[1]

    def _rates(self, x: Tensor, t: Tensor) -> tuple[Any, ...]:
        return tuple(expand_like(value, x) for value in self.schedule.rates(t))

    def _levels(self, x: Tensor, t: Tensor) -> tuple[Any, ...]:
        return tuple(expand_like(value, x) for value in self.schedule(t))

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self._levels(x1, t)
        return self.space.project(alpha * x1 + sigma * x0)

    def endpoint_to_velocity(self, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = self._rates(x, t)
        return self.space.tangent(x, dsigma / sigma * (x - alpha * x1) + dalpha * x1)

    def target_velocity(self, x0: Tensor, x1: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """alpha' x1 + sigma' x0."""
        _, _, dalpha, dsigma = self._rates(x, t)
        return self.space.tangent(x, dalpha * x1 + dsigma * x0)

    def velocity_to_endpoint(self, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = self._rates(x, t)
        gain = dalpha * sigma - alpha * dsigma
        moving = gain > 0  # where the clock stands still the velocity does not tell the way
        reached = (sigma * u - dsigma * x) / torch.where(moving, gain, 1.0)
        return self.space.project(torch.where(moving, reached, x + expand_like(1 - t, x) * u))

    def step_to_endpoint(self, x: Tensor, x1hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Deterministic DDIM: alpha_s x1hat + (sigma_s / sigma_t) (x - alpha_t x1hat) (Song et al. 2021, eq. 12)."""
        (alpha, sigma), (later, rest) = self._levels(x, t), self._levels(x, s)
        return self.space.project(later * x1hat + rest / sigma * (x - alpha * x1hat))

    def step_along_velocity(self, x: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = self._rates(x, t)
        later, rest = self._levels(x, s)
        gain = dalpha * sigma - alpha * dsigma
        moving = gain > 0  # where the clock stands still the velocity does not tell the way
        gain = torch.where(moving, gain, 1.0)
        x1hat, x0hat = (sigma * u - dsigma * x) / gain, (dalpha * x - alpha * u) / gain
        return self.space.project(torch.where(moving, later * x1hat + rest * x0hat, x + expand_like(s - t, x) * u))

    def endpoint_to_noise(self, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The noise of the path that passes (x, t) towards ``x1``."""
        alpha, sigma = self._levels(x, t)
        return self.space.tangent(x, (x - alpha * x1) / sigma)

    def noise_to_endpoint(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The endpoint of the path that passes (x, t) with noise ``x0``."""
        alpha, sigma = self._levels(x, t)
        return self.space.project((x - sigma * x0) / alpha)

    def noise_to_velocity(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The velocity at (x, t) of the path with noise ``x0``."""
        alpha, sigma, dalpha, dsigma = self._rates(x, t)
        return self.space.tangent(x, dalpha / alpha * (x - sigma * x0) + dsigma * x0)

    def step_from_noise(self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """From (x, t) to time s along the path with noise ``x0``: DDIM without a division by sigma."""
        (alpha, sigma), (later, rest) = self._levels(x, t), self._levels(x, s)
        return self.space.project(later / alpha * (x - sigma * x0) + rest * x0)

    def score(self, raw: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return noise_score(self, self.predicts.noise(self, raw, x, t), x, self.sigma(t))

    def renoise_step(self, raw: Tensor, x: Tensor, t: Tensor, s: Tensor, keep: Tensor) -> Tensor:
        return stir_noise(self, raw, x, t, s, keep, self.schedule(s))

    def add_noise(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return add_noise(self, x, self.schedule(t), self.schedule(r))

    def start_before_end(self, x: Tensor, t: Tensor, independent: bool) -> tuple[Tensor, Tensor]:
        if not independent:
            return super().start_before_end(x, t, independent)
        return shrink(self, x, self.schedule(t)[0])

    def source(self, prior: Prior) -> Prior:
        sigma = self.schedule.ends[1]
        return prior if sigma == 1 else prior.scaled(sigma)
