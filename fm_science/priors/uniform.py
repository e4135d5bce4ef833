"""The uniform distribution on compact spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fm_science.priors.base import Prior, bound
from fm_science.spaces.base import Space, total
from fm_science.state import Context, State


@dataclass(frozen=True)
class Uniform(Prior):
    """Independent uniform points on a compact space: sphere, torus, rotations, mesh. Raises TypeError elsewhere."""

    def sample(self, space: Space, context: Context) -> State:
        space, like = bound(self, space, context)
        return space.project(space.leaf.uniform(space.mask.shape, like))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        if math.isinf(space.leaf.volume):
            return super().log_prob(space, x)
        return -math.log(space.leaf.volume) * total(space.counted_mask).to(x.dtype)
