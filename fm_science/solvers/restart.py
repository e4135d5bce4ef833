"""Restarts: going back with new noise, and forward again, so that errors of earlier steps are forgotten.

Errors of all steps stay in a sample. If it is moved back along its path by new noise and integrated again, its earlier
errors shrink with the share of it that is left, and only those of the last integration are added. The law of the
samples is still that of the flow; the price is evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver
from fm_science.solvers.fixed import Euler
from fm_science.solvers.grids import grid_after
from fm_science.state import State, batch_size, leaves


@dataclass(frozen=True)
class Restart(Solver):
    """Integrate to the end, then go back to ``from_time`` with new noise and forward again, ``rounds`` times (restart
    sampling, Xu, Deng, Cheng, Tian, Liu & Jaakkola 2023, with the interval from ``from_time`` to the data).

    It needs no score, so it also suits curved spaces and classes, but noise that is independent of the data.

    Args:
        solver: the solver of each integration.
        rounds: how often to go back.
        from_time: the time to go back to, in (0, 1): the earlier, the more is forgotten, of errors and of the sample.

    Raises ValueError for other values, or for times that do not end at 1; TypeError as ``solver`` does.
    """

    solver: Solver = Euler()
    rounds: int = 1
    from_time: float = 0.7
    stochastic = True

    def __post_init__(self) -> None:
        if self.rounds < 0 or not 0 < self.from_time < 1:
            raise ValueError(f"{self!r}: expected rounds of at least 0 and a from_time between 0 and 1.")
        if self.solver.two_times:
            raise ValueError(f"{self!r}: a flow map jumps to the end from any time, so nothing is left to forget.")

    def check(self, path: Path) -> None:
        self.solver.check(path)

    def waypoints(self, path: Path, times: Tensor) -> Tensor:
        return times  # the solver chooses its own for each integration

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        return self.solver.step(path, predict, x, t, h)

    def trajectory(self, path: Path, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        if float(times[-1]) != 1:
            raise ValueError(f"{self!r} goes back from the data, so its times must end at 1, not {float(times[-1]):g}.")
        for state in self.solver.trajectory(path, predict, x, times):
            yield (x := state)
        again = grid_after(times, max(self.from_time, float(times[0])))
        for _ in range(self.rounds):
            back = leaves(x)[0].new_full((batch_size(x),), float(again[0]))
            for state in self.solver.trajectory(path, predict, path.noised(x, back), again):
                yield (x := state)
