"""Geodesics: the shortest way from noise to datum, walked by a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.paths.base import value_and_rate
from fm_science.paths.bridge import Bridge, add_noise, deviation, noise_score, shrink, stir_noise, whole_way
from fm_science.state import add, expand_like, scale


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

    def endpoint_to_velocity(self, x: Any, x1: Any, t: Tensor) -> Any:
        return scale(self.relative_rate(t), self.space.log(x, x1))

    def target_velocity(self, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        """k' log(x0, x1), carried to x. On curved spaces it is read off the way to the farther end, so that nothing is
        divided by a small number: k'/(1 - k) log(x, x1) for k < 1/2, and -k'/k log(x, x0) else."""
        if self.space.linear and self.schedule.is_linear:  # the hot path of training: k' is one
            return self.space.log(x0, x1)
        k, _, rate, _ = self.schedule.rates(t)
        if self.space.linear:
            return scale(rate, self.space.log(x0, x1))
        early = k < 0.5
        far = torch.where(expand_like(early, x), x1, x0)
        return scale(rate / torch.where(early, 1 - k, -k), self.space.log(x, far))

    def sample_with_velocity(self, x0: Any, x1: Any, t: Tensor) -> tuple[Any, Any]:
        if self.space.linear or not self.space.isometric:
            return super().sample_with_velocity(x0, x1, t)
        k, _, rate, _ = self.schedule.rates(t)
        x, u = self.space.geodesic_flow(x0, self.space.log(x0, x1), k)
        return x, scale(rate, u)

    def velocity_to_endpoint(self, x: Any, u: Any, t: Tensor) -> Any:
        return self.space.exp(x, scale(self._lasts(t, torch.ones_like(t)), u))

    def step_to_endpoint(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        fraction = 1 - self.schedule.remaining(s) / self.schedule.remaining(t)
        return self.space.exp(x, scale(fraction, self.space.log(x, x1hat)))

    def step_along_velocity(self, x: Any, u: Any, t: Tensor, s: Tensor) -> Any:
        if not self.space.linear:  # the landing could lie beyond the injectivity radius
            return self.space.exp(x, scale(s - t, u))
        return self.space.exp(x, scale(self._lasts(t, s), u))

    def _lasts(self, t: Tensor, s: Tensor) -> Tensor:
        """How long the velocity at t lasts until s, ``(B,)``."""
        left, rate = value_and_rate(self.schedule.remaining, t)
        moving = rate < 0  # where the clock stands still the velocity does not tell the way
        return torch.where(moving, (self.schedule.remaining(s) - left) / torch.where(moving, rate, -1.0), s - t)

    def _flat(self) -> None:
        if not self.space.linear:
            raise TypeError(f"{self!r}: only linear spaces carry noise that is added. Use Velocity() or Endpoint().")

    @property
    def std(self) -> float:
        """Standard deviation of a Normal prior."""
        self._flat()
        return deviation(self)

    def endpoint_to_noise(self, x: Any, x1: Any, t: Tensor) -> Any:
        """The noise of the straight line that passes (x, t) towards ``x1``."""
        self._flat()
        return self.space.tangent(x, scale(1 / self.schedule.remaining(t), add(x, scale(-self.schedule(t)[0], x1))))

    def noise_to_endpoint(self, x: Any, x0: Any, t: Tensor) -> Any:
        """The endpoint of the straight line that left ``x0``."""
        return self.step_from_noise(x, x0, t, torch.ones_like(t))

    def noise_to_velocity(self, x: Any, x0: Any, t: Tensor) -> Any:
        """The velocity at (x, t) of the straight line that left ``x0``."""
        self._flat()
        k, rate = value_and_rate(lambda r: self.schedule(r)[0], t)
        return scale(rate / k, self.space.log(x0, x))

    def step_from_noise(self, x: Any, x0: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the straight line that left ``x0``."""
        self._flat()
        return self.space.exp(x0, scale(self.schedule(s)[0] / self.schedule(t)[0], self.space.log(x0, x)))

    def score(self, raw: Any, x: Any, t: Tensor) -> Any:
        if not self.space.linear:
            raise TypeError(f"{self!r} has no score: geodesics on curved spaces and classes have none in closed form.")
        return noise_score(self, self.predicts.noise(self, raw, x, t), x, self.sigma(t))

    def renoise_step(self, raw: Any, x: Any, t: Tensor, s: Tensor, keep: Tensor) -> Any:
        if not self.has_score:
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

    def add_noise(self, x: Any, t: Tensor, r: Tensor) -> Any:
        if not self.has_score:
            raise TypeError(self._unscored())
        k, back = self.schedule(t)[0], self.schedule(r)[0]
        if self.space.linear:
            return add_noise(self, x, (k, self.schedule.remaining(t)), (back, self.schedule.remaining(r)))
        return self._renoise(x, torch.where(k > 0, back / torch.where(k > 0, k, 1.0), 1.0))

    def start_before_end(self, x: Any, t: Tensor, independent: bool) -> tuple[Any, Tensor]:
        if not (self.space.linear and independent):
            return super().start_before_end(x, t, independent)
        return shrink(self, x, self.schedule(t)[0])
