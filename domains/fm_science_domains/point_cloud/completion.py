"""Completion: learn to finish a cloud of which a part is given.

In a share of the training steps every cloud shows what lies on one side of a random plane; those points are frozen at
their places and the rest flows as ever. Nobody knows the centre of a cloud that is seen in part, so the part's own
centre becomes the origin. Noise starts around it, in training and sampling alike. Where whole clouds are learned
upright, completed ones stand upright by the part that is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling, Independent
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching, Objective
from fm_science.state import Context

from .upright import axes

LEAST, MOST = 0.25, 0.75  # share of the points that is shown


@dataclass(frozen=True)
class Completion(Objective):
    """Flow matching of whole clouds, and in a share of the steps of clouds that are given in part.

    Args:
        whole: the objective of whole clouds.
        share: of the steps in which a part is given.
        upright: whether clouds are turned onto the principal axes of the given part.
        order: puts the noise of the free points in the order of its cloud; noise stays with its cloud.
    """

    whole: FlowMatching
    share: float
    upright: bool = False
    order: Coupling = Independent()

    @property
    def coupling(self) -> Coupling:
        return self.whole.coupling

    def __call__(self, flow: Flow, x1: Any, context: Context, x0: Any = None) -> dict[str, Tensor]:
        if float(torch.rand(())) < self.share:
            x1, context = partly(x1, context, self.upright)
            losses = replace(self.whole, coupling=self.order)(flow, x1, context)
            flow.independent = self.coupling.independent
            return losses
        return self.whole(flow, x1, context, x0)


def partly(x: Tensor, context: Context, upright: bool = False) -> tuple[Tensor, Context]:
    """Clouds ``(B, N, D)`` with the origin in their given part, and the context in which that part is frozen; with
    ``upright`` they stand on the principal axes of that part."""
    direction = torch.randn(len(x), 1, x.shape[2], dtype=x.dtype, device=x.device)
    height = (x * direction).sum(-1).masked_fill(~context.mask, -torch.inf)
    count = context.mask.sum(1)
    share = LEAST + (MOST - LEAST) * torch.rand(len(x), dtype=x.dtype, device=x.device)
    shown = (share * count).round().clamp_min(1)
    given = (height.argsort(1, descending=True).argsort(1) < shown[:, None]) & context.mask
    x = centred(x, given, context.mask)
    x = x @ axes(x, given) if upright else x
    return x, replace(context, free=~given, known=x)


def centred(x: Tensor, given: Tensor, mask: Tensor) -> Tensor:
    """Clouds moved so that the given points ``(B, N)`` have no mean; padding stays zero."""
    weight = given[..., None].to(x.dtype)
    return (x - (weight * x).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)) * mask[..., None]
