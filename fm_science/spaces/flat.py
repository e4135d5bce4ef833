"""Flat spaces: vectors, point clouds whose centre of mass is at the origin, and functions."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import BoundLeaf, Leaf, total
from fm_science.state import Context, expand_like


class Flat(Leaf):
    """The common part of vector spaces: moving is adding."""

    linear = True
    isometric = True
    vector: bool = False  #: whether rotations act on the last axis

    @property
    def directed(self) -> bool:
        return self.vector

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def gradient(self, x: Tensor, ambient_grad: Tensor) -> Tensor:
        return ambient_grad

    def off(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=x.dtype, device=x.device)  # a cloud that is not centred represents one that is

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        return (x.reshape(len(x), -1, x.shape[-1]) @ rotation.mT).reshape(x.shape) if self.vector else x


@dataclass(frozen=True)
class Euclidean(Flat):
    """Vectors of a given shape on each site, with the ambient dot product.

    Args:
        shape: shape of the vector on one site, an int or a tuple (an image is one site of shape (C, H, W)).
        on: where the sites are: "nodes", "edges" or "graph".
        vector: whether rotations act on the last axis.
    """

    shape: int | tuple[int, ...]
    on: str = "nodes"
    vector: bool = False

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)

    @derived
    def dimension(self) -> int:
        return math.prod(self.event)


@dataclass(frozen=True)
class Centered(Flat):
    """Point clouds modulo translation: the clouds of N points in R^dim with their centre of mass at the origin, a
    space of (N - 1) dim dimensions (Köhler, Klein & Noé 2020). With frozen sites the motif fixes the position, and
    nothing is centred.

    Args:
        dim: coordinates of one point.
    """

    dim: int = 3
    vector = True
    centred = True

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.dim,)

    @derived
    def dimension(self) -> int:
        return self.dim

    def project(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self.project(u)

    def bind(self, context: Context) -> BoundLeaf:
        if context.free is not None:
            return Euclidean(self.dim, vector=True).bind(context)
        return BoundCentered(self, context.mask)


class BoundCentered(BoundLeaf):
    """The bound form of :class:`Centered`: points and tangents have zero mean over the real sites of a sample."""

    centred = True

    def _centre(self, u: Tensor) -> Tensor:
        u = self.mask_tangent(u)
        count = expand_like(self.mask.sum(1).clamp_min(1), u)
        return self.mask_tangent(u - u.sum(1, keepdim=True) / count)

    @derived
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``: those of N - 1 sites."""
        return (self.mask.sum(1) - 1).clamp_min(0) * self.leaf.dimension

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self._centre(x + u)  # centring again avoids accumulation of rounding over many steps

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self._centre(y - x)

    def project(self, x: Tensor) -> Tensor:
        return self._centre(x)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self._centre(u)


@dataclass(frozen=True)
class Functions(Flat):
    """Functions known by their values at N sensors, with the inner product sum_i w_i f_i g_i of L² (Kerrigan,
    Migliorini & Smyth 2024). Binding reads the weights ``cond["weights"]`` ``(B, N)`` (default 1 / N), so that doubling
    the sensors leaves costs unchanged; priors and networks read the sensors' coordinates ``cond["coords"]`` ``(B, N,
    d)``. Gaussian tangents and densities are those of the sensor values.

    Args:
        channels: values at one sensor.
    """

    channels: int = 1

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.channels,)

    @derived
    def dimension(self) -> int:
        return self.channels

    def bind(self, context: Context) -> BoundFunctions:
        weights = context.cond.get("weights")
        if weights is None:
            weights = context.mask.double() / context.mask.sum(1, keepdim=True).clamp_min(1)
        if weights.shape != context.mask.shape:
            raise ValueError(
                f"cond['weights'] of Functions has shape {tuple(weights.shape)}; expected one weight a sensor, "
                f"{tuple(context.mask.shape)}."
            )
        coords, grid = context.cond.get("coords"), context.cond.get("grid")
        return BoundFunctions(
            self, context.mask, context.frozen("nodes"), context.known, weights=weights, coords=coords, grid=grid
        )


@dataclass(frozen=True, eq=False, repr=False)
class BoundFunctions(BoundLeaf):
    """The bound form of :class:`Functions`: sensors with quadrature weights ``(B, N)``, their coordinates ``(B, N,
    d)``, and the shape ``(B, d)`` of the regular grid if they form one."""

    _: KW_ONLY
    weights: Tensor
    coords: Tensor | None = None
    grid: Tensor | None = None

    @derived
    def measure(self) -> Tensor:
        weights = torch.where(self.free_mask, self.weights, 0.0)
        return total(weights).to(torch.get_default_dtype()) * self.leaf.dimension

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return total(self.weights.to(u) * self.leaf.dot(x, u, v))

    @property
    def shares_weights(self) -> bool:
        """Whether all samples have the same weights, so that distances are those of :meth:`whitened` points."""
        return bool((self.weights == self.weights[:1]).all())

    def whitened(self, x: Tensor) -> Tensor:
        """Values times the roots of their weights: the plain dot product is then the inner product."""
        return self.mask_tangent(x) * self.weights.to(x).sqrt()[..., None]

    def gradient(self, x: Tensor, ambient_grad: Tensor) -> Tensor:
        weights = expand_like(torch.where(self.free_mask, self.weights.to(x), 1.0), x)
        return self.mask_tangent(ambient_grad / weights)
