"""Bridges: paths on one space known through the drift towards an endpoint."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace

from torch import Tensor

from fm_science.declarations import derived
from fm_science.paths.base import Path, value_and_rate
from fm_science.predictions import Prediction, Velocity
from fm_science.priors import Prior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.base import BoundLeaf, Space
from fm_science.state import Context, State, tree_map


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
        if self.context is not None:  # a bound copy was checked already
            return
        self.predicts.check(self.space)
        if self.steep and not self.predicts.schedule_free:
            right = "Endpoint()" if self.space.smooth else "Posterior()"
            raise ValueError(
                f"{self.predicts!r} is infinite at t = 0 with {self.schedule!r}: use predicts={right}, or a schedule "
                "whose rate is finite there, such as Polynomial(1.0)."
            )

    @abstractmethod
    def endpoint_to_velocity(self, x: State, x1: State, t: Tensor) -> State:
        """The velocity at (x, t) of the path that ends at ``x1``."""

    def target_velocity(self, x0: State, x1: State, x: State, t: Tensor) -> State:
        """The velocity at ``x`` = sample(x0, x1, t) of the path that joins ``x0`` and ``x1``: the drift, computed from
        both ends where that is more accurate or costs less."""
        return self.endpoint_to_velocity(x, x1, t)

    def sample_with_velocity(self, x0: State, x1: State, t: Tensor) -> tuple[State, State]:
        """The point at time t and the velocity there: :meth:`sample` and :meth:`target_velocity` in one, for training
        loops of your own; it costs less where the two share work."""
        x = self.sample(x0, x1, t)
        return x, self.target_velocity(x0, x1, x, t)

    @abstractmethod
    def velocity_to_endpoint(self, x: State, u: State, t: Tensor) -> State:
        """The endpoint of the path that passes (x, t) with velocity ``u``: :meth:`endpoint_to_velocity` inverted."""

    @abstractmethod
    def step_to_endpoint(self, x: State, x1hat: State, t: Tensor, s: Tensor) -> State:
        """From (x, t) to time s along the path that ends at ``x1hat``: exact, at most one whole way, never singular."""

    @abstractmethod
    def step_along_velocity(self, x: State, u: State, t: Tensor, s: Tensor) -> State:
        """From (x, t) to time s along the path that passes there with velocity ``u``."""

    def endpoint_to_noise(self, x: State, x1: State, t: Tensor) -> State:
        """The noise of the path that passes (x, t) towards ``x1``, on affine paths."""
        raise TypeError(self._no_noise())

    def noise_to_endpoint(self, x: State, x0: State, t: Tensor) -> State:
        """The endpoint of the path that passes (x, t) with noise ``x0``, on affine paths."""
        raise TypeError(self._no_noise())

    def noise_to_velocity(self, x: State, x0: State, t: Tensor) -> State:
        """The velocity at (x, t) of the path with noise ``x0``, on affine paths."""
        raise TypeError(self._no_noise())

    def step_from_noise(self, x: State, x0: State, t: Tensor, s: Tensor) -> State:
        """From (x, t) to time s along the path with noise ``x0``, on affine paths."""
        raise TypeError(self._no_noise())

    @property
    def std(self) -> float:
        """Standard deviation of a Normal prior, on affine paths. Raises TypeError for other laws."""
        raise TypeError(self._no_noise())

    def _no_noise(self) -> str:
        return f"{self!r}: only linear spaces carry noise that is added. Use Velocity() or Endpoint()."

    @property
    def outputs(self) -> tuple[int, ...] | None:
        return self.predicts.shape(self.space) if isinstance(self.space, BoundLeaf) else None

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

    @derived
    def predicts_endpoint(self) -> bool:
        return self.predicts.is_endpoint

    @derived
    def steep(self) -> bool:
        return self.schedule.steep and self.space.smooth

    @property
    def class_probabilities(self) -> Tensor | None:
        """Probabilities of the classes under the prior, ``(classes,)``; ``None`` where they are not known."""
        return None

    def noise(self, x: Tensor) -> Tensor:
        """A fresh draw of the prior, like ``x``."""
        if self.prior is None or self.context is None or not self.has_score:
            raise TypeError(self._unscored())
        return self.prior.sample(self.space, self.context).to(x)

    def noised(self, x1: State, r: Tensor) -> State:
        if self.prior is None or self.context is None:
            return super().noised(x1, r)
        x0 = self.source(self.prior).sample(self.space, self.context)
        return self.sample(tree_map(lambda y, like: y.to(like), x0, x1), x1, r)

    def bind(self, context: Context, prior: Prior | None = None) -> Bridge:
        return replace(self, space=self.space.bind(context), prior=prior, context=context)

    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        return self.predicts.loss(self, raw, x0, x1, x, t)

    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        return self.predicts.velocity(self, raw, x, t)

    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        return self.predicts.endpoint(self, raw, x, t)

    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return self.predicts.step(self, raw, x, t, s)

    def check(self, times: Tensor) -> None:
        if not self.predicts.defined_at_zero_signal and float(times.min()) == 0 and self.schedule.ends[0] == 0:
            raise ValueError(
                f"{self.predicts!r} says nothing about the datum at t = 0, where {self.schedule!r} has no signal. Give "
                "`steps` as a tensor of times that starts later, or predict Velocity() or Endpoint()."
            )

    def check_compatible(self, trained: Path) -> None:
        old = trained.schedule if isinstance(trained, Bridge) else self.schedule
        if old != self.schedule and not self.predicts.schedule_free:
            raise TypeError(
                f"the output of this network means {self.predicts!r} on {old!r} only; with {self.schedule!r} it would "
                "be wrong. Wrap it as Rescheduled(network, old, new) on a Gaussian path, or train Endpoint()."
            )


def require_whole_way(schedule: Schedule, path: str) -> None:
    """Raises ValueError for a schedule that leaves the noise or reaches the datum only in part."""
    start, _, end, _ = schedule.ends
    if abs(start) > 1e-9 or abs(end - 1) > 1e-9:
        raise ValueError(
            f"{path} goes all the way from noise to data, but alpha of {schedule!r} goes from {start:.3g} "
            f"to {end:.3g}. Use Linear(), or a Gaussian path."
        )
