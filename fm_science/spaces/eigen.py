"""Functions of symmetric matrices, with derivatives of every order.

For a = V l V' a function acts on the eigenvalues, f(a) = V f(l) V'. Its first derivative along e is
V (f[l_i, l_j] * V' e V) V' (Daleckii & Krein 1965), with f[p, q] = (f(p) - f(q)) / (p - q) the divided difference. The
derivative of order k along e_1 ... e_k is, in the same basis,

    sum_s sum_(i1, i2, ...) f[l_i, l_i1, l_i2, ..., l_j] (e_s1)_(i, i1) (e_s2)_(i1, i2) ... (e_sk)_(.., j),

s all orders of the directions. It is linear in each of them and symmetric, so one more derivative, forward or
backward, is the next order of the same expression: all of them are correct, also where eigenvalues coincide and
eigenvectors have no derivative.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.numerics import ratio, sinhc

TERMS = 16  #: of the Taylor series of divided differences of close points
CLOSE = 0.25  #: largest distance of close points, in units of the radius of a function


def symmetric(a: Tensor) -> Tensor:
    """The symmetric part of matrices ``(..., n, n)``."""
    return 0.5 * (a + a.mT)


class Analytic(ABC):
    """A function of a real number, elementwise."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """f(x)."""

    @abstractmethod
    def slope(self, p: Tensor, q: Tensor) -> Tensor:
        """The divided difference (f(p) - f(q)) / (p - q), which is f'(p) at p = q."""

    @abstractmethod
    def coefficient(self, c: Tensor, order: int) -> Tensor:
        """The Taylor coefficient at ``c`` of an order of at least two: the derivative over the factorial."""

    @abstractmethod
    def radius(self, c: Tensor) -> Tensor:
        """A length over which f changes by a factor of order one around ``c``, at most its distance to the nearest
        point where f is not analytic."""


def matrix_function(f: Analytic, a: Tensor) -> Tensor:
    """f of symmetric matrices ``(..., n, n)``; differentiable any number of times, in both modes."""
    return _Value.apply(a, f)[0]


