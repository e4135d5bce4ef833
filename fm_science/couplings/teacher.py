"""Reflow: learn from where a trained flow already goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings.base import Coupling
from fm_science.paths import Path
from fm_science.spaces import Space
from fm_science.state import Context, State, map_leaves


@dataclass(frozen=True)
class Reflow(Coupling):
    """Pairs each noise with the sample that a trained flow makes of it (Liu, Gong & Liu 2023). Paths between such
    pairs do not cross where the teacher's do not, so the student's are straighter and need fewer steps.

    The data of the batch serve only for their context; the student learns the teacher's law, errors included.

    Args:
        flow: the teacher. Its weights are not trained.
        solver: how it walks; ``None``: as its sampler says.
        steps: number of steps or a tensor of times; ``None``: as its sampler says.
    """

    flow: Any
    solver: Any = None
    steps: Any = None

    @torch.no_grad()
    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        start = self.flow.path.bind(context, self.flow.prior)
        was_training = self.flow.training
        try:
            x1 = self.flow.eval().transport(_outset(start, x0), context, self.solver, self.steps)
        finally:
            self.flow.train(was_training)
        return x0, x1, context


def _outset(path: Path, x0: State) -> State:
    """Where a bound path starts from the noise ``x0``: sigma(0) x0 on linear spaces, ``x0`` itself elsewhere."""

    def start(part: Path, x: Tensor) -> Tensor:
        return part.sample(x, torch.zeros_like(x) if part.space.linear else x, x.new_zeros(len(x)))

    return map_leaves(start, path, x0)
