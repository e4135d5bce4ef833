"""Symmetric positive definite matrices: covariances, diffusion tensors, conductivities.

The affine-invariant metric (Pennec, Fillard & Ayache 2006) gives the tangent U at X the length |L^-1 U L^-T| for any
L L' = X, here the Cholesky factor: congruences X -> A X A' are isometries, singular matrices are infinitely far away,
and every two points are joined by one geodesic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import Leaf
from fm_science.spaces.eigen import lift_eigenvalues, sym_exp, sym_log1p, sym_sqrt, symmetric
from fm_science.spaces.numerics import log_sinhc


@dataclass(frozen=True)
class SPD(Leaf):
    """Symmetric positive definite n x n matrices with the affine-invariant metric. Tangents are symmetric matrices;
    volume is Lebesgue at the identity, in an orthonormal basis (off-diagonal coordinates times sqrt 2).

    Args:
        n: size of the matrices.
        on: where the sites are: "nodes", "edges" or "graph".
        floor: ``project`` raises eigenvalues to at least this fraction of the largest one.
    """

    n: int
    on: str = "nodes"
    floor: float = 1e-6
    isometric = True
    point = "symmetric matrices with positive eigenvalues"

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.n, self.n)

    @derived
    def dimension(self) -> int:
        return self.n * (self.n + 1) // 2

    def origin(self, like: Tensor) -> Tensor:
        return torch.eye(self.n, dtype=like.dtype, device=like.device)

    def _factor(self, x: Tensor) -> Tensor:
        return torch.linalg.cholesky_ex(x)[0]

    def _whiten(self, factor: Tensor, u: Tensor) -> Tensor:
        """L^-1 u L^-T."""
        half = torch.linalg.solve_triangular(factor, u, upper=False)
        return symmetric(torch.linalg.solve_triangular(factor, half.mT, upper=False))

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        factor = self._factor(x)
        return (self._whiten(factor, u) * self._whiten(factor, v)).sum((-2, -1))

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        factor = self._factor(x)
        return symmetric(factor @ sym_exp(self._whiten(factor, u)) @ factor.mT)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        factor = self._factor(x)
        return symmetric(factor @ sym_log1p(self._whiten(factor, y - x)) @ factor.mT)

    def project(self, x: Tensor) -> Tensor:
        x = symmetric(x)
        largest = torch.linalg.eigvalsh(x.detach())[..., -1:]
        return lift_eigenvalues(x, self.floor * torch.where(largest > 0, largest, 1.0))

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return symmetric(u)

    def gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        return symmetric(x @ symmetric(slope) @ x)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Parallel along the geodesic: E u E' with E = (y x^-1)^(1/2)."""
        factor = self._factor(x)
        half = factor @ sym_sqrt(self._whiten(factor, y))
        e = torch.linalg.solve_triangular(factor.mT, half.mT, upper=True).mT
        return symmetric(e @ u @ e.mT)

    def gaussian(self, x: Tensor) -> Tensor:
        # entries of variance 1 on the diagonal and 1/2 off it: standard in an orthonormal basis
        normal = symmetric(torch.randn(x.shape, dtype=x.dtype, device=x.device))
        factor = self._factor(x)
        return symmetric(factor @ normal @ factor.mT)

    def log_scale(self, x: Tensor) -> Tensor:
        """Logarithm of the Riemannian volume of a unit of the matrix entries at ``x``: -(n + 1) / 2 log det x."""
        # by the factor: forward derivatives of slogdet cannot be differentiated again
        return -(self.n + 1) * self._factor(x).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(self._whiten(self._factor(x), u))
        rows, columns = torch.triu_indices(self.n, self.n, 1, device=u.device)
        return log_sinhc(0.5 * (values[..., columns] - values[..., rows])).sum(-1)
