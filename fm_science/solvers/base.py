"""The definition of a solver.

A solver takes one step of time h along a path, evaluating the network (``predict``) as often as it needs. No solver
evaluates a rate where it is infinite: a path whose velocity is singular at t = 1 gets, as its last step, one evaluation
followed by a move to the predicted endpoint.

Jump rates form a cone, not a vector space: they cannot be averaged, transported or extrapolated. So if a state has
parts that flow and parts that jump, a step is split: half a smooth step with the classes fixed, one jump with the
posterior at the middle, half a smooth step. The split is of weak order one, whatever the order of the solver.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fm_science.paths import Path
from fm_science.spaces.base import Space
from fm_science.state import State, leaves, scale, tree_map

Predict = Callable[..., Any]  #: ``(x, t) -> raw``; for solvers of flow maps ``(x, t, t_end) -> raw``


class Solver(ABC):
    """A rule for one step; integration repeats it over a grid of times."""

    order: int = 1  #: order of convergence on smooth spaces
    stochastic: bool = False  #: whether it exchanges noise in its steps, which needs a path with a score
    splits: bool = True  #: whether steps are split if some parts of the state flow and others jump
    needs_log: bool = False  #: whether it transports velocities by the logarithm of the space
    two_times: bool = False  #: whether it calls ``predict(x, t, t_end)`` of a two-time network

    @abstractmethod
    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        """From time ``t`` ``(B,)`` to ``t + h`` (``h`` ``(B,)``) on a bound path; ``predict(x, t)`` is the network."""

    def begin(self, path: Path) -> Callable[..., Any]:
        """:meth:`step` for one integration on a bound path; a multistep solver stores its earlier steps."""
        return self.step

    def check(self, path: Path) -> None:  # noqa: B027
        """Raises TypeError if this solver cannot integrate a bound path; called before the first step."""

    def renoised_part(self, path: Path) -> Path:
        """The part of a path whose noise this solver exchanges."""
        return path

    def waypoints(self, path: Path, times: Tensor) -> Tensor:
        """The times at which to stop if only the state at the last of ``times`` is requested."""
        return times

    def trajectory(self, path: Path, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        """The states at ``times[1:]``, one by one. Raises TypeError or ValueError before the first step if path and
        solver do not fit."""
        self.check(path)
        path.check(times)
        first = leaves(x)[0]
        grid = [first.new_full((len(first),), t) for t in times.tolist()]
        lands = path.singular and not self.two_times and float(times[-1]) == 1.0
        step = stepper(self, path)
        for t, s in itertools.pairwise(grid):
            last = lands and s is grid[-1]
            x = path.step(predict(x, t), x, t, s) if last else step(path, predict, x, t, s - t)
            yield x

    def integrate(self, path: Path, predict: Predict, x: State, times: Tensor) -> State:
        """The state at the last of ``times``."""
        for state in self.trajectory(path, predict, x, self.waypoints(path, times)):
            x = state
        return x


def stepper(solver: Solver, path: Path) -> Callable[..., Any]:
    """The step of a solver, split if some parts of the state flow and others jump."""
    parts = path.space.parts.values()
    mixed = any(s.smooth for s in parts) and not path.space.smooth
    return _split(solver) if mixed and solver.splits else solver.begin(path)


def _split(solver: Solver) -> Callable[..., Any]:
    """The step of a solver on a product of smooth parts and classes: half a smooth step, the jump, half a smooth step.
    The evaluation at the middle is used for the jump and for the start of the second half."""

    def step(path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        smooth, jumps = path.split()
        fixed = {k: x[k] for k in jumps.parts}

        def flow(y: State, s: Tensor, known: list[State]) -> State:
            def ask(z: State, r: Tensor) -> State:
                raw = known.pop() if known else predict({**z, **fixed}, r)
                return {k: raw[k] for k in smooth.parts}

            return solver.step(smooth, ask, y, s, 0.5 * h)

        y = flow({k: x[k] for k in smooth.parts}, t, [])
        raw = predict({**y, **fixed}, t + 0.5 * h)
        fixed = jumps.step(raw, fixed, t, t + h)
        y = flow(y, t + 0.5 * h, [raw])
        return {k: y[k] if k in y else fixed[k] for k in path.parts}

    return step


def smooth_only(solver: Solver, path: Path, parts: bool = False) -> None:
    """Raises TypeError for a solver of higher order on a path that jumps; with ``parts``, only if nothing flows."""
    spaces = path.space.parts.values() if parts else ()
    name = type(solver).__name__
    if not (path.space.smooth or any(s.smooth for s in spaces)):
        raise TypeError(f"{name} needs a smooth space: jump rates cannot be averaged. Use Euler() on classes.")
    if path.steep:
        raise TypeError(f"{name} starts with the velocity at t = 0, and that of {path!r} is infinite: use Euler().")
    if solver.needs_log and not path.space.geodesic:
        raise TypeError(f"{name} needs the logarithm, and this space has none: use Euler() or Heun().")


def pull_back(space: Space, x: State, y: State, v: State) -> State:
    """The tangent ``v`` at ``y`` in the tangent space at ``x``: d/ds log(x, exp(y, s v)) at s = 0. With it, motion on a
    curved space is an ordinary differential equation in the tangent space at x, and every Runge-Kutta method keeps its
    order."""
    if space.linear:
        return v

    def seen(s: Tensor, x: State, y: State, v: State) -> State:
        return space.log(x, space.exp(y, scale(s, v)))

    x, y, v = (tree_map(torch.Tensor.contiguous, z) for z in (x, y, v))  # dual numbers need their own memory
    one = leaves(v)[0].new_ones(())
    # zero tangents for constants: forward-mode products with plain tensors are slow
    still = tree_map(torch.zeros_like, x), tree_map(torch.zeros_like, y), tree_map(torch.zeros_like, v)
    return torch.func.jvp(seen, (torch.zeros_like(one), x, y, v), (one, *still))[1]
