"""Faulty spaces, each caught by the law that is named for its fault; and right ones beside a boundary, which pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fm_science.spaces import SPD, Hyperbolic, Leaf, Sphere, Torus
from fm_science.testing import check_space
from fm_science.testing.differences import difference


@dataclass(frozen=True)
class Ratios(Leaf):
    """Positive numbers with the metric u v / x²: right, in five methods."""

    event, dimension = (1,), 1

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x * torch.exp(u / x)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return x * torch.log(y / x)

    def project(self, x: Tensor) -> Tensor:
        return x.abs().clamp_min(1e-12)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / x**2).flatten(1).sum(1)

    def origin(self, like: Tensor) -> Tensor:
        return like.new_ones(1)


@dataclass(frozen=True)
class Interval(Leaf):
    """Numbers between 0 and 1 by the line of their log-odds: right. Long steps of a difference leave sight of the
    boundary."""

    event, dimension = (1,), 1

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.sigmoid(torch.logit(x) + u / (x * (1 - x)))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (1 - x) * (torch.logit(y) - torch.logit(x))

    def project(self, x: Tensor) -> Tensor:
        return x.clamp(1e-7, 1 - 1e-7)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / (x * (1 - x)) ** 2).sum(-1)

    def origin(self, like: Tensor) -> Tensor:
        return like.new_full((1,), 0.5)


@dataclass(frozen=True)
class WrongSign(Ratios):
    def log_scale(self, x: Tensor) -> Tensor:
        return x.log().squeeze(-1)


@dataclass(frozen=True)
class WrongPower(SPD):
    """Half the volume that a unit of the entries is worth."""

    def log_scale(self, x: Tensor) -> Tensor:
        return 0.5 * super().log_scale(x)


@dataclass(frozen=True)
class NoScale(Ratios):
    def log_scale(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).squeeze(-1)


@dataclass(frozen=True)
class Oblique(Sphere):
    """Moves vectors along the first axis, instead of along the point, until they are tangent."""

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        axis = torch.eye(1, 3, dtype=x.dtype)[0]
        return u - (x * u).sum(-1, keepdim=True) / x[..., :1] * axis


@dataclass(frozen=True)
class FixedPlane(Sphere):
    """Takes the tangents at the origin for those of every point."""

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(u[..., :1]), u[..., 1:]], -1)


@dataclass(frozen=True)
class OffOrigin(Sphere):
    def origin(self, like: Tensor) -> Tensor:
        return 2 * super().origin(like)


@dataclass(frozen=True)
class FlatOrigin(Ratios):
    """Zero, the default, is no positive number."""

    def origin(self, like: Tensor) -> Tensor:
        return like.new_zeros(1)


@dataclass(frozen=True)
class BadShape(Ratios):
    def origin(self, like: Tensor) -> Tensor:
        return like.new_ones(())


@dataclass(frozen=True)
class Loose(Sphere):
    """Projects nothing."""

    def project(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Loud(Hyperbolic):
    def gaussian(self, x: Tensor) -> Tensor:
        return 1.3 * super().gaussian(x)


@dataclass(frozen=True)
class Fast(Sphere):
    """Twice the speed, there and back."""

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return super().exp(x, 2 * u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * super().log(x, y)


@dataclass(frozen=True)
class Large(Torus):
    volume = 2.0 * math.pi  # type: ignore[assignment]


@dataclass(frozen=True)
class Cut(Ratios):
    """Loses a derivative on the way."""

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x * torch.exp(u / x.detach())


FAULTS = [
    (WrongSign(), "divergence is that of the volume", "log_scale"),
    (WrongSign(), "densities integrate to one", "log_scale"),
    (WrongPower(2), "divergence is that of the volume", "log_scale"),
    (NoScale(), "densities integrate to one", "log_scale"),
    (Oblique(), "what tangent takes away is orthogonal to tangents", "tangent"),
    (FixedPlane(), "exp leaves x with the velocity u", "tangent"),
    (OffOrigin(), "the origin is a point", "origin"), (FlatOrigin(), "the origin is a point", "origin"),
    (BadShape(), "the origin has the shape of a point", "origin"),
    (Loose(), "project reaches a point", "project"),
    (Loud(), "gaussian has unit variance in the metric", "gaussian"),
    (Fast(), "exp leaves x with the velocity u", "exp"),
    (Large(2), "the volume is that of exp", "volume"),
    (Cut(), "jvp of exp is its derivative", "exp"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "law", "method"), FAULTS, ids=lambda v: v if isinstance(v, str) else repr(v))
def test_a_fault_is_caught_by_its_law(space, law, method):
    with pytest.raises(AssertionError, match=rf"{law}.*; mend .*{method}"):
        check_space(space, sites=(1, 2), seeds=(0,), frozen=False)


@pytest.mark.parametrize("space", [Ratios(), Interval()], ids=repr)
def test_right_spaces_pass(space):
    check_space(space, sites=(1, 3), seeds=(0,))


def test_beside_a_boundary():
    check_space(Interval(), sites=(1, 3), seeds=(0, 1), spread=3.0)  # up to 1e-4 of a boundary


def test_the_worst_point_is_printed():
    with pytest.raises(AssertionError, match=r"jvp of exp.*differences .* at sample \d, site \d, x = \["):
        check_space(Cut(), sites=(1, 2), seeds=(0,), frozen=False)


@pytest.mark.parametrize("x", [1.0, 1e-3, 1e-6])
def test_a_difference_knows_its_error(x):
    start = torch.tensor([[x]], dtype=torch.float64)
    value, bound = difference(lambda h: (start + h).log())  # beside the boundary, long steps give NaN
    assert abs(float(value) * x - 1) <= 10 * float(bound) * x
    assert float(bound) * x < 1e-3


def test_a_metric_of_its_own_gives_volume_and_gaussian_tangents():
    x = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(Ratios().log_scale(x), -x.log().squeeze(-1))
    torch.manual_seed(0)
    g = Interval().gaussian(x.clamp_max(0.9).expand(3, 1)[:, None].expand(3, 4000, 1))
    expected = (x.clamp_max(0.9) * (1 - x.clamp_max(0.9))).squeeze()
    torch.testing.assert_close(g.std(1).squeeze(), expected, rtol=5 / 8000**0.5, atol=0)
