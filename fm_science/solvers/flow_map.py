"""The solver of a flow map: each step is one jump that a network has learnt.

A two-time network knows where it is asked to land. From (x, t) it tells the mean velocity v of the flow until time s,
and the jump is X_{t,s}(x) = exp(x, (s - t) v): one evaluation, however long the way. A perfect map needs one step; more
steps mend what a learnt one gets wrong, at least until its own small errors add up.

Classes have no such map, since their jumps are random. Beside parts that flow they go first: they jump by their
posterior at the start of the step, and then the map carries the rest as far for the classes that were drawn. So even in
one step the two agree, at two evaluations a step; in the limit of many steps it is exact, of weak order one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver, smooth_only
from fm_science.state import State, scale


@dataclass(frozen=True)
class FlowMap(Solver):
    """One evaluation a step, two where classes jump too: the jumps of a two-time network, as ``FlowMapMatching`` trains
    them (Boffi, Albergo & Vanden-Eijnden 2025). ``steps=1`` goes from noise to data at once."""

    splits = False
    two_times = True

    def check(self, path: Path) -> None:
        smooth_only(self, path, parts=True)
        require_flow_map(path)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        s = t + h
        if path.space.smooth:
            return jump(path, predict(x, t, s), x, t, s)
        smooth, jumps = path.split()
        x = x | jumps.step(predict(x, t, t), {k: x[k] for k in jumps.parts}, t, s)
        raw = predict(x, t, s)
        return x | {k: jump(part, raw[k], x[k], t, s) for k, part in smooth.parts.items()}


def jump(path: Path, raw: State, x: State, t: Tensor, s: Tensor) -> State:
    """X_{t,s}(x) = exp(x, (s - t) v) for the velocity v that ``raw`` tells."""
    return path.space.exp(x, scale(s - t, path.velocity(raw, x, t)))


def require_flow_map(path: Path) -> None:
    """Raises TypeError where the velocity of a smooth part is undefined at t = 1, so that no map reaches the data."""
    if path.space.smooth:
        if path.singular:
            raise TypeError(
                f"a flow map needs a velocity that is defined until t = 1, and that of {path!r} is not. Predict "
                "Velocity(), on a schedule whose rates are finite at t = 1 such as Linear()."
            )
        return
    for part in path.parts.values():
        require_flow_map(part)
