"""How a network learns to complete chains: in some batches of training, segments of every chain are given (Yim et al.
2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.priors import Prior
from fm_science.spaces.base import Space
from fm_science.state import Context, State

from .geometry import OPEN
from .sheets import UNSTATED

LONGEST = 0.35  # of a chain: the longest segment that is fixed in training; there are one or two


@dataclass(frozen=True)
class Scaffolding(Coupling):
    """In a share of batches chains are partly given: one or two segments of each are fixed, and the others start from
    noise around them, with or without their secondary structure as a condition.

    Args:
        prior: of the noise, which is drawn again around the motif.
        share: of the batches.
    """

    prior: Prior
    share: float
    independent = True

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[Any, Any, Context]:
        if float(torch.rand(())) >= self.share:
            return x0, x1, context
        fixed = stretches(context.mask)
        middle = (x1["translations"] * fixed[..., None]).sum(1, keepdim=True) / fixed.sum(1)[:, None, None]
        x1 = {**x1, "translations": (x1["translations"] - middle) * context.mask[..., None]}
        secret = ~fixed & (torch.rand(context.size, 1, device=fixed.device) < 0.5)
        structure = context.cond["structure"].masked_fill(secret, OPEN)
        sheet = context.cond["sheet"].masked_fill(secret.any(1)[:, None, None], UNSTATED)
        cond = {**context.cond, "structure": structure, "sheet": sheet}
        context = replace(context, cond=cond, free=~fixed, known=x1)
        space = space.bind(context)
        return self.prior.sample(space, context), x1, context


def stretches(mask: Tensor) -> Tensor:
    """(B, N) bool: one or two random segments of each chain of ``mask`` (B, N), at least one residue each."""
    sizes, sites = mask.sum(1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    fixed = torch.zeros_like(mask)
    for chance in (1.0, 0.5):
        draw = torch.rand(3, len(mask), 1, device=mask.device)
        length = (LONGEST * draw[0] * sizes).long().clamp_min(1)
        start = (draw[1] * (sizes - length + 1)).long()
        fixed |= (sites >= start) & (sites < start + length) & (draw[2] < chance)
    return fixed & mask
