"""Mirrors: left and right are equivalent."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fm_science.spaces.base import Space
from fm_science.state import State, batch_size, expand_like, leaves, map_leaves
from fm_science.symmetries.base import Symmetry, nearer, refuse_frozen


@dataclass(frozen=True)
class Mirrors(Symmetry):
    """Reflections of images ``(B, 1, C, H, W)``, or of any array on a site, along one of its axes.

    Args:
        axis: counted from the last; -1 exchanges left and right, -2 top and bottom.
    """

    axis: int = -1

    def align(self, space: Space, x: State, y: State) -> State:
        return nearer(space, self._flipped(space, x), x, y)

    def randomise(self, space: Space, x: State) -> State:
        drawn = torch.rand(batch_size(x), device=leaves(x)[0].device) < 0.5
        return map_leaves(lambda _, a, b: torch.where(expand_like(drawn, a), b, a), space, x, self._flipped(space, x))

    def _flipped(self, space: Space, x: State) -> State:
        refuse_frozen(space, "Mirrors")
        return map_leaves(lambda _, a: a.flip(self.axis), space, x)
