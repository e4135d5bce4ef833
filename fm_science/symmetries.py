"""Symmetries: motions under which the law of the data does not change.

A symmetry can draw a random motion of a batch, which makes an equivariant law out of any (random poses for networks
that do not know rotations), and is declared by a domain so that tests can hold it to its word.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.rotations import quaternion_matrix
from fm_science.state import State, leaves


class Symmetry(ABC):
    """A group that acts on the points of a space."""

    @abstractmethod
    def randomise(self, space: Any, x: State) -> State:
        """Each sample moved by an independent uniform element of the group."""


@dataclass(frozen=True)
class Rotations(Symmetry):
    """Proper rotations of space about the origin."""

    def draw(self, n: int, like: Tensor) -> Tensor:
        """Independent Haar rotations, ``(n, 3, 3)``."""
        return quaternion_matrix(torch.randn(n, 4, dtype=like.dtype, device=like.device))

    def randomise(self, space: Any, x: State) -> State:
        first = leaves(x)[0]
        return space.rotate(x, self.draw(len(first), first))
