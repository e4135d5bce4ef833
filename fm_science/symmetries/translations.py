"""Translations: space has no preferred origin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Space
from fm_science.state import State, map_leaves
from fm_science.symmetries.base import Symmetry, bound_leaves, refuse_frozen


@dataclass(frozen=True)
class Translations(Symmetry):
    """Shifts of all positions by one vector per sample. ``align`` brings the centre of ``x`` to that of ``y``.

    There is no uniform distribution of shifts, so noise with a translation-invariant distribution cannot be drawn:
    spaces of centred clouds (``Centered``) are the quotient instead, and there this symmetry does nothing.

    Args:
        std: ``randomise`` draws Gaussian shifts of this size, in the units of the positions; ``None``: it raises an
            error.
    """

    std: float | None = None

    def align(self, space: Space, x: State, y: State) -> State:
        refuse_frozen(space, "Translations")
        found = [p for p in bound_leaves(space, x, y) if _holds_positions(p[0])]
        if not found:
            return x
        ways = sum(s.log(a, b).reshape(len(a), -1, a.shape[-1]).sum(1) for s, a, b in found)
        sites = sum(s.free_mask.reshape(len(a), -1).sum(1, keepdim=True) for s, a, b in found)
        return _shifted(space, x, ways / sites.clamp_min(1))

    def randomise(self, space: Space, x: State) -> State:
        if self.std is None:
            raise TypeError("Translations cannot be uniform. Use the space Centered(), or Translations(std=...).")
        refuse_frozen(space, "Translations")
        found = [a for s, a in bound_leaves(space, x) if _holds_positions(s)]
        if not found:
            return x
        size = (len(found[0]), found[0].shape[-1])
        return _shifted(space, x, self.std * torch.randn(size, dtype=found[0].dtype, device=found[0].device))


def _holds_positions(space: BoundLeaf) -> bool:
    return space.linear and space.leaf.vector


def _shifted(space: Space, x: State, shift: Tensor) -> State:
    """``x`` with its positions moved by ``shift`` ``(B, dim)``."""

    def moved(leaf: BoundLeaf, y: Tensor) -> Tensor:
        if not _holds_positions(leaf):
            return y
        return leaf.exp(y, shift.reshape(len(shift), *[1] * (y.ndim - 2), -1).expand_as(y))

    return map_leaves(moved, space, x)
