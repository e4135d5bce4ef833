"""Completion: learn to complete a cloud of which a part is given.

In a share of the training steps the points of every cloud on one side of a random plane are given; those points are
frozen and the rest flows as usual. The centre of a partly known cloud is not known, so the centre of the part becomes
the origin. Noise starts around it, in training and sampling alike. If whole clouds are learned in a standard
orientation, completed ones have the orientation of the given part.
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

LEAST, MOST = 0.25, 0.75  # share of the points that is given


@dataclass(frozen=True)
class Completion(Objective):
    """Flow matching of whole clouds, and in a share of the steps of clouds that are given in part.

    Args:
        whole: the objective of whole clouds.
        share: of the steps in which a part is given.
        upright: whether clouds are rotated onto the principal axes of the given part.
        order: reorders the noise of the free points for its cloud; noise is not exchanged between clouds.
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
    ``upright`` they are on the principal axes of that part."""
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
    """Clouds translated so that the given points ``(B, N)`` have zero mean; padding stays zero."""
    weight = given[..., None].to(x.dtype)
    return (x - (weight * x).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)) * mask[..., None]
