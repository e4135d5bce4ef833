"""Positive numbers, where a step multiplies: prices, concentrations, sizes.

The metric is u v / x², so that the distance from 1 to 2 equals that from 10 to 20: geodesics are geometric
progressions. All methods take any number of leading axes; the engine handles batches, padding and frozen sites.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_science import Leaf

SMALLEST = 1e-12  # replaces numbers that are not positive


@dataclass(frozen=True)
class Ratios(Leaf):
    """Positive numbers with the metric u v / x²; exp(x, u) = x e^(u/x). Points and tangents are ``(..., 1)``."""

    event, dimension = (1,), 1
    point = "positive numbers"

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x * (u / x).exp()

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (y / x).log()

    def project(self, x: Tensor) -> Tensor:
        return x.clamp_min(SMALLEST)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / x**2).sum(-1)

    def origin(self, like: Tensor) -> Tensor:
        return like.new_ones(1)
