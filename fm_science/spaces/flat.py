"""Flat spaces: vectors, and point clouds whose centre of mass is pinned to the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fm_science.spaces.base import Leaf, Sites
from fm_science.state import Context, lift


class Flat(Leaf):
    """What all vector spaces share: moving is adding."""

    linear = True
    vector: bool = False  #: whether rotations act on the last axis

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        return (x.reshape(len(x), -1, x.shape[-1]) @ rotation.mT).reshape(x.shape) if self.vector else x


@dataclass(frozen=True)
class Euclidean(Flat):
    """Vectors of a given shape on each site, with the ambient dot product.

    Args:
        shape: shape of the vector on one site, an int or a tuple (an image is one site of shape (C, H, W)).
        on: where the sites lie: "nodes", "edges" or "graph".
        vector: whether rotations act on the last axis.
    """

    shape: int | tuple[int, ...]
    on: str = "nodes"
    vector: bool = False

    @property
    def event(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return math.prod(self.event)


@dataclass(frozen=True)
class Centered(Flat):
    """Point clouds modulo translation: the clouds of N points in R^dim with their centre of mass at the origin, a
    space of (N - 1) dim dimensions (Köhler, Klein & Noé 2020). With frozen sites the motif fixes the gauge, and
    nothing is centred.

    Args:
        dim: coordinates of one point.
    """

    dim: int = 3
    vector = True

    @property
    def event(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.dim,)

    @property
    def dimension(self) -> int:  # type: ignore[override]
        return self.dim

    def project(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self.project(u)

    def bind(self, context: Context) -> Sites:
        if context.free is not None:
            return Euclidean(self.dim, vector=True).bind(context)
        return CenteredSites(self, context.mask)


class CenteredSites(Sites):
    """The bound form of :class:`Centered`: points and tangents have zero mean over the real sites of a sample."""

    def _centre(self, u: Tensor) -> Tensor:
        u = self.blank(u)
        count = lift(self.mask.sum(1).clamp_min(1), u)
        return self.blank(u - u.sum(1, keepdim=True) / count)

    @property
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``: those of N - 1 sites."""
        return (self.mask.sum(1) - 1).clamp_min(0) * self.leaf.dimension

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self._centre(x + u)  # centring again keeps rounding from drifting over many steps

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self._centre(y - x)

    def project(self, x: Tensor) -> Tensor:
        return self._centre(x)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self._centre(u)
