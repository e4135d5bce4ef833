"""Bridges: paths on one space known through the drift towards an endpoint."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.paths.base import Path, value_and_rate
from fm_science.predictions import Prediction, Velocity
from fm_science.priors import Prior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.base import Space
from fm_science.state import Context, expand_like, scale


@dataclass(frozen=True)
class Bridge(Path):
    """A path on one leaf space that is known through the drift towards an endpoint.

    Args:
        space: where the path lives.
        schedule: its clock.
        predicts: what the network's output means. Raises TypeError where it means nothing on this space.
    """

    space: Space
    schedule: Schedule = Linear()
    predicts: Prediction = Velocity()
    prior: Prior | None = field(default=None, repr=False, compare=False)
    context: Context | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.predicts.check(self.space)
        if self.steep and not self.predicts.schedule_free:
            right = "Endpoint()" if self.space.smooth else "Posterior()"
            raise ValueError(
                f"{self.predicts!r} is infinite at t = 0 with {self.schedule!r}: use predicts={right}, or a schedule "
                "whose rate is finite there, such as Polynomial(1.0)."
            )

    @abstractmethod
    def endpoint_to_velocity(self, x: Any, x1: Any, t: Tensor) -> Any:
        """The velocity at (x, t) of the path that ends at ``x1``."""

    def target_velocity(self, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        """The velocity at ``x`` = sample(x0, x1, t) of the path that joins ``x0`` and ``x1``: the drift, computed from
        both ends where that is more accurate or costs less."""
        return self.endpoint_to_velocity(x, x1, t)

    def sample_with_velocity(self, x0: Any, x1: Any, t: Tensor) -> tuple[Any, Any]:
        """The point at time t and the velocity there: :meth:`sample` and :meth:`target_velocity` in one, for training loops of
        your own; it costs less where the two share work."""
        x = self.sample(x0, x1, t)
        return x, self.target_velocity(x0, x1, x, t)

    @abstractmethod
    def velocity_to_endpoint(self, x: Any, u: Any, t: Tensor) -> Any:
        """The endpoint of the path that passes (x, t) with velocity ``u``; the inverse of :meth:`endpoint_to_velocity`."""

    @abstractmethod
    def step_to_endpoint(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the path that ends at ``x1hat``: exact, at most one whole way, never singular."""

    @abstractmethod
    def step_along_velocity(self, x: Any, u: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the path that passes there with velocity ``u``."""

    @property
    def outputs(self) -> tuple[int, ...] | None:
        return self.predicts.shape(self.space)

    def relative_rate(self, t: Tensor) -> Tensor:
        """k' / (1 - k), the rate at which the remaining way shrinks; infinite at t = 1."""
        left, rate = value_and_rate(self.schedule.remaining, t)
        return -rate / left

    def sigma(self, t: Tensor) -> Tensor:
        """The weight of the noise in x_t, ``(B,)``."""
        return self.schedule.remaining(t)

    @property
    def singular(self) -> bool:
        return self.predicts.singular

    @property
    def steep(self) -> bool:
        return self.schedule.steep and self.space.smooth

    @property
    def has_score(self) -> bool:
        if self.space.linear:
            return self.prior is not None and self.prior.gaussian
        return not self.space.smooth and self.class_probabilities is not None

    @property
    def class_probabilities(self) -> Tensor | None:
        """Probabilities of the classes under the prior, ``(classes,)``; ``None`` where they are not known."""
        known = getattr(self.prior, "probabilities", None)
        return None if known is None else torch.as_tensor(known)

    def noise(self, x: Tensor) -> Tensor:
        """A fresh draw of the prior, like ``x``."""
        if not self.has_score:
            raise TypeError(self._unscored())
        return self.prior.sample(self.space, self.context).to(x)  # type: ignore

    def bind(self, context: Context, prior: Prior | None = None) -> Bridge:
        return replace(self, space=self.space.bind(context), prior=prior, context=context)

    def loss(self, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        return self.predicts.loss(self, raw, x0, x1, x, t)

    def velocity(self, raw: Any, x: Any, t: Tensor) -> Any:
        return self.predicts.velocity(self, raw, x, t)

    def endpoint(self, raw: Any, x: Any, t: Tensor) -> Any:
        return self.predicts.endpoint(self, raw, x, t)

    def step(self, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        return self.predicts.step(self, raw, x, t, s)

    def check(self, times: Tensor) -> None:
        if not self.predicts.defined_at_zero_signal and float(times.min()) == 0 and self.schedule.ends[0] == 0:
            raise ValueError(
                f"{self.predicts!r} says nothing about the datum at t = 0, where {self.schedule!r} has no signal. Give "
                "`steps` as a tensor of times that starts later, or predict Velocity() or Endpoint()."
            )

    def check_compatible(self, trained: Path) -> None:
        old = getattr(trained, "schedule", self.schedule)
        if old != self.schedule and not self.predicts.schedule_free:
            raise TypeError(
                f"the output of this network means {self.predicts!r} on {old!r} only; with {self.schedule!r} it would "
                "be wrong. Wrap it as Rescheduled(network, old, new) on a Gaussian path, or train Endpoint()."
            )


def whole_way(path: Bridge) -> None:
    """Raises ValueError for a path that leaves the noise or reaches the datum only in part."""
    start, _, end, _ = path.schedule.ends if path.context is None else (0.0, 0.0, 1.0, 0.0)
    if abs(start) > 1e-9 or abs(end - 1) > 1e-9:
        kind = {"Geodesic": "a geodesic"}.get(type(path).__name__, "this path")
        raise ValueError(
            f"{kind} goes all the way from noise to data, but alpha of {path.schedule!r} goes from {start:.3g} "
            f"to {end:.3g}. Use Linear(), or a Gaussian path."
        )


def deviation(path: Bridge) -> float:
    """The standard deviation of a path's Normal prior. Raises TypeError for other laws."""
    if not hasattr(path.prior, "std") or not path.prior.gaussian:  # type: ignore
        raise TypeError(f"{path!r} needs Normal noise, and its prior is {path.prior!r}.")
    return path.prior.std  # type: ignore


def noise_score(path: Any, x0: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
    """The score of x_t from E[x0 | x_t] for Gaussian x0 that is independent of the data: the gradient of the prior's
    log-density there, over sigma."""
    if not path.has_score:
        raise TypeError(f"{path!r} has no score: it needs a Gaussian prior, and its prior is {path.prior!r}.")
    gradient = torch.func.grad(lambda y: path.prior.log_prob(path.space, y).sum())(x0)
    return path.space.tangent(x, scale(1 / sigma, gradient))


def stir_noise(
    path: Any, raw: Tensor, x: Tensor, t: Tensor, s: Tensor, keep: Tensor, ends: tuple[Tensor, Tensor]
) -> Tensor:
    """x_s = alpha(s) x1hat + sigma(s) (keep x0hat + sqrt(1 - keep²) fresh): DDIM with noise (Song et al. 2021, eq.
    12). ``ends`` is alpha and sigma at s."""
    alpha, sigma = ends
    share = (1 - keep * keep).clamp_min(0).sqrt()
    noise = expand_like(keep, x) * path.predicts.noise(path, raw, x, t) + expand_like(share, x) * path.noise(x)
    return path.space.project(expand_like(alpha, x) * path.endpoint(raw, x, t) + expand_like(sigma, x) * noise)


def add_noise(path: Any, x: Tensor, now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> Tensor:
    """x_r from x_t for an earlier r by adding what noise is missing; ``now`` and ``then`` are (alpha, sigma)."""
    (alpha, sigma), (back, more) = now, then
    ratio = torch.where(alpha > 0, back / torch.where(alpha > 0, alpha, 1.0), 1.0)
    missing = (more * more - (ratio * sigma).square()).clamp_min(0).sqrt()
    return path.space.project(expand_like(ratio, x) * x + expand_like(missing, x) * path.noise(x))


def shrink(path: Any, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """alpha x, and the log-density that this contraction adds, for data with very little noise."""
    return path.space.project(expand_like(alpha, x) * x), path.space.dimension.to(x.dtype) * alpha.log()
