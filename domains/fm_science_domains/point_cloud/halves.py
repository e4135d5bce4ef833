"""Approximate ordering: both clouds are cut in halves, recursively, and points are assigned within the pieces.

The best order of N points costs about N³ steps. Here noise and data are both cut at their medians along the axis in
which that piece of the data is longest, until a piece holds few points; the work then grows with N log N. The order is
a little worse than the best one. It is equally valid: noise is only reordered, and the network commutes with that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.state import Context
from fm_science.symmetries import Permutations, Symmetry
from fm_science.symmetries.base import nearer
from fm_science.symmetries.permutations import assign


@dataclass(frozen=True)
class Halves(Symmetry):
    """Reorderings of whole clouds, aligned piece by piece.

    Args:
        most: points of a piece; an odd piece is not cut further.
        whole: the group itself, which is used if clouds are padded or partly frozen.
    """

    most: int = 32
    whole: Permutations = Permutations()

    def bind(self, space: Space, context: Context) -> Symmetry:
        if context.free is not None or not bool(context.mask.all()):
            return self.whole.bind(space, context)
        self.whole.bind(space, context)
        return self

    def align(self, space: Space, x: Tensor, y: Tensor) -> Tensor:
        here, there = (torch.arange(x.shape[1], device=x.device).expand(len(x), 1, -1) for _ in range(2))
        while here.shape[2] > self.most and here.shape[2] % 2 == 0:
            a, b = _at(x, here), _at(y, there)
            axis = b.var(2).argmax(-1)[..., None, None].expand(*b.shape[:3], 1)
            here, there = (i.gather(2, v.gather(3, axis)[..., 0].argsort(2)) for i, v in ((here, a), (there, b)))
            here, there = (i.reshape(len(x), 2 * i.shape[1], -1) for i in (here, there))
        cost = -_at(y, there).flatten(0, 1) @ _at(x, here).flatten(0, 1).mT
        chosen = here.gather(2, assign(cost).reshape(here.shape))
        order = torch.empty_like(chosen.flatten(1)).scatter(1, there.flatten(1), chosen.flatten(1))
        return nearer(space, space.permute(x, order), x, y)

    def randomise(self, space: Space, x: Tensor) -> Tensor:
        return self.whole.randomise(space, x)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Points ``(B, N, D)`` at indices ``(B, G, n)``: ``(B, G, n, D)``."""
    flat = index.flatten(1)[..., None].expand(-1, -1, x.shape[2])
    return x.gather(1, flat).reshape(*index.shape, x.shape[2])
