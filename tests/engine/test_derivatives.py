"""What training descends is the gradient of what it reports, on every space and in every order of modes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from decimal import Decimal, getcontext

import pytest
import torch
from torch import Tensor

from fm_science import (
    SO3,
    SPD,
    Centered,
    Euclidean,
    Functions,
    Hyperbolic,
    Product,
    Sphere,
    Torus,
)
from fm_science.spaces.eigen import _Exp, _Log1p, _Sqrt, divided_differences, sym_exp, sym_log1p, sym_sqrt
from fm_science.testing import check_derivatives

SPACES = [
    Centered(), Functions(2), Torus(2), Sphere(1), Sphere(2), Hyperbolic(2), SO3(), SPD(2), SPD(3),
    Product(place=Euclidean(2), way=Sphere(), spread=SPD(2)),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_derivatives_are_central_differences(space):
    check_derivatives(space)


@dataclass(frozen=True)
class Detached(Sphere):
    """Loses the derivative of a factor, which no value shows."""

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        u = super().log(x, y)
        return u * (1 + 0.1 * (u - u.detach()))


def test_a_lost_derivative_is_found():
    with pytest.raises(AssertionError, match="second derivative of log"):
        check_derivatives(Detached(2))


@pytest.mark.parametrize(
    "f",
    [sym_exp, lambda a: sym_log1p(0.2 * a), lambda a: sym_sqrt(a + 4 * torch.eye(3).double())],
    ids=["exp", "log1p", "sqrt"],
)
@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0), (1.0, 1.0, 2.0), (0.5, 0.5 + 1e-9, 3.0), (-0.4, 1.0, 2.0)])
def test_functions_of_matrices_have_third_derivatives_at_equal_eigenvalues(f, values):
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    a = (turn * torch.tensor(values, dtype=torch.float64)) @ turn.mT
    e = [torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(1, 5)]

    def fn(h: Tensor) -> Tensor:
        b = a + h * (e[0] + e[0].mT) + h * h * (e[1] + e[1].mT)
        return (e[2] * f(b)).sum()

    zero = torch.zeros((), dtype=torch.float64)
    modes = [lambda g: torch.func.grad(g), lambda g: lambda h: torch.func.jvp(g, (h,), (torch.ones_like(h),))[1]]
    for order in itertools.product(modes, repeat=2):
        second = order[1](order[0](fn))
        step = torch.full_like(zero, 1e-4)
        for mode in modes:
            difference = (second(step) - second(-step)) / (2 * step)
            torch.testing.assert_close(mode(second)(zero), difference, rtol=1e-5, atol=1e-5)


def test_the_forward_derivative_knows_what_it_depends_on():
    a = torch.eye(3, dtype=torch.float64).requires_grad_()
    e = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    rate = torch.func.jvp(sym_exp, (a,), (e,))[1]
    (slope,) = torch.autograd.grad(rate.trace(), a)
    torch.testing.assert_close(slope, torch.e * e)  # d tr(exp(a) e) = tr(exp(a) e da)


@pytest.mark.parametrize("points", [(0.1, 0.1001, 0.3, 2.0), (1e-9, 0.0, -1e-9, 3e-9), (0.5, 0.9, 1.3, 1.30001)])
@pytest.mark.parametrize(
    ("f", "exact"), [(_Exp(), Decimal.exp), (_Log1p(), lambda x: (1 + x).ln()), (_Sqrt(), None)],
    ids=["exp", "log1p", "sqrt"],
)
def test_divided_differences_are_those_of_long_arithmetic(f, exact, points):
    getcontext().prec = 90
    shift = 1 if exact is None else 0
    x = torch.tensor(points, dtype=torch.float64) + shift
    table = [(exact or Decimal.sqrt)(Decimal(float(v))) for v in x]
    numbers = [Decimal(float(v)) for v in x]
    for order in range(1, 4):
        table = [(b - a) / (numbers[i + order] - numbers[i]) for i, (a, b) in enumerate(itertools.pairwise(table))]
    found = divided_differences(f, x, 3)[0, 1, 2, 3]
    assert abs(float(found) / float(table[0]) - 1) < 1e-11
