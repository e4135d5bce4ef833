"""Symmetric positive definite matrices: covariances, diffusion tensors, conductivities.

The affine-invariant metric (Pennec, Fillard & Ayache 2006) gives the tangent U at X the length |L^-1 U L^-T| for any
L L' = X, here the Cholesky factor: congruences X -> A X A' are isometries, singular matrices are infinitely far away,
and every two points are joined by one geodesic. Functions of symmetric matrices are taken on eigenvalues, with the
derivative of Daleckii & Krein (1965), which stays finite where eigenvalues coincide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import Leaf
from fm_science.spaces.numerics import log_sinhc, ratio, sinhc

Scalar = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]


def symmetric(a: Tensor) -> Tensor:
    """The symmetric part of matrices ``(..., n, n)``."""
    return 0.5 * (a + a.mT)


class _Spectral(torch.autograd.Function):
    """V f(l) V' for a = V l V'; its derivative along e is V (slope(l_i, l_j) * V' e V) V'. Second derivatives go
    through the eigenvectors and need distinct eigenvalues."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, f: Scalar, slope: Slope) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(a)
        return (vectors * f(values)[..., None, :]) @ vectors.mT, values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, _, ctx.slope = inputs
        _, values, vectors = output
        ctx.mark_non_differentiable(values, vectors)
        ctx.save_for_backward(a, values, vectors)
        ctx.save_for_forward(a, values, vectors)

    @staticmethod
    def _along(ctx: Any, e: Tensor) -> Tensor:
        a, values, vectors = ctx.saved_tensors
        if torch.is_grad_enabled() and a.requires_grad:
            values, vectors = torch.linalg.eigh(a)
        slopes = ctx.slope(values[..., :, None], values[..., None, :])
        return symmetric(vectors @ (slopes * (vectors.mT @ symmetric(e) @ vectors)) @ vectors.mT)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Spectral._along(ctx, grads[0]), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        return _Spectral._along(ctx, tangents[0]), None, None


def spectral(a: Tensor, f: Scalar, slope: Slope) -> Tensor:
    """A function of symmetric matrices ``(..., n, n)``.

    Args:
        a: the matrices.
        f: the function of an eigenvalue.
        slope: its divided difference (f(p) - f(q)) / (p - q), which is f'(p) at p = q.
    """
    return _Spectral.apply(a, f, slope)[0]  # type: ignore[no-untyped-call]


def sym_exp(a: Tensor) -> Tensor:
    """The exponential of symmetric matrices."""
    return spectral(a, torch.exp, lambda p, q: torch.exp(0.5 * (p + q)) * sinhc(0.5 * (p - q)))


def _log1p(x: Tensor) -> Tensor:
    return torch.log1p(x.clamp_min(torch.finfo(x.dtype).eps - 1))


def _log1p_slope(p: Tensor, q: Tensor) -> Tensor:
    """log((1 + p) / (1 + q)) / (p - q), by atanh of the relative difference."""
    mean = (2 + p + q).clamp_min(torch.finfo(p.dtype).eps)
    far = ((p - q) / mean).clamp(-1 + torch.finfo(p.dtype).eps, 1 - torch.finfo(p.dtype).eps)
    return 2 * ratio(torch.atanh(far), far, 1.0) / mean


def sym_log1p(a: Tensor) -> Tensor:
    """log(1 + a) of symmetric matrices with eigenvalues above -1; accurate for small ``a``."""
    return spectral(a, _log1p, _log1p_slope)


def sym_sqrt(a: Tensor) -> Tensor:
    """The square root of positive definite matrices."""

    def f(x: Tensor) -> Tensor:
        return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()

    return spectral(a, f, lambda p, q: 1 / (f(p) + f(q)))


def _missing(x: Tensor) -> Tensor:
    return (-x).clamp_min(0)


def _missing_slope(p: Tensor, q: Tensor) -> Tensor:
    return ratio(_missing(p) - _missing(q), p - q, 0.0) - ((p == q) & (p < 0)).to(p)


def lift_eigenvalues(a: Tensor, floor: Tensor) -> Tensor:
    """Symmetric ``a`` with the eigenvalues below ``floor`` ``(..., 1)`` raised to it; other matrices unchanged."""

    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return a + spectral(a - floor.detach()[..., None] * identity, _missing, _missing_slope)


@dataclass(frozen=True)
class SPD(Leaf):
    """Symmetric positive definite n x n matrices with the affine-invariant metric. Tangents are symmetric matrices;
    volume is Lebesgue at the identity, in an orthonormal basis (off-diagonal coordinates times sqrt 2).

    Args:
        n: size of the matrices.
        on: where the sites lie: "nodes", "edges" or "graph".
        floor: ``project`` raises eigenvalues to at least this fraction of the largest one.
    """

    n: int
    on: str = "nodes"
    floor: float = 1e-6
    isometric = True

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
        return -0.5 * (self.n + 1) * torch.linalg.slogdet(x)[1]

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(self._whiten(self._factor(x), u))
        rows, columns = torch.triu_indices(self.n, self.n, 1, device=u.device)
        return log_sinhc(0.5 * (values[..., columns] - values[..., rows])).sum(-1)