class _Value(torch.autograd.Function):
    """f(a), with the eigenvalues and eigenvectors of ``a``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, f: Analytic) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(a)
        return (vectors * f(values)[..., None, :]) @ vectors.mT, values, vectors

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        a, ctx.f = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(a, *output[1:])
        ctx.save_for_forward(a, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Derivative.apply(ctx.f, *ctx.saved_tensors, grads[0]), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, None, None]:
        return _Derivative.apply(ctx.f, *ctx.saved_tensors, tangents[0]), None, None


class _Derivative(torch.autograd.Function):
    """The derivative of f(a) along ``directions``, one for each order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(f: Analytic, a: Tensor, values: Tensor, vectors: Tensor, *directions: Tensor) -> Tensor:
        turned = [vectors.mT @ symmetric(e) @ vectors for e in directions]
        differences = divided_differences(f, values, len(turned))
        axes = "abcdefgh"[: len(turned) + 1]
        words = ",".join(f"...{pair[0]}{pair[1]}" for pair in itertools.pairwise(axes))
        rule = f"...{axes},{words}->...{axes[0]}{axes[-1]}"
        orders = [torch.einsum(rule, differences, *order) for order in itertools.permutations(turned)]
        return symmetric(vectors @ sum(orders[1:], orders[0]) @ vectors.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.f, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted: tuple[bool, ...] = ctx.needs_input_grad
        kept: tuple[Tensor, ...] = ctx.saved_tensors
        a, values, vectors, directions = kept[0], kept[1], kept[2], kept[3:]
        by_a = _Derivative.apply(ctx.f, a, values, vectors, *directions, grads[0]) if wanted[1] else None
        swapped = [
            _Derivative.apply(ctx.f, a, values, vectors, *directions[:j], grads[0], *directions[j + 1 :])
            if wanted[4 + j]
            else None
            for j in range(len(directions))
        ]
        return None, by_a, None, None, *swapped

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        a, values, vectors, *directions = ctx.saved_tensors
        _, motion, _, _, *moved = tangents
        terms = [] if motion is None else [[*directions, motion]]
        terms += [[*directions[:j], e, *directions[j + 1 :]] for j, e in enumerate(moved) if e is not None]
        rates = [_Derivative.apply(ctx.f, a, values, vectors, *es) for es in terms]
        return rates[0] if len(rates) == 1 else _Sum.apply(*rates)


class _Sum(torch.autograd.Function):
    """A sum of tensors of one shape. Within a forward rule, where plain operations lose the tangents of modes around
    it, functions with their own rules keep them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*terms: Tensor) -> Tensor:
        return torch.stack(terms).sum(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.count = len(inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return (grads[0],) * ctx.count

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        moving = [t for t in tangents if t is not None]
        return _Sum.apply(*moving)


def divided_differences(f: Analytic, values: Tensor, order: int) -> Tensor:
    """f[l_i0, ..., l_ik] for all choices of k + 1 of the n ``values`` ``(..., n)``: ``(..., n, ..., n)``.

    Sorted points are combined by Newton's recursion where they are far apart, and where they are close by the Taylor
    series f[x0, ..., xk] = sum_m f_(k+m) h_m, with the complete homogeneous polynomials h_m of their distances from
    the middle.
    """
    grids = [
        values.reshape(*values.shape[:-1], *(values.shape[-1] if i == j else 1 for i in range(order + 1)))
        for j in range(order + 1)
    ]
    if order == 1:
        return f.slope(*grids)
    x = torch.stack(torch.broadcast_tensors(*grids), -1).sort(-1)[0].unbind(-1)
    table = [f.slope(p, q) for p, q in itertools.pairwise(x)]
    for k in range(2, order + 1):
        table = [_combined(f, x[i : i + k + 1], table[i], table[i + 1]) for i in range(len(table) - 1)]
    return table[0]


def _combined(f: Analytic, x: tuple[Tensor, ...], low: Tensor, high: Tensor) -> Tensor:
    """The divided difference of sorted points from those without the last and without the first."""
    spread, middle = x[-1] - x[0], 0.5 * (x[0] + x[-1])
    close = spread <= CLOSE * f.radius(middle)
    apart = (high - low) / torch.where(close, 1.0, spread)
    return torch.where(close, _taylor(f, middle, [torch.where(close, p - middle, 0.0) for p in x]), apart)


def _taylor(f: Analytic, middle: Tensor, gaps: list[Tensor]) -> Tensor:
    """sum_m f_(k+m)(middle) h_m(gaps), k + 1 gaps."""
    homogeneous = [torch.ones_like(middle)] + [torch.zeros_like(middle)] * (TERMS - 1)
    for gap in gaps:
        for m in range(1, TERMS):
            homogeneous[m] = homogeneous[m] + gap * homogeneous[m - 1]
    k = len(gaps) - 1
    terms = [f.coefficient(middle, k + m) * h for m, h in enumerate(homogeneous)]
    return sum(terms[1:], terms[0])


class _Exp(Analytic):
    def __call__(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def slope(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.exp(0.5 * (p + q)) * sinhc(0.5 * (p - q))

    def coefficient(self, c: Tensor, order: int) -> Tensor:
        return torch.exp(c) / math.factorial(order)

    def radius(self, c: Tensor) -> Tensor:
        return torch.ones_like(c)


class _Log1p(Analytic):
    def _shifted(self, x: Tensor) -> Tensor:
        return (1 + x).clamp_min(torch.finfo(x.dtype).eps)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.log1p(x.clamp_min(torch.finfo(x.dtype).eps - 1))

    def slope(self, p: Tensor, q: Tensor) -> Tensor:
        """log((1 + p) / (1 + q)) / (p - q), by atanh of the relative difference."""
        mean = (2 + p + q).clamp_min(torch.finfo(p.dtype).eps)
        far = ((p - q) / mean).clamp(-1 + torch.finfo(p.dtype).eps, 1 - torch.finfo(p.dtype).eps)
        return 2 * ratio(torch.atanh(far), far, 1.0) / mean

    def coefficient(self, c: Tensor, order: int) -> Tensor:
        return (-1) ** (order - 1) / (order * self._shifted(c) ** order)

    def radius(self, c: Tensor) -> Tensor:
        return self._shifted(c)


class _Sqrt(Analytic):
    def __call__(self, x: Tensor) -> Tensor:
        return x.clamp_min(torch.finfo(x.dtype).tiny).sqrt()

    def slope(self, p: Tensor, q: Tensor) -> Tensor:
        return 1 / (self(p) + self(q))

    def coefficient(self, c: Tensor, order: int) -> Tensor:
        binomial = math.prod((0.5 - i) / (i + 1) for i in range(order))
        return binomial * self(c) / self.radius(c) ** order

    def radius(self, c: Tensor) -> Tensor:
        return c.clamp_min(torch.finfo(c.dtype).tiny)


class _Missing(Analytic):
    """The amount by which a number is negative, max(-x, 0)."""

    def __call__(self, x: Tensor) -> Tensor:
        return (-x).clamp_min(0)

    def slope(self, p: Tensor, q: Tensor) -> Tensor:
        return ratio(self(p) - self(q), p - q, 0.0) - ((p == q) & (p < 0)).to(p)

    def coefficient(self, c: Tensor, order: int) -> Tensor:
        return torch.zeros_like(c)

    def radius(self, c: Tensor) -> Tensor:
        return c.abs()


def sym_exp(a: Tensor) -> Tensor:
    """The exponential of symmetric matrices."""
    return matrix_function(_Exp(), a)


def sym_log1p(a: Tensor) -> Tensor:
    """log(1 + a) of symmetric matrices with eigenvalues above -1; accurate for small ``a``."""
    return matrix_function(_Log1p(), a)


def sym_sqrt(a: Tensor) -> Tensor:
    """The square root of positive definite matrices."""
    return matrix_function(_Sqrt(), a)


def lift_eigenvalues(a: Tensor, floor: Tensor) -> Tensor:
    """Symmetric ``a`` with the eigenvalues below ``floor`` ``(..., 1)`` raised to it; other matrices unchanged."""
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return a + matrix_function(_Missing(), a - floor.detach()[..., None] * identity)
