"""Solvers: how to walk from noise to data.

A solver takes one step of time h along a path, asking the network (``predict``) as often as it needs. No solver ever
evaluates a rate where it is infinite: a path whose velocity is singular at t = 1 gets, as its last step, one evaluation
followed by landing.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.paths import Path
from fm_science.state import State, add, leaves, scale

Predict = Callable[[Any, Tensor], Any]


class Solver(ABC):
    """One rule for a step; integrating is repeating it over a grid of times."""

    order: int = 1  #: order of convergence on smooth spaces

    @abstractmethod
    def step(self, path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
        """From time ``t`` ``(B,)`` to ``t + h`` (``h`` ``(B,)``) on a bound path; ``predict(x, t)`` is the network."""

    def trajectory(self, path: Path, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        """The states at ``times[1:]``, one by one."""
        first = leaves(x)[0]
        grid = [first.new_full((len(first),), t) for t in times.tolist()]
        lands = path.singular and float(times[-1]) == 1.0
        for t, s in itertools.pairwise(grid):
            last = lands and s is grid[-1]
            x = path.step(predict(x, t), x, t, s) if last else self.step(path, predict, x, t, s - t)
            yield x

    def integrate(self, path: Path, predict: Predict, x: State, times: Tensor) -> State:
        """The state at the last of ``times``."""
        for state in self.trajectory(path, predict, x, times):
            x = state
        return x


@dataclass(frozen=True)
class Euler(Solver):
    """One evaluation a step: the prediction is held fixed and the path followed exactly. With an endpoint prediction
    on a Gaussian path this is DDIM (Song et al. 2021)."""

    def step(self, path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
        return path.step(predict(x, t), x, t, t + h)


@dataclass(frozen=True)
class Heun(Solver):
    """Two evaluations a step, order two: the mean of the velocities at both ends of an Euler step (Heun 1900), carried
    to the start on curved spaces. On classes there is no mean of jumps: use Euler there."""

    order = 2

    def step(self, path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
        if not path.space.smooth:
            raise TypeError("Heun needs a smooth space: jump rates cannot be averaged. Use Euler().")
        u = path.velocity(predict(x, t), x, t)
        y = path.space.exp(x, scale(h, u))
        v = path.space.transport(y, x, path.velocity(predict(y, t + h), y, t + h))
        return path.space.exp(x, scale(0.5 * h, add(u, v)))


def uniform_grid(steps: int | Tensor) -> Tensor:
    """``steps`` equal intervals of [0, 1] as ``steps + 1`` times; a tensor of increasing times passes through.

    Raises:
        ValueError: when there is no step, or the times do not increase within [0, 1].
    """
    if not torch.is_tensor(steps):
        if steps < 1:
            raise ValueError(f"steps={steps}: sampling needs at least one step.")
        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = steps.detach().double().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()) or times[0] < 0 or times[-1] > 1:
        raise ValueError(f"steps={steps}: a grid of times must increase within [0, 1] and have at least two entries.")
    return times
