"""Affine paths: on linear spaces a point is a weighted sum of datum and noise, and each can be told from the other.

Straight lines and diffusions are both of this kind. Where the noise is Gaussian and independent of the data, the score
has a closed form, and noise may be exchanged for fresh noise on the way.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.paths.bridge import Bridge
from fm_science.priors import Prior
from fm_science.state import State, add, expand_like, scale


@dataclass(frozen=True)
class AffinePath(Bridge):
    """x_t = alpha(t) x1 + sigma(t) x0 on a linear space (Lipman et al. 2024, section 4.8)."""

    affine = True

    @abstractmethod
    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t``, the weights of datum and noise, each ``(B,)``."""

    @abstractmethod
    def weights_and_rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(alpha, sigma, d alpha/dt, d sigma/dt)`` at ``t``, each ``(B,)``."""

    @property
    def std(self) -> float:
        """Standard deviation of a Normal prior. Raises TypeError for other laws."""
        std = None if self.prior is None else self.prior.coordinate_std
        if std is None:
            raise TypeError(f"{self!r} needs Normal noise, and its prior is {self.prior!r}.")
        return std

    @property
    def has_score(self) -> bool:
        return self.prior is not None and self.prior.gaussian

    def sigma(self, t: Tensor) -> Tensor:
        return self.weights(t)[1]

    def velocity_gain(self, t: Tensor) -> Tensor:
        """How far the endpoint moves when the velocity does, ``(B,)``."""
        alpha, sigma, dalpha, dsigma = self.weights_and_rates(t)
        gain = dalpha * sigma - alpha * dsigma
        moving = gain > 0  # where the clock stands still the velocity does not tell the way
        return torch.where(moving, sigma / torch.where(moving, gain, 1.0), 1 - t)

    def endpoint_to_noise(self, x: State, x1: State, t: Tensor) -> State:
        alpha, sigma = self.weights(t)
        return self.space.tangent(x, scale(1 / sigma, add(x, scale(-alpha, x1))))

    def noise_to_endpoint(self, x: State, x0: State, t: Tensor) -> State:
        alpha, sigma = self.weights(t)
        return self.space.project(scale(1 / alpha, add(x, scale(-sigma, x0))))

    def noise_to_velocity(self, x: State, x0: State, t: Tensor) -> State:
        alpha, sigma, dalpha, dsigma = self.weights_and_rates(t)
        return self.space.tangent(x, add(scale(dalpha / alpha, add(x, scale(-sigma, x0))), scale(dsigma, x0)))

    def step_from_noise(self, x: State, x0: State, t: Tensor, s: Tensor) -> State:
        """DDIM without a division by sigma."""
        (alpha, sigma), (later, rest) = self.weights(t), self.weights(s)
        return self.space.project(add(scale(later / alpha, add(x, scale(-sigma, x0))), scale(rest, x0)))

    def score(self, raw: State, x: State, t: Tensor) -> State:
        """-E[x0 | x_t] / (sigma std²) for Normal noise: the gradient of the prior's log-density at E[x0 | x_t], over
        sigma."""
        prior = self.prior
        if prior is None or not prior.gaussian:
            raise TypeError(f"{self!r} has no score: it needs a Gaussian prior, and its prior is {prior!r}.")
        x0 = self.predicts.noise(self, raw, x, t)
        gradient = torch.func.grad(lambda y: prior.log_prob(self.space, y).sum())(x0)
        return self.space.tangent(x, scale(1 / self.sigma(t), gradient))

    def renoise_step(self, raw: Tensor, x: Tensor, t: Tensor, s: Tensor, keep: Tensor) -> Tensor:
        """x_s = alpha(s) x1hat + sigma(s) (keep x0hat + sqrt(1 - keep²) fresh): DDIM with noise (Song et al. 2021, eq.
        12)."""
        fresh, (alpha, sigma) = self.noise(x), self.weights(s)
        share = (1 - keep * keep).clamp_min(0).sqrt()
        noise = expand_like(keep, x) * self.predicts.noise(self, raw, x, t) + expand_like(share, x) * fresh
        return self.space.project(expand_like(alpha, x) * self.endpoint(raw, x, t) + expand_like(sigma, x) * noise)

    def add_noise(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        (alpha, sigma), (back, more) = self.weights(t), self.weights(r)
        ratio = torch.where(alpha > 0, back / torch.where(alpha > 0, alpha, 1.0), 1.0)
        missing = (more * more - (ratio * sigma).square()).clamp_min(0).sqrt()
        return self.space.project(expand_like(ratio, x) * x + expand_like(missing, x) * self.noise(x))

    def start_before_end(self, x: State, t: Tensor, independent: bool) -> tuple[State, Tensor]:
        """alpha x, and the log-density that this contraction adds, for data with very little noise."""
        if not independent:
            return super().start_before_end(x, t, independent)
        alpha = self.weights(t)[0]
        return self.space.project(scale(alpha, x)), self.space.dimension.to(alpha.dtype) * alpha.log()


@dataclass(frozen=True)
class Gaussian(AffinePath):
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

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule(t)

    def weights_and_rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.schedule.rates(t)

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (expand_like(w, x1) for w in self.weights(t))
        return self.space.project(alpha * x1 + sigma * x0)

    def endpoint_to_velocity(self, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = (expand_like(w, x) for w in self.weights_and_rates(t))
        return self.space.tangent(x, dsigma / sigma * (x - alpha * x1) + dalpha * x1)

    def target_velocity(self, x0: Tensor, x1: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """alpha' x1 + sigma' x0."""
        _, _, dalpha, dsigma = (expand_like(w, x) for w in self.weights_and_rates(t))
        return self.space.tangent(x, dalpha * x1 + dsigma * x0)

    def velocity_to_endpoint(self, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = (expand_like(w, x) for w in self.weights_and_rates(t))
        gain = dalpha * sigma - alpha * dsigma
        moving = gain > 0  # where the clock stands still the velocity does not tell the way
        reached = (sigma * u - dsigma * x) / torch.where(moving, gain, 1.0)
        return self.space.project(torch.where(moving, reached, x + expand_like(1 - t, x) * u))

    def step_to_endpoint(self, x: Tensor, x1hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Deterministic DDIM: alpha_s x1hat + (sigma_s / sigma_t) (x - alpha_t x1hat) (Song et al. 2021, eq. 12)."""
        (alpha, sigma), (later, rest) = ([expand_like(w, x) for w in self.weights(r)] for r in (t, s))
        return self.space.project(later * x1hat + rest / sigma * (x - alpha * x1hat))

    def step_along_velocity(self, x: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = (expand_like(w, x) for w in self.weights_and_rates(t))
        later, rest = (expand_like(w, x) for w in self.weights(s))
        gain = dalpha * sigma - alpha * dsigma
        moving = gain > 0  # where the clock stands still the velocity does not tell the way
        gain = torch.where(moving, gain, 1.0)
        x1hat, x0hat = (sigma * u - dsigma * x) / gain, (dalpha * x - alpha * u) / gain
        return self.space.project(torch.where(moving, later * x1hat + rest * x0hat, x + expand_like(s - t, x) * u))

    def source(self, prior: Prior) -> Prior:
        sigma = self.schedule.ends[1]
        return prior if sigma == 1 else prior.scaled(sigma)
