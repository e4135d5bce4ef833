"""Paths that descend a distance: for surfaces on which nobody knows the shortest way between two points.

All it takes is a distance to the datum that can be differentiated and has no other minimum (a premetric). The path
walks straight down it, at the speed that leaves the fraction 1 - k(t) of the first distance at time t. Where the
distance is the space's own, the path is the geodesic. The walk is simulated, so training costs as much as its steps;
the network that is learned is sampled like any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fm_science.paths.bridge import Bridge, require_whole_way
from fm_science.predictions import Prediction, Velocity
from fm_science.priors import Prior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.numerics import safe_norm
from fm_science.state import Context, expand_like, masked_where, scale

Distance = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class EmbeddingDistance(Protocol):
    """A distance that is Euclidean between the places of points in another space."""

    def embed(self, x: Tensor) -> Tensor:
        """The places ``(..., K)`` of points ``(..., *event)``."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances ``(...)``."""


TRIES = 2  #: shorter steps, each a quarter of the last, where one misses the distance that it aims at


@dataclass(frozen=True)
class Simulated(Bridge):
    """dx/dt = (d/dt log kappa) d grad d / |grad d|², d the distance from x to x1 and kappa = 1 - k(t), so that
    d(x_t, x1) = kappa(t) d(x0, x1) (Chen & Lipman 2024, eq. 13 to 15 and section 3.2).

    Each step aims at the distance that it should have, not at a rate, so that errors do not add up; a step that misses
    it is cut. Sites walk on their own. Gradients do not flow through a walk.

    Args:
        space: where the path lives; one whose sites are independent. Raises TypeError otherwise.
        distance: to a datum, for points of any leading axes: ``(..., *event), (..., *event) -> (...)``, such as
            :func:`~fm_science.spaces.spectral_distance`. ``None``: that of the space, where it has a ``log``.
        steps: of a whole walk; its error falls like one over their number.
        tolerance: warns where more than a twentieth of all walks end with a distance that is off by more than this
            part of the first one, as they do when the distance has more minima than one.
        schedule: its clock; alpha must run from 0 to 1. Raises ValueError otherwise.
        predicts: Velocity(), or Endpoint() where the space has a ``log``. Raises TypeError otherwise.
    """

    distance: Distance | None = None
    steps: int = 32
    tolerance: float = 0.1
    _: KW_ONLY
    schedule: Schedule = Linear()
    predicts: Prediction = Velocity()
    prior: Prior | None = field(default=None, repr=False, compare=False)
    context: Context | None = field(default=None, repr=False, compare=False)

    has_endpoint = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context is None:
            self._check()

    def _check(self) -> None:
        require_whole_way(self.schedule, "this path")
        if not self.space.smooth or self.space.parts or self.space.centred:
            raise TypeError(f"{self.space!r}: a simulated path moves each site on its own, on a smooth space.")
        if self.distance is None and not self.space.geodesic:
            raise TypeError(f"{self.space!r} knows no distance of its own here: Simulated(space, distance).")
        if not (self.predicts.defined_at_zero_signal and (self.space.geodesic or not self.predicts.singular)):
            raise TypeError(f"{self.predicts!r} has no meaning on {self!r}: use Velocity().")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: a walk needs at least one step.")

    @property
    def _leaf(self) -> Any:
        return self.space.leaf

    def _aim(self, y: Tensor) -> Tensor:
        """What a distance is measured from: the datum, or its place in the space where the distance is Euclidean."""
        return self.distance.embed(y) if isinstance(self.distance, EmbeddingDistance) else y

    def _measure(self, x: Tensor, aim: Tensor) -> Tensor:
        """The distance ``(P,)`` of single sites from what they aim at."""
        if isinstance(self.distance, EmbeddingDistance):
            return safe_norm(self.distance.embed(x) - aim).squeeze(-1)
        return (self.distance or self._leaf.distance)(x, aim)

    def descent(self, x: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
        """The distances ``(P,)`` of single sites, and d grad d / |grad d|², whose negative leads to the datum."""

        def total(z: Tensor) -> tuple[Tensor, Tensor]:
            d = self._measure(z, aim)
            return d.sum(), d

        slope, (_, d) = torch.func.grad_and_value(total, has_aux=True)(x)
        up = self._leaf.gradient(x, slope)
        square = expand_like(self._leaf.dot(x, up, up), up)
        level = square > torch.finfo(square.dtype).tiny  # at minima and maxima there is no way to go
        return d, torch.where(level, expand_like(d, up) / torch.where(level, square, 1.0) * up, 0.0)

    def _walk(self, x: Tensor, y: Tensor, left: Tensor) -> Tensor:
        """From ``x`` towards ``y`` until the part ``left`` ``(B,)`` of the distance is left."""
        live = self.space.free_mask
        with torch.inference_mode(False), torch.no_grad():
            ends = [z.detach().clone() for z in (x[live], y[live], expand_like(left, live).expand_as(live)[live])]
            moved = self._descend(*ends)
        out = x.detach().clone()
        out[live] = moved
        return masked_where(~(live & expand_like(left <= 0, live)), out, y)

    def _descend(self, x: Tensor, y: Tensor, left: Tensor) -> Tensor:
        """:meth:`_walk` of single sites, ``(P, *event)`` and ``(P,)``; those that have arrived drop out."""
        aim = self._aim(y)
        d, up = self.descent(x, aim)
        first = d.clone()
        for k in range(self.steps):
            rows = (left < 1 - k / self.steps).nonzero()[:, 0]
            if not len(rows):
                break
            goal = first[rows] * left[rows].clamp_min(1 - (k + 1) / self.steps)
            x[rows], d[rows], up[rows] = self._step(x[rows], aim[rows], d[rows], up[rows], goal)
        self._judge(d, left * first, first)
        return x

    def _step(self, x: Tensor, aim: Tensor, d: Tensor, up: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sites moved from distance ``d`` to ``goal``, with their new distance and descent."""
        away = (d - goal).clamp_min(0)
        u = scale(-away / torch.where(d > 0, d, 1.0), up)
        size = self._leaf.dot(x, u, u).clamp_min(torch.finfo(u.dtype).tiny).sqrt()
        u = scale((self._reach / size).clamp_max(1), u)
        new = self._leaf.exp(x, u)
        now, further = self.descent(new, aim)
        for _ in range(TRIES):
            rows = ((now > d + 0.5 * away) | (now < goal - 0.5 * away)).nonzero()[:, 0]
            if not len(rows):
                break
            u[rows] = 0.25 * u[rows]
            new[rows] = self._leaf.exp(x[rows], u[rows])
            now[rows], further[rows] = self.descent(new[rows], aim[rows])
        return new, now, further

    @property
    def _reach(self) -> float:
        """The longest step: half the side of a cube of the volume of the space."""
        return 0.5 * self._leaf.volume ** (1 / self._leaf.dimension)

    def _judge(self, d: Tensor, goal: Tensor, first: Tensor) -> None:
        missed = ((d - goal).abs() > self.tolerance * first).double().mean()
        if float(missed) > 0.05:
            warnings.warn(
                f"{100 * float(missed):.0f} % of the walks on {self._leaf!r} end at a wrong distance: the distance has "
                "minima beside the datum, or the steps are too few. Take a smoother distance, or more steps.",
                stacklevel=5,
            )

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return self._walk(x0, x1, self.schedule.remaining(t))

    def endpoint_to_velocity(self, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        here, there = (z.reshape(-1, *self._leaf.event) for z in (x, x1))
        up = self.descent(here, self._aim(there))[1]
        up = up.reshape(*x.shape[: x.ndim - len(self._leaf.event)], *up.shape[1:])
        return self.space.tangent(x, scale(-self.relative_rate(t), up))

    def velocity_to_endpoint(self, x: Tensor, u: Tensor, t: Tensor) -> Tensor:
        raise TypeError(
            f"{self!r}: a velocity does not tell where its walk will end. Ask for samples, or predict Endpoint()."
        )

    def step_to_endpoint(self, x: Tensor, x1hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self._walk(x, x1hat, self.schedule.remaining(s) / self.schedule.remaining(t))

    def step_along_velocity(self, x: Tensor, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.space.exp(x, scale(s - t, u))
