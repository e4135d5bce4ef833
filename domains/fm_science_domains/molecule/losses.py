"""An auxiliary loss in addition to flow matching, on short distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.state import Context

State = dict[str, Tensor]


@dataclass(frozen=True)
class Distances:
    """Mean squared error, angstrom², of the distances that are short in the true molecule: those across a bond and
    those across an angle. Flow matching scores every atom separately, while a bond length depends on two atoms; this
    term makes their errors consistent. It biases the prediction slightly, so it is used only from ``start``, when the
    graph is mostly known.

    Args:
        weight: of the whole term.
        reach: distances up to this are short, angstrom.
        start: time from which the term is used.
        late: the weight of each time.
    """

    weight: float = 0.5
    reach: float = 2.8
    start: float = 0.3
    late: Callable[[Tensor], Tensor] = torch.ones_like

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Context) -> Tensor:
        """Losses ``(B,)`` of predicted and true molecules."""
        true, made = lengths(x1["positions"]), lengths(x1hat["positions"])
        short = (context.sites("edges") & (true < self.reach)).to(true)
        error = ((made - true).square() * short).sum((1, 2)) / short.sum((1, 2)).clamp_min(1)
        return self.weight * (t > self.start) * self.late(t) * error


def lengths(x: Tensor) -> Tensor:
    """All distances ``(B, N, N)`` between points ``(B, N, 3)``, with a gradient everywhere."""
    return ((x[:, :, None] - x[:, None]).square().sum(-1) + 1e-8).sqrt()
