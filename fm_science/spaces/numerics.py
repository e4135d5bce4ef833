"""Elementary functions whose values and gradients stay finite where textbook formulas divide zero by zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def safe_sqrt(square: Tensor) -> Tensor:
    """The square root with a zero gradient, instead of an infinite one, at zero."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def dot(u: Tensor, v: Tensor) -> Tensor:
    """The dot product of vectors ``(..., d)``, as ``(..., 1)``."""
    product = u * v
    if product.shape[-1] > 4:
        return product.sum(-1, keepdim=True)
    first, *rest = product.unbind(-1)  # over short axes torch adds columns faster than it sums
    return sum(rest, first).unsqueeze(-1)


def safe_norm(u: Tensor) -> Tensor:
    """The length of vectors ``(..., d)`` as ``(..., 1)``, with a zero gradient at zero."""
    return safe_sqrt(dot(u, u))


def even_root(square: Tensor) -> Tensor:
    """The square root for use in even functions only, such as cosh or sinh(x) / x. It is never zero, which does not
    change such a function, and values below zero by rounding are treated as zero; its gradient is still that of the
    square, so that all derivatives of the even function are correct at zero too."""
    least = torch.finfo(square.dtype).tiny ** 0.5
    return torch.where(square > least, square, (square - square.detach()) + least).sqrt()


def even_norm(u: Tensor) -> Tensor:
    """The length of vectors ``(..., d)`` as ``(..., 1)`` for use in even functions only; see :func:`even_root`."""
    return (dot(u, u) + torch.finfo(u.dtype).tiny ** 0.5).sqrt()


def ratio(top: Tensor, bottom: Tensor, limit: float) -> Tensor:
    """``top / bottom`` where ``bottom`` is not zero, and ``limit``, without gradient, where it is."""
    nonzero = bottom != 0
    return torch.where(nonzero, top / torch.where(nonzero, bottom, 1.0), limit)


def sinc(x: Tensor) -> Tensor:
    """sin(x) / x."""
    return torch.sinc(x / math.pi)


def sinhc(x: Tensor) -> Tensor:
    """sinh(x) / x."""
    return ratio(torch.sinh(x), x, 1.0)


def log_sinhc(x: Tensor) -> Tensor:
    """log(sinh(x) / x) for x >= 0, without overflow."""
    large = x > 1e-3  # below, the series to x^4; the terms of the closed form would cancel
    safe = torch.where(large, x, 1.0)
    closed = safe - math.log(2) + torch.log(-torch.expm1(-2 * safe) / safe)
    return torch.where(large, closed, x * x / 6 - x**4 / 180)


def windings(angle: Tensor, turns: int) -> Tensor:
    """Angles ``(...)`` with -turns to turns full turns added, ``(2 turns + 1, ...)``."""
    k = torch.arange(-turns, turns + 1, dtype=angle.dtype, device=angle.device)
    return angle + 2 * math.pi * k.reshape(-1, *[1] * angle.ndim)
