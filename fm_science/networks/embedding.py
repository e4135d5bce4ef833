"""What a network is shown of a point, and how it says a tangent: one embedding a space.

A network wants numbers that are smooth on the space, tell all its points apart and have a size of about one. An
:class:`Embedding` gives them: coordinates, and waves of several lengths along random directions (random Fourier
features; Rahimi & Recht 2007, Tancik et al. 2020), since a perceptron of plain coordinates learns fine structure last.
Each space has its own, found by :func:`embedding`, which dispatches on the class of the space. A space that has none is
shown by its ambient coordinates; one of your own registers a better one:

    class DiscEmbedding(Embedding):
        def coordinates(self, x): ...

    embedding.register(Disc, DiscEmbedding)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn

from fm_science.errors import OptionError
from fm_science.spaces import SO3, SPD, Categorical, Functions, Hyperbolic, Leaf, Mesh, Sphere, Torus
from fm_science.spaces.eigen import sym_log1p
from fm_science.spaces.numerics import even_norm

WAVES = 32  # waves of each length


class Embedding(nn.Module):
    """Features of the points of a leaf space: coordinates c, and the sines and cosines of c . k for wave vectors k.

    A subclass overrides what its space asks for: ``coordinates``, ``wave_vectors``, ``tangent`` with ``coefficients``,
    and the default ``lengths``.

    Args:
        space: whose points are shown.
        scales: standard deviations of the wave vectors, in radians a unit of the coordinates; ``None``: the default of
            the space; empty: no waves.
        waves: wave vectors of each scale.

    Attributes:
        features: how many numbers describe a point.

    Raises OptionError for scales that are not positive.
    """

    default_scales: Sequence[float] = (0.5, 1.0, 2.0)
    directions: Tensor

    def __init__(self, space: Leaf, scales: Sequence[float] | None = None, waves: int = WAVES) -> None:
        super().__init__()
        self.space, self.scales = space, tuple(self.default_scales if scales is None else scales)
        if any(scale <= 0 for scale in self.scales):
            raise OptionError(f"scales={self.scales}: expected positive numbers, in radians a unit of length.")
        origin = space.origin(torch.empty(()))
        size = self.coordinates(origin).shape[-1]
        generator = torch.Generator().manual_seed(0)  # the waves are part of the architecture: the same in every run
        self.register_buffer("directions", self.wave_vectors(size, waves, generator))
        self.features: int = self(origin).shape[-1]

    @property
    def coefficients(self) -> int:
        """How many numbers make a tangent."""
        return math.prod(self.space.tangent_event)

    def coordinates(self, x: Tensor) -> Tensor:
        """Points ``(..., *event)`` as ``(..., C)``: here their ambient coordinates."""
        return x.flatten(-len(self.space.event))

    def wave_vectors(self, size: int, waves: int, generator: torch.Generator) -> Tensor:
        """Wave vectors ``(C, K)``, Gaussian ones of each scale."""
        drawn = [scale * torch.randn(size, waves, generator=generator) for scale in self.scales]
        return torch.cat([torch.zeros(size, 0), *drawn], 1)

    def tangent(self, x: Tensor, raw: Tensor) -> Tensor:
        """``(..., coefficients)`` as tangents at ``x``, ``(..., *tangent_event)``: of length about one where the
        coefficients are. Here they are the ambient components, of which the space keeps the tangential part."""
        return raw.unflatten(-1, self.space.tangent_event)

    def forward(self, x: Tensor) -> Tensor:
        """Points ``(..., *event)`` as features ``(..., features)``."""
        c = self.coordinates(x)
        phase = c @ self.directions.to(c)
        return torch.cat([c, phase.sin(), phase.cos()], -1)


class SphereEmbedding(Embedding):
    """Unit vectors, and waves that see structure down to a few degrees."""

    default_scales = (1.0, 3.0, 8.0, 20.0, 50.0)


class TorusEmbedding(Embedding):
    """Harmonics sin(k . x) and cos(k . x) with whole numbers k: the first ones of each angle, and the Gaussian wave
    vectors rounded, which see how angles go together. They are periodic, as the angles are not."""

    default_scales = (1.0, 3.0, 8.0)

    def wave_vectors(self, size: int, waves: int, generator: torch.Generator) -> Tensor:
        drawn = super().wave_vectors(size, waves, generator).round()
        vectors = torch.cat([torch.eye(size), drawn], 1).T
        first = vectors.ne(0).long().argmax(1, keepdim=True)
        vectors = vectors * vectors.gather(1, first).sign()  # k and -k are one wave
        return vectors[vectors.ne(0).any(1)].unique(dim=0).T

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.directions.to(x)
        return torch.cat([phase.sin(), phase.cos()], -1)


class SO3Embedding(Embedding):
    """The nine entries of a rotation and waves of them."""

    default_scales = (1.0, 3.0, 8.0)


class HyperbolicEmbedding(Embedding):
    """Normal coordinates at the origin, log_o(x), which grow as the distance does and not as its exponential; and
    tangents carried in parallel from the origin, so that their Lorentzian length is that of the coefficients."""

    space: Hyperbolic
    default_scales = (1.0, 4.0, 12.0)

    @property
    def coefficients(self) -> int:
        return self.space.dimension

    def coordinates(self, x: Tensor) -> Tensor:
        n = even_norm(x[..., 1:])
        return torch.asinh(n) / n * x[..., 1:]

    def tangent(self, x: Tensor, raw: Tensor) -> Tensor:
        return self.space.transport(self.space.origin(x).expand_as(x), x, nn.functional.pad(raw, (1, 0)))


class SPDEmbedding(Embedding):
    """The entries of the matrix logarithm, off-diagonal ones times sqrt 2 (the log-Euclidean chart of Arsigny et al.
    2006): they hold the log-eigenvalues and the axes. Tangents are L S L' with L L' = x and symmetric S, whose
    affine-invariant length is that of the coefficients."""

    space: SPD

    @property
    def coefficients(self) -> int:
        return self.space.dimension

    def coordinates(self, x: Tensor) -> Tensor:
        i, j = torch.triu_indices(*x.shape[-2:])
        logarithm = sym_log1p(x - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))
        return logarithm[..., i, j] * torch.where(i == j, 1.0, math.sqrt(2)).to(x)

    def tangent(self, x: Tensor, raw: Tensor) -> Tensor:
        i, j = torch.triu_indices(*x.shape[-2:])
        basis = torch.zeros(len(i), *x.shape[-2:])  # orthonormal in the symmetric matrices
        basis[range(len(i)), i, j] = basis[range(len(i)), j, i] = torch.where(i == j, 1.0, math.sqrt(0.5))
        factor = torch.linalg.cholesky_ex(x)[0]
        return factor @ (raw @ basis.to(raw).flatten(1)).unflatten(-1, basis.shape[1:]) @ factor.mT


class CategoricalEmbedding(Embedding):
    """One-hot classes, which need no waves."""

    default_scales = ()


class MeshEmbedding(Embedding):
    """Places on a surface, in units of the root of its area."""

    default_scales = (1.0, 3.0, 8.0)

    def coordinates(self, x: Tensor) -> Tensor:
        return x / math.sqrt(self.space.volume)


@singledispatch
def embedding(space: Leaf, scales: Sequence[float] | None = None, waves: int = WAVES) -> Embedding:
    """The embedding of a leaf space: the one that is registered for its class or the nearest base of it, else ambient
    coordinates with waves.

    Raises:
        TypeError: for what is no leaf space, and for functions, which no fixed number of values describes.
    """
    if not isinstance(space, Leaf):
        raise TypeError(f"{space!r} is no leaf space: expected a Leaf such as Sphere(2), not bound to a batch.")
    return Embedding(space, scales, waves)


for kind, made in (
    (Sphere, SphereEmbedding), (Torus, TorusEmbedding), (SO3, SO3Embedding), (Hyperbolic, HyperbolicEmbedding),
    (SPD, SPDEmbedding), (Categorical, CategoricalEmbedding), (Mesh, MeshEmbedding),
):  # fmt: skip
    embedding.register(kind, made)


@embedding.register
def _(space: Functions, scales: Sequence[float] | None = None, waves: int = WAVES) -> Embedding:
    raise TypeError(f"{space!r} has no points of a few numbers: use FNO or LatentOperator, which see whole functions.")
