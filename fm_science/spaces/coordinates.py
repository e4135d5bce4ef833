"""Tangents of a space whose metric is not that of its coordinates.

Moving each coordinate separately gives tangents that span all others. Their inner products, the Gram matrix, determine
the whole metric: gradients follow from it, and tangents that are standard normal, on any space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fm_science.spaces.base import Leaf


def frame(leaf: Leaf, x: Tensor, sites: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The tangents of the coordinates, ``(D, *sites, *tangent_event)``, and their inner products ``(*sites, D, D)``."""
    shape, size = leaf.tangent_event, math.prod(leaf.tangent_event)
    axes = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, *[1] * len(sites), *shape)
    basis = torch.stack([leaf.tangent(x, axis.expand(*sites, *shape)) for axis in axes])
    return basis, torch.stack([torch.stack([leaf.dot(x, u, v) for u in basis], -1) for v in basis], -1)


def combined(basis: Tensor, weights: Tensor) -> Tensor:
    """The sum of tangents ``(D, *sites, *tangent_event)`` with ``weights`` ``(*sites, D)``."""
    weights = weights.movedim(-1, 0)
    return (weights.reshape(*weights.shape, *[1] * (basis.ndim - weights.ndim)) * basis).sum(0)


def raise_index(leaf: Leaf, x: Tensor, rate: Tensor) -> Tensor:
    """The tangent whose inner product with each tangent u is the plain product of ``rate`` with u, for any metric: by
    the Gram matrix of the tangents that belong to the coordinates."""
    basis, gram = frame(leaf, x, rate.shape[: rate.ndim - len(leaf.tangent_event)])
    rates = (basis * rate).flatten(-len(leaf.tangent_event)).sum(-1).movedim(0, -1)
    return combined(basis, (torch.linalg.pinv(gram, hermitian=True) @ rates[..., None])[..., 0])


def whitened(leaf: Leaf, x: Tensor, normal: Tensor) -> Tensor:
    """A standard normal tangent in any metric from independent normal numbers: their sum over the tangents of the
    coordinates, weighted by the inverse root of the Gram matrix of these."""
    axes = len(leaf.tangent_event)
    basis, gram = frame(leaf, x, normal.shape[: normal.ndim - axes])
    values, vectors = torch.linalg.eigh(gram)
    real = values > values.shape[-1] * torch.finfo(x.dtype).eps * values[..., -1:]  # the others are not directions
    scales = torch.where(real, values, 1.0).rsqrt() * real
    return combined(basis, (vectors @ (scales * normal.flatten(-axes))[..., None])[..., 0])
