"""What training is told beside flow matching: short distances, and molecules of which a part is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.state import Context

from .conditioning import connected

State = dict[str, Tensor]


@dataclass(frozen=True)
class Distances:
    """Mean squared error, angstrom², of the distances that are short in the true molecule: those across a bond and
    those across an angle. Flow matching scores every atom by itself, while a bond length is the difference of two
    atoms; this term teaches them to err together. It biases the prediction a little, so it counts only from ``start``,
    where the graph is mostly known.

    Args:
        weight: of the whole term.
        reach: distances up to this are short, angstrom.
        start: time from which the term counts.
        late: how much each time counts.
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


@dataclass(frozen=True)
class Completion(Coupling):
    """Now and then a batch whose molecules are partly given: a random connected fragment of each is frozen, and the
    rest starts from noise around the fragment's centre, as in completing a fragment of the user's.

    Args:
        law: pairs whole molecules.
        around: pairs the free atoms of a batch with fragments.
        share: of the batches that get fragments.
        std: spread of the noise of free atoms, angstrom.
        most: a fragment has at most this share of the atoms.
    """

    law: Coupling
    around: Coupling
    share: float
    std: float
    most: float = 0.8

    @property
    def independent(self) -> bool:  # type: ignore[override]
        return self.law.independent

    @property
    def untied(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.law.untied

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if float(torch.rand(())) >= self.share:
            return self.law.pair(space, x0, x1, context)
        sizes = (torch.rand(context.size).to(context.mask.device) * self.most * context.mask.sum(1)).long().clamp_min(1)
        given = connected(x1["bonds"][..., 0] < 0.5, context.mask, sizes)
        middle = (x1["positions"] * given[..., None]).sum(1, keepdim=True) / sizes_of(given)
        x1 = {**x1, "positions": (x1["positions"] - middle) * context.mask[..., None]}
        context = replace(context, free=~given, known=x1)
        space = space.bind(context)
        x0 = space.project({**x0, "positions": self.std * torch.randn_like(x1["positions"])})
        return self.around.pair(space, x0, x1, context)


def sizes_of(given: Tensor) -> Tensor:
    """How many atoms are given, ``(B, 1, 1)``, at least one."""
    return given.sum(1).clamp_min(1)[:, None, None]
