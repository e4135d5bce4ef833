"""Bridges: paths on one space known through the drift towards an endpoint; and geodesics, the first of them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.paths.base import Path, slope
from fm_science.predictions import Prediction, Velocity
from fm_science.priors import Prior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.base import Space
from fm_science.state import Context, add, lift, scale


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

    @abstractmethod
    def drift(self, x: Any, x1: Any, t: Tensor) -> Any:
        """The velocity at (x, t) of the path that ends at ``x1``."""

    def motion(self, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        """The velocity at ``x`` = sample(x0, x1, t) of the path that joins ``x0`` and ``x1``: the drift, computed from
        both ends where that is more accurate or costs less."""
        return self.drift(x, x1, t)

    def trace(self, x0: Any, x1: Any, t: Tensor) -> tuple[Any, Any]:
        """The point at time t and the velocity there: :meth:`sample` and :meth:`motion` in one, for training loops of
        your own; it costs less where the two share work."""
        x = self.sample(x0, x1, t)
        return x, self.motion(x0, x1, x, t)

    @abstractmethod
    def landing(self, x: Any, u: Any, t: Tensor) -> Any:
        """The endpoint of the path that passes (x, t) with velocity ``u``; the inverse of :meth:`drift`."""

    @abstractmethod
    def advance(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the path that ends at ``x1hat``: exact, at most one whole way, never singular."""

    @abstractmethod
    def follow(self, x: Any, u: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the path that passes there with velocity ``u``."""

    def pace(self, t: Tensor) -> Tensor:
        """k' / (1 - k), the rate at which the remaining way shrinks; infinite at t = 1."""
        left, rate = slope(self.schedule.remaining, t)
        return -rate / left

    def level(self, t: Tensor) -> Tensor:
        """The weight of the noise in x_t, ``(B,)``."""
        return self.schedule.remaining(t)

    @property
    def singular(self) -> bool:
        return self.predicts.singular

    @property
    def scored(self) -> bool:
        if self.space.linear:
            return self.prior is not None and self.prior.gaussian
        return not self.space.smooth and self.chances is not None

    @property
    def chances(self) -> Tensor | None:
        """Probabilities of the classes under the prior, ``(classes,)``; ``None`` where they are not known."""
        known = getattr(self.prior, "probabilities", None)
        return None if known is None else torch.as_tensor(known)

    def noise(self, x: Tensor) -> Tensor:
        """A fresh draw of the prior, like ``x``."""
        if not self.scored:
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
        if not self.predicts.opens and float(times.min()) == 0 and self.schedule.ends[0] == 0:
            raise ValueError(
                f"{self.predicts!r} says nothing about the datum at t = 0, where {self.schedule!r} has no signal. Give "
                "`steps` as a tensor of times that starts later, or predict Velocity() or Endpoint()."
            )

    def suits(self, trained: Path) -> None:
        old = getattr(trained, "schedule", self.schedule)
        if old != self.schedule and not self.predicts.timeless:
            raise TypeError(
                f"the output of this network means {self.predicts!r} on {old!r} only; with {self.schedule!r} it would "
                "be wrong. Wrap it as Rescheduled(network, old, new) on a Gaussian path, or train Endpoint()."
            )


@dataclass(frozen=True)
class Geodesic(Bridge):
    """x_t = exp(x0, k(t) log(x0, x1)), k = alpha of the schedule (Chen & Lipman 2024, eq. 13).

    On linear spaces this is the straight line (Liu et al. 2023), on classes the mixture path (Gat et al. 2024).
    Raises ValueError for a schedule whose alpha does not run from 0 to 1, TypeError for a space without ``log``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_way(self)
        if not self.space.geodesic:
            raise TypeError(
                f"{self.space!r} knows no shortest way between two points, so it has no geodesic path. Use a path that "
                "descends a distance: Simulated(space, distance)."
            )

    def sample(self, x0: Any, x1: Any, t: Tensor) -> Any:
        k, _ = self.schedule(t)
        return self.space.exp(x0, scale(k, self.space.log(x0, x1)))

    def drift(self, x: Any, x1: Any, t: Tensor) -> Any:
        return scale(self.pace(t), self.space.log(x, x1))

    def motion(self, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        """k' log(x0, x1), carried to x. On curved spaces it is read off the way to the farther end, so that nothing is
        divided by a small number: k'/(1 - k) log(x, x1) for k < 1/2, and -k'/k log(x, x0) else."""
        if self.space.linear and self.schedule.steady:  # the hot path of training: k' is one
            return self.space.log(x0, x1)
        k, _, rate, _ = self.schedule.rates(t)
        if self.space.linear:
            return scale(rate, self.space.log(x0, x1))
        early = k < 0.5
        far = torch.where(lift(early, x), x1, x0)
        return scale(rate / torch.where(early, 1 - k, -k), self.space.log(x, far))

    def trace(self, x0: Any, x1: Any, t: Tensor) -> tuple[Any, Any]:
        if self.space.linear or not self.space.isometric:
            return super().trace(x0, x1, t)
        k, _, rate, _ = self.schedule.rates(t)
        x, u = self.space.coast(x0, self.space.log(x0, x1), k)
        return x, scale(rate, u)

    def landing(self, x: Any, u: Any, t: Tensor) -> Any:
        left, rate = slope(self.schedule.remaining, t)
        moving = rate < 0  # where the clock stands still the velocity does not tell the way
        return self.space.exp(x, scale(torch.where(moving, left / torch.where(moving, -rate, 1.0), 1 - t), u))

    def advance(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        fraction = 1 - self.schedule.remaining(s) / self.schedule.remaining(t)
        return self.space.exp(x, scale(fraction, self.space.log(x, x1hat)))

    def follow(self, x: Any, u: Any, t: Tensor, s: Tensor) -> Any:
        if not self.space.linear:  # the landing could lie beyond the injectivity radius
            return self.space.exp(x, scale(s - t, u))
        left, rate = slope(self.schedule.remaining, t)
        moving = rate < 0  # where the clock stands still the velocity does not tell the way
        time = torch.where(moving, (self.schedule.remaining(s) - left) / torch.where(moving, rate, -1.0), s - t)
        return self.space.exp(x, scale(time, u))

    def _flat(self) -> None:
        if not self.space.linear:
            raise TypeError(f"{self!r}: only linear spaces carry noise that is added. Use Velocity() or Endpoint().")

    @property
    def std(self) -> float:
        """Standard deviation of a Normal prior."""
        self._flat()
        return deviation(self)

    def noised(self, x: Any, x1: Any, t: Tensor) -> Any:
        """The noise of the straight line that passes (x, t) towards ``x1``."""
        self._flat()
        return self.space.tangent(x, scale(1 / self.schedule.remaining(t), add(x, scale(-self.schedule(t)[0], x1))))

    def denoised(self, x: Any, x0: Any, t: Tensor) -> Any:
        """The endpoint of the straight line that left ``x0``."""
        return self.depart(x, x0, t, torch.ones_like(t))

    def departure(self, x: Any, x0: Any, t: Tensor) -> Any:
        """The velocity at (x, t) of the straight line that left ``x0``."""
        self._flat()
        k, rate = slope(lambda r: self.schedule(r)[0], t)
        return scale(rate / k, self.space.log(x0, x))

    def depart(self, x: Any, x0: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the straight line that left ``x0``."""
        self._flat()
        return self.space.exp(x0, scale(self.schedule(s)[0] / self.schedule(t)[0], self.space.log(x0, x)))

    def score(self, raw: Any, x: Any, t: Tensor) -> Any:
        if not self.space.linear:
            raise TypeError(f"{self!r} has no score: geodesics on curved spaces and classes have none in closed form.")
        return noise_score(self, self.predicts.noise(self, raw, x, t), x, self.level(t))

    def stir(self, raw: Any, x: Any, t: Tensor, s: Tensor, keep: Tensor) -> Any:
        if not self.scored:
            raise TypeError(self._unscored())
        if self.space.linear:
            return stir_noise(self, raw, x, t, s, keep, (self.schedule(s)[0], self.schedule.remaining(s)))
        return self._stir_classes(raw, x, t, s, keep)

    def _stir_classes(self, raw: Tensor, x: Tensor, t: Tensor, s: Tensor, keep: Tensor) -> Tensor:
        """Renoising a share 1 - keep of the sites turns the share k of arrived ones into keep k; the jump to time s
        makes up for it. Exact in law for each site (Campbell et al. 2024; Gat et al. 2024, corrector)."""
        x1hat = self.endpoint(raw, x, t)
        y = self._renoise(x, keep)
        fraction = 1 - self.schedule.remaining(s) / (1 - keep * self.schedule(t)[0])
        return self.space.exp(y, scale(fraction, self.space.log(y, x1hat)))

    def _renoise(self, x: Tensor, keep: Tensor) -> Tensor:
        """Each site keeps its class with probability ``keep``, else it draws a new one from the prior."""
        return self.space.exp(x, scale(1 - keep, self.space.log(x, self.noise(x))))

    def rewind(self, x: Any, t: Tensor, r: Tensor) -> Any:
        if not self.scored:
            raise TypeError(self._unscored())
        k, back = self.schedule(t)[0], self.schedule(r)[0]
        if self.space.linear:
            return add_noise(self, x, (k, self.schedule.remaining(t)), (back, self.schedule.remaining(r)))
        return self._renoise(x, torch.where(k > 0, back / torch.where(k > 0, k, 1.0), 1.0))

    def outset(self, x: Any, t: Tensor, independent: bool) -> tuple[Any, Tensor]:
        if not (self.space.linear and independent):
            return super().outset(x, t, independent)
        return shrink(self, x, self.schedule(t)[0])


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
    if not path.scored:
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
    noise = lift(keep, x) * path.predicts.noise(path, raw, x, t) + lift(share, x) * path.noise(x)
    return path.space.project(lift(alpha, x) * path.endpoint(raw, x, t) + lift(sigma, x) * noise)


def add_noise(path: Any, x: Tensor, now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> Tensor:
    """x_r from x_t for an earlier r by adding what noise is missing; ``now`` and ``then`` are (alpha, sigma)."""
    (alpha, sigma), (back, more) = now, then
    ratio = torch.where(alpha > 0, back / torch.where(alpha > 0, alpha, 1.0), 1.0)
    missing = (more * more - (ratio * sigma).square()).clamp_min(0).sqrt()
    return path.space.project(lift(ratio, x) * x + lift(missing, x) * path.noise(x))


def shrink(path: Any, x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """alpha x, and the log-density that this contraction adds, for data with very little noise."""
    return path.space.project(lift(alpha, x) * x), path.space.dimension.to(x.dtype) * alpha.log()
