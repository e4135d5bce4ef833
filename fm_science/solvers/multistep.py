"""A multistep solver for geodesic paths: order two, up to a logarithm, for one evaluation a step, on any smooth space.

A network that predicts where a sample will end leaves little to integrate: towards a fixed endpoint, the path is known
exactly, and Euler's method here follows it. What it misses is that the prediction moves on during the step. The method
of Adams and Bashforth estimates that motion from the last two predictions, which costs nothing, and a few steps reach
what many reach without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from fm_science.paths import Geodesic, Path
from fm_science.schedules import Schedule
from fm_science.solvers.base import Predict, Solver
from fm_science.state import State, scale

Earlier = dict[str, tuple[State, Tensor]]  # by part: the endpoint that was predicted one step before, and when

#: nodes on [-1, 1] and weights of the quadrature of order 16
NODES = tuple(zip(*(values.tolist() for values in np.polynomial.legendre.leggauss(8)), strict=True))


@dataclass(frozen=True)
class Multistep(Solver):
    """An exponential Adams-Bashforth method of order two on geodesic paths, one evaluation per step (such methods:
    Hochbruck & Ostermann 2010; on Gaussian paths compare Lu et al. 2022). Errors fall as h² log(1/h).

    Towards a fixed endpoint a geodesic path is known exactly. The endpoint is taken to go on in time along the geodesic
    through its last two predictions at the same rate, and what counts for a step is its mean, weighted by how much of
    the remaining way each moment covers. The first step is that of Euler's method. Parts that jump, or that follow
    another path, are sampled as by Euler's method.

    Raises TypeError, before the first step, where no part follows a geodesic path on a smooth space.
    """

    order = 2
    splits = False

    def check(self, path: Path) -> None:
        if not any(_extrapolated(part) for part in _parts(path).values()):
            raise TypeError(
                f"{self!r} extrapolates endpoints along geodesics of smooth spaces, and {path!r} has none: use Euler()."
            )

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        return self.begin(path)(path, predict, x, t, h)

    def begin(self, path: Path) -> Callable[..., State]:
        earlier: Earlier = {}

        def step(path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> State:
            raw = predict(x, t)
            if not path.parts:
                return self._advance("", path, raw, x, t, t + h, earlier)
            return {k: self._advance(k, p, raw[k], x[k], t, t + h, earlier) for k, p in path.parts.items()}

        return step

    def _advance(
        self, name: str, path: Path, raw: State, x: State, t: Tensor, s: Tensor, earlier: Earlier
    ) -> State:  # fmt: skip
        """One step of a part; its endpoint and the time are stored in ``earlier``."""
        if not _extrapolated(path):
            return path.step(raw, x, t, s)
        end = ahead = path.endpoint(raw, x, t)
        if name in earlier:
            before, then = earlier[name]
            weight = _mean_moment(path.schedule, t, s) / (t - then)
            ahead = path.space.exp(end, scale(-weight, path.space.log(end, before)))
        earlier[name] = end, t
        return path.step_to_endpoint(x, ahead, t, s)


def _parts(path: Path) -> dict[str, Path]:
    return dict(path.parts) if path.parts else {"": path}


def _extrapolated(path: Path) -> TypeGuard[Geodesic]:
    """Whether endpoints of the path are points between which there is a geodesic."""
    return isinstance(path, Geodesic) and path.space.smooth


def _mean_moment(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """How long after t the way of the step to s is covered on average, ``(B,)``: with the remaining share R of the
    path, ((s - t) - integral of R(s) / R(r) over r) / (1 - R(s) / R(t)), by Gauss-Legendre quadrature."""
    final = schedule.remaining(s)

    def left(r: Tensor) -> Tensor:
        here = schedule.remaining(r)  # zero after a steep clock has arrived to within rounding
        return torch.where(here > 0, final / torch.where(here > 0, here, 1.0), 0.0)

    waits = sum((0.5 * weight * left(t + 0.5 * (1 + node) * (s - t)) for node, weight in NODES), torch.zeros_like(t))
    covered = 1 - left(t)
    mean = (s - t) * (1 - waits) / torch.where(covered > 0, covered, 1.0)
    return torch.where(covered > 0, mean, 0.5 * (s - t)).clamp(torch.zeros_like(t), s - t)
