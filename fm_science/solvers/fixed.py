"""Solvers with fixed steps: Euler, and Runge-Kutta methods that keep their order on curved spaces.

On a curved space all stages of a step are expressed in the tangent space at its start: a stage w represents the point
exp(x, w), and the velocity there is pulled back by the derivative of the logarithm. This needs steps shorter than the
injectivity radius (pi on spheres and rotations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver, pull_back, smooth_only
from fm_science.state import State, add, scale


@dataclass(frozen=True)
class Euler(Solver):
    """One evaluation per step: the prediction is fixed and the path followed exactly. With an endpoint prediction
    on a Gaussian path this is DDIM (Song et al. 2021); on classes it is tau-leaping with an exact endpoint. If smooth
    parts and classes are combined, a step is split and takes two evaluations."""

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        return path.step(predict(x, t), x, t, t + h)


@dataclass(frozen=True)
class Heun(Solver):
    """Two evaluations per step, order two: the mean of the velocities at both ends of an Euler step (Heun 1900),
    transported to the start on curved spaces. On classes there is no mean of jumps: use Euler there."""

    order = 2

    def check(self, path: Path) -> None:
        smooth_only(self, path, parts=True)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        smooth_only(self, path)
        u = path.velocity(predict(x, t), x, t)
        y = path.space.exp(x, scale(h, u))
        v = path.space.transport(y, x, path.velocity(predict(y, t + h), y, t + h))
        return path.space.exp(x, scale(0.5 * h, add(u, v)))


@dataclass(frozen=True)
class Midpoint(Solver):
    """Two evaluations per step, order two: the velocity in the middle of an Euler step (Runge 1895)."""

    order = 2
    needs_log = True

    def check(self, path: Path) -> None:
        smooth_only(self, path, parts=True)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        smooth_only(self, path)
        _, (_, k) = stages(path, predict, x, t, h, ((), (0.5,)))
        return path.space.exp(x, scale(h, k))


@dataclass(frozen=True)
class RK4(Solver):
    """Four evaluations per step, order four on flat and on curved spaces (Kutta 1901; in normal coordinates,
    Munthe-Kaas 1999)."""

    order = 4
    needs_log = True

    def check(self, path: Path) -> None:
        smooth_only(self, path, parts=True)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        smooth_only(self, path)
        _, k = stages(path, predict, x, t, h, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)))
        return path.space.exp(x, combine(h, (1 / 6, 1 / 3, 1 / 3, 1 / 6), k))


def stages(
    path: Path, predict: Predict, x: State, t: Tensor, h: Tensor, tableau: Sequence[Sequence[float]],
    first: State | None = None,
) -> tuple[State, list[State]]:  # fmt: skip
    """The stages of an explicit Runge-Kutta step: the velocity at the last stage, its position, and the velocities of
    all stages as tangents at ``x``. Row i of ``tableau`` weights the stages before stage i; the time of a stage is the
    sum of its row. ``first`` is the velocity at (x, t) if it is known."""
    space = path.space
    v = path.velocity(predict(x, t), x, t) if first is None else first
    k = [v]
    for row in tableau[1:]:
        y = space.exp(x, combine(h, row, k))
        s = t + sum(row) * h
        v = path.velocity(predict(y, s), y, s)
        k.append(pull_back(space, x, y, v))
    return v, k


def combine(h: Tensor, weights: Sequence[float], k: Sequence[State]) -> State:
    """h times the weighted sum of tangents."""
    return add(*(scale(w * h, u) for w, u in zip(weights, k, strict=True) if w))
