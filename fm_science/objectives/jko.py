"""The scheme of Jordan, Kinderlehrer & Otto: a flow as steps down the relative entropy, each trained by itself.

A diffusion towards the noise is the steepest descent of the relative entropy KL(p | noise) in the Wasserstein-2
distance. In steps of size h it reads: the next law is the one with the least KL(q | noise) + W2²(p, q) / (2 h). A block
of a flow can make each of these steps, from the data onwards, and once it is trained it stays as it is: what is held in
memory is one block, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.contract import admit_training, check_output
from fm_science.flow import Flow
from fm_science.likelihood import Divergence, Hutchinson, integrate_log_prob
from fm_science.networks.blocks import Blocks
from fm_science.objectives.base import Objective
from fm_science.paths import Field
from fm_science.solvers import RK4, Solver
from fm_science.state import Context, State, scale


@dataclass(frozen=True)
class JKO(Objective):
    """E[-log p0(x') - int div v ds + |x' - x|² / (2 h)], a degree of freedom, over the block whose turn it is, from x
    to x' (Jordan, Kinderlehrer & Otto 1998; as blocks of a flow Xu, Cheng & Xie 2023, JKO-iFlow). With one block and h
    infinite this is maximum likelihood.

    On Gaussian data of spread s and standard normal noise the step leads to the spread
    s' = (s + (s² + 4 h (1 + h))^1/2) / (2 (1 + h)).

    Args:
        size: h, the size of a step, positive.
        block_steps: training steps of a block; then the next has its turn, and the last keeps it.
        solver, steps: of the walk through a block.
        divergence: how the trace is found.

    Raises:
        ValueError: for a size that is not positive.
        TypeError: when called, for a network that is not made of :class:`~fm_science.networks.Blocks`, on spaces that
            are not smooth, and for priors without a density.
    """

    size: float = 1.0
    block_steps: int = 500
    solver: Solver = RK4()
    steps: int = 6
    divergence: Divergence = Hutchinson()
    independent = False
    independent_parts = ()

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise ValueError(f"JKO(size={self.size}): the size of a step must be positive.")

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``entropy``, the relative entropy up to that of the law before the step, and
        ``transport``."""
        network = flow.network
        if not isinstance(network, Blocks):
            raise TypeError("JKO() trains blocks one after another: give the flow a network Blocks([...]).")
        self.record_training(flow)
        x1, _ = admit_training(flow, x1, context)
        path = flow.path.bind(context, flow.prior)
        count = len(network.blocks)
        block = min(int(network.seen) // self.block_steps, count - 1)
        if flow.training:
            network.seen += 1

        def predict(x: State, t: Tensor) -> State:  # of this block alone: the others get no gradient, not even zero
            raw = network.block(block, x, t, context)
            check_output(path, raw)
            return raw

        def back(x: State, r: Tensor) -> State:
            return scale(-1.0, path.velocity(flow(x, 1 - r, context), x, 1 - r))

        start = x1
        if block:
            with torch.no_grad():
                times = torch.linspace(0, block / count, block * self.steps + 1, dtype=torch.float64)
                start = self.solver.integrate(Field(path.space), back, x1, times)
        grid = 1 - torch.linspace(block + 1, block, self.steps + 1, dtype=torch.float64) / count
        walk = integrate_log_prob(
            path, predict, start, path.source(flow.prior), self.solver, grid, self.divergence, independent=False
        )
        moved = path.space.log(start, walk.noise)
        cost = path.space.inner(start, moved, moved) / (2 * self.size)
        freedom = path.space.dimension.clamp_min(1)
        weight = context.cond.get("weight", 1.0)
        return {"entropy": -weight * walk.logp / freedom, "transport": weight * cost / freedom}
