"""The solver of a flow map: each step is one jump that a network has learned.

A two-time network is given the end time of a step. From (x, t) it predicts the mean velocity v of the flow until time
s, and the jump is X_{t,s}(x) = exp(x, (s - t) v): one evaluation, however long the step. A perfect map needs one step;
more steps reduce the errors of a learned one, at least until its own small errors add up.

Classes have no such map, since their jumps are random. In combination with parts that flow they are sampled first: they
jump by their posterior at the start of the step, and then the map moves the rest over the same time, for the classes
that were drawn. So even in one step the two are consistent, at two evaluations per step; it converges with weak order
one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver, smooth_only
from fm_science.state import State, scale


@dataclass(frozen=True)
class FlowMap(Solver):
    """One evaluation per step, two if classes jump too: the jumps of a two-time network, as ``FlowMapMatching`` trains
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
    """X_{t,s}(x) = exp(x, (s - t) v) for the velocity v of ``raw``."""
    return path.space.exp(x, scale(s - t, path.velocity(raw, x, t)))


def require_flow_map(path: Path) -> None:
    """Raises TypeError if the velocity of a smooth part is undefined at t = 1, so that no map reaches the data."""
    if path.space.smooth:
        if path.singular:
            raise TypeError(
                f"a flow map needs a velocity that is defined until t = 1, and that of {path!r} is not. Predict "
                "Velocity(), on a schedule whose rates are finite at t = 1 such as Linear()."
            )
        return
    for part in path.parts.values():
        require_flow_map(part)
