"""Score matching without noise to regress on: learn the gradient of a log-density from samples alone.

Denoising score matching, which is :class:`~fm_science.objectives.FlowMatching` on a path that predicts ``Score()``,
knows the noise in x_t and regresses on it. These older losses look only at the points x_t: by partial integration half
the mean squared error of a score is, up to a constant, the mean of |s|² / 2 + div s. They have the same minimiser, at
the price of a divergence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fm_science.couplings import Coupling, Independent
from fm_science.flow import Flow
from fm_science.likelihood import Divergence, ExactTrace, divergence
from fm_science.objectives.base import Objective
from fm_science.objectives.flow_matching import FlowMatching
from fm_science.objectives.times import UniformTime
from fm_science.state import Context, State, batch_size, leaves


@dataclass(frozen=True)
class ScoreMatching(Objective):
    """E[|s(x_t)|² / 2 + div s(x_t)], a degree of freedom (Hyvärinen 2005, theorem 1); with ``Hutchinson()`` sliced
    score matching (Song, Garg, Shi & Ermon 2020, eq. 7). Its minimum is minus half the mean squared score.

    Args:
        divergence: ``ExactTrace()`` is Hyvärinen's loss, ``Hutchinson()`` the sliced one.
        coupling: must leave noise and data independent where the score rests on the noise of the prior.
        times: a law of times, ``n -> (n,)``.
        weight: how much each time counts, ``t -> (B,)``; sigma², as for denoising, where scores grow with 1 / sigma.

    Raises:
        TypeError: when called, on paths without a score.
    """

    divergence: Divergence = ExactTrace()
    coupling: Coupling = Independent()
    times: Callable[[int], Tensor] = UniformTime()
    weight: Callable[[Tensor], Tensor] | None = None

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """One named loss, ``score`` ``(B,)``."""
        pairs = FlowMatching(self.coupling).pairs(flow, x1, context, x0)
        path, context = pairs.path, pairs.context
        t = self.times(batch_size(pairs.x1)).to(leaves(pairs.x1)[0])
        x = path.sample(pairs.x0, pairs.x1, t)
        s, trace = divergence(
            path.space, lambda y: path.score(flow.network(y, t, context), y, t), x, self.divergence
        )  # fmt: skip
        loss = 0.5 * path.space.inner(x, s, s) + trace
        weight = 1.0 if self.weight is None else self.weight(t)
        return {"score": context.cond.get("weight", 1.0) * weight * loss / path.space.dimension.clamp_min(1)}
