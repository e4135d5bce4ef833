"""Random classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.priors.base import Prior, bound
from fm_science.spaces.base import Space, total
from fm_science.state import Context, State, masked_where


@dataclass(frozen=True)
class Classes(Prior):
    """Independent classes with the given probabilities; on edges one sample for each pair. With all weight on one
    class, that is the mask of a masking flow. Its ``log_prob`` is the log of a probability, not of a density.

    Args:
        probabilities: one number per class, adding up to one.
    """

    probabilities: Sequence[float]

    def __post_init__(self) -> None:
        values = tuple(float(p) for p in self.probabilities)
        if min(values) < 0 or abs(math.fsum(values) - 1) > 1e-6:
            raise ValueError(f"Classes({list(values)}): probabilities must not be negative and must add up to one.")
        object.__setattr__(self, "probabilities", values)

    @property
    def class_probabilities(self) -> Tensor:
        return torch.tensor(self.probabilities)

    def _vector(self, space: Space, like: Tensor) -> Tensor:
        if space.leaf.event != (len(self.probabilities),):
            raise ValueError(f"{self!r} has {len(self.probabilities)} probabilities, but a point of {space.leaf!r} has "
                             f"shape {space.leaf.event}.")  # fmt: skip
        return torch.tensor(self.probabilities, dtype=like.dtype, device=like.device)

    def sample(self, space: Space, context: Context) -> State:
        space, like = bound(self, space, context)
        p = self._vector(space, like)
        start = space.apply_constraints(space.leaf.origin(like).expand(space.shape))
        return space.exp(start, space.log(start, p.expand(space.shape)))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        log = torch.xlogy(x, self._vector(space, x)).sum(-1)
        return total(masked_where(space.counted_mask, log, 0.0))
