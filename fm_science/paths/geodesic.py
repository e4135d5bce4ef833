"""Geodesics: the shortest way from noise to datum, walked by a clock.

On linear spaces that is a straight line, on classes the mixture path, elsewhere the geodesic of the space. All three
are one formula; they differ in what else is known of them. ``Geodesic(space, ...)`` is the door, and picks one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.paths.affine import AffinePath
from fm_science.paths.base import value_and_rate
from fm_science.paths.bridge import Bridge, require_whole_way
from fm_science.spaces.base import Space
from fm_science.state import State, expand_like, scale


@dataclass(frozen=True)
class Geodesic(Bridge):
    """x_t = exp(x0, k(t) log(x0, x1)), k = alpha of the schedule (Chen & Lipman 2024, eq. 13).

    On linear spaces this is the straight line (:class:`StraightPath`; Liu et al. 2023), on classes the mixture path
    (:class:`MixturePath`; Gat et al. 2024), on curved spaces :class:`GeodesicPath`: the space decides which of them is
    made. Raises ValueError for a schedule whose alpha does not run from 0 to 1, TypeError for a space without ``log``.
    """

    def __new__(cls, space: Space | None = None, *options: Any, **named: Any) -> Geodesic:
        return object.__new__(_kind(space) if cls is Geodesic and space is not None else cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None:
            require_whole_way(self.schedule, "a geodesic")
        if not self.space.geodesic:
            raise TypeError(
                f"{self.space!r} knows no shortest way between two points, so it has no geodesic path. Use a path that "
                "descends a distance: Simulated(space, distance)."
            )

    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        k, _ = self.schedule(t)
        return self.space.exp(x0, scale(k, self.space.log(x0, x1)))

    def endpoint_to_velocity(self, x: State, x1: State, t: Tensor) -> State:
        return scale(self.relative_rate(t), self.space.log(x, x1))

    def target_velocity(self, x0: State, x1: State, x: State, t: Tensor) -> State:
        """k' log(x0, x1), carried to x. It is read off the way to the farther end, so that nothing is divided by a
        small number: k'/(1 - k) log(x, x1) for k < 1/2, and -k'/k log(x, x0) else."""
        k, _, rate, _ = self.schedule.rates(t)
        early = k < 0.5
        far = torch.where(expand_like(early, x), x1, x0)
        return scale(rate / torch.where(early, 1 - k, -k), self.space.log(x, far))

    def velocity_to_endpoint(self, x: State, u: State, t: Tensor) -> State:
        return self.space.exp(x, scale(self._lasts(t, torch.ones_like(t)), u))

    def step_to_endpoint(self, x: State, x1hat: State, t: Tensor, s: Tensor) -> State:
        left = self.schedule.remaining(t)  # zero after a steep clock has arrived to within rounding
        fraction = 1 - self.schedule.remaining(s) / torch.where(left > 0, left, 1.0)
        return self.space.exp(x, scale(fraction, self.space.log(x, x1hat)))

    def step_along_velocity(self, x: State, u: State, t: Tensor, s: Tensor) -> State:
        return self.space.exp(x, scale(s - t, u))  # the landing could lie beyond the injectivity radius

    def _lasts(self, t: Tensor, s: Tensor) -> Tensor:
        """How long the velocity at t lasts until s, ``(B,)``."""
        left, rate = value_and_rate(self.schedule.remaining, t)
        moving = rate < 0  # where the clock stands still the velocity does not tell the way
        return torch.where(moving, (self.schedule.remaining(s) - left) / torch.where(moving, rate, -1.0), s - t)


@dataclass(frozen=True)
class StraightPath(Geodesic, AffinePath):
    """x_t = k x1 + (1 - k) x0 on a linear space: the geodesic that is affine (Liu et al. 2023)."""

    def weights(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule(t)[0], self.schedule.remaining(t)

    def weights_and_rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k, _, rate, _ = self.schedule.rates(t)
        return k, self.schedule.remaining(t), rate, -rate

    def target_velocity(self, x0: State, x1: State, x: State, t: Tensor) -> State:
        """k' log(x0, x1)."""
        way = self.space.log(x0, x1)
        if self.schedule.is_linear:  # the hot path of training: k' is one
            return way
        return scale(self.schedule.rates(t)[2], way)

    def step_along_velocity(self, x: State, u: State, t: Tensor, s: Tensor) -> State:
        return self.space.exp(x, scale(self._lasts(t, s), u))


@dataclass(frozen=True)
class GeodesicPath(Geodesic):
    """The geodesic of a curved space (Chen & Lipman 2024). It has no score in closed form."""

    def sample_with_velocity(self, x0: State, x1: State, t: Tensor) -> tuple[State, State]:
        if not self.space.isometric:
            return super().sample_with_velocity(x0, x1, t)
        k, _, rate, _ = self.schedule.rates(t)
        x, u = self.space.geodesic_flow(x0, self.space.log(x0, x1), k)
        return x, scale(rate, u)

    def score(self, raw: State, x: State, t: Tensor) -> State:
        raise TypeError(f"{self!r} has no score: geodesics on curved spaces have none in closed form.")


@dataclass(frozen=True)
class MixturePath(Geodesic):
    """Each site holds the datum's class with probability k(t), and else that of the noise (Campbell et al. 2024; Gat et
    al. 2024). Where the probabilities of the noise are known, classes may be drawn anew on the way."""

    @property
    def has_score(self) -> bool:
        return self.class_probabilities is not None

    @property
    def class_probabilities(self) -> Tensor | None:
        """Probabilities of the classes under the prior, ``(classes,)``; ``None`` where they are not known."""
        return None if self.prior is None else self.prior.class_probabilities

    def score(self, raw: State, x: State, t: Tensor) -> State:
        raise TypeError(f"{self!r} has no score: classes have no log-density to differentiate.")

    def renoise_step(self, raw: Tensor, x: Tensor, t: Tensor, s: Tensor, keep: Tensor) -> Tensor:
        """Renoising a share 1 - keep of the sites turns the share k of arrived ones into keep k; the jump to time s
        makes up for it. Exact in law for each site (Campbell et al. 2024; Gat et al. 2024, corrector)."""
        x1hat = self.endpoint(raw, x, t)
        y = self._renoise(x, keep)
        fraction = 1 - self.schedule.remaining(s) / (1 - keep * self.schedule(t)[0])
        return self.space.exp(y, scale(fraction, self.space.log(y, x1hat)))

    def add_noise(self, x: Tensor, t: Tensor, r: Tensor) -> Tensor:
        k, back = self.schedule(t)[0], self.schedule(r)[0]
        return self._renoise(x, torch.where(k > 0, back / torch.where(k > 0, k, 1.0), 1.0))

    def _renoise(self, x: Tensor, keep: Tensor) -> Tensor:
        """Each site keeps its class with probability ``keep``, else it draws a new one from the prior."""
        return self.space.exp(x, scale(1 - keep, self.space.log(x, self.noise(x))))


def _kind(space: Space) -> type[Geodesic]:
    """The geodesic path that belongs to a space."""
    if space.linear:
        return StraightPath
    return GeodesicPath if space.smooth else MixturePath
