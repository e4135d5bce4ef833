"""Fields on curved spaces: their divergence, their flow, and the order of the solvers that follow them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fm_science.likelihood import Derivative, ExactTrace, HutchPP
from fm_science.paths import Field
from fm_science.priors import Uniform
from fm_science.solvers import RK4, Heun, Midpoint
from fm_science.spaces import SO3, Euclidean, Hyperbolic, Sphere
from fm_science.state import Context, expand_like
from tests.oracles.table import largest, oracle


@oracle("divergence on S², S³, H², H³ of projected constants: -n <x, e> and n <x, e>", 1e-10)
def divergence_constants() -> float:
    worst = 0.0
    for leaf, sign in ((Sphere(2), -1), (Sphere(3), -1), (Hyperbolic(2), 1), (Hyperbolic(3), 1)):
        context = Context(torch.tensor([[True, True], [True, False]]).repeat(8, 1))
        space = leaf.bind(context)
        x = leaf.origin(torch.zeros(())).expand(16, 2, -1)
        x = space.exp(x, space.gaussian(x))
        e = torch.randn(leaf.dim + 1).expand_as(x)
        trace = ExactTrace()
        found = trace(Derivative(space, lambda y, s=space, e=e: s.tangent(y, e), x), trace.draw(x.flatten(1)))
        product = (x * e).sum(-1) - (2 * x[..., 0] * e[..., 0] if sign > 0 else 0)
        exact = torch.where(context.mask, sign * leaf.dim * product, 0.0).sum(1)
        worst = max(worst, largest(found - exact) / (1 + largest(exact)))
    return worst


@oracle("Hutch++ on a field of rank two equals the trace", 1e-9)
def sketch() -> float:
    a = torch.randn(20, 2) @ torch.randn(2, 20)
    space = Euclidean(20).bind(Context.full(4))
    x = torch.randn(4, 1, 20)
    rule = HutchPP(6)
    found = rule(Derivative(space, lambda y: torch.sin(y) * 0 + y @ a.mT, x), rule.draw(x.flatten(1)))
    return largest(found - a.trace())


@oracle("rotation of S² by 2 radians: midpoint, 80 steps", 9.3e-5)
def rotation_midpoint() -> float:
    return _rotation(Midpoint())


@oracle("rotation of S² by 2 radians: RK4, 80 steps", 4.3e-9)
def rotation_fourth() -> float:
    return _rotation(RK4())


def _rotation(solver: object) -> float:
    context = Context.full(64)
    x = Uniform().sample(Sphere(2), context)
    axis = torch.tensor([0.0, 0.0, 2.0])
    path = Field(Sphere(2).bind(context))
    times = torch.linspace(0, 1, 81)
    y = solver.integrate(path, lambda z, t: torch.linalg.cross(axis.expand_as(z), z), x, times)  # type: ignore
    c, s = math.cos(2), math.sin(2)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    return largest(y - x @ turn.mT)


def curved_field(leaf: object) -> Callable[[Tensor, Tensor], Tensor]:
    """A smooth field that depends on time, on S², SO(3) or H²."""
    a = torch.tensor([[0.4, -1.1, 0.3], [0.8, 0.2, -0.7], [-0.5, 0.9, 0.6]])
    b = torch.linspace(-1, 1, 27).reshape(9, 3)

    def field(x: Tensor, t: Tensor) -> Tensor:
        if leaf == SO3():
            return 2 * torch.sin(x.flatten(-2) @ b) + expand_like(t, x[..., 0])
        wave = torch.sin(2 * x @ a.mT) + expand_like(torch.cos(2 * t), x) * torch.tensor([0.3, 1.0, -0.5])
        return leaf.tangent(x, wave)  # type: ignore[attr-defined]

    return field


def observed_order(leaf: object, solver: object, coarse: int = 40) -> float:
    """The order of convergence between ``coarse`` and twice as many steps: log2 of the ratio of what halving the steps
    changes there and what it changes once more."""
    context = Context.full(8)
    space = leaf.bind(context)  # type: ignore[attr-defined]
    x = leaf.origin(torch.zeros(())).expand(8, 1, *leaf.event)  # type: ignore[attr-defined]
    x = space.exp(x, 0.5 * space.gaussian(x))
    path, field = Field(space), curved_field(leaf)
    run = lambda rule, n: rule.integrate(path, field, x, torch.linspace(0, 1, n + 1))  # noqa: E731
    ends = [run(solver, n) for n in (coarse, 2 * coarse, 4 * coarse)]
    return math.log2(float(space.distance(*ends[:2]).max()) / float(space.distance(*ends[1:]).max()))


def _orders(solver: object, coarse: int, stated: float) -> float:
    """How far the lowest observed order on S², SO(3) and H² falls short of the stated one."""
    torch.manual_seed(1)
    return max(stated - observed_order(leaf, solver, coarse) for leaf in (Sphere(2), SO3(), Hyperbolic(2)))


@oracle("observed order of RK4 on S², SO(3), H², 40 to 80 steps: shortfall from 4", 0.2)
def order_fourth() -> float:
    return _orders(RK4(), 40, 4)


@oracle("observed order of midpoint and Heun on S², SO(3), H²: shortfall from 2", 0.15)
def order_second() -> float:
    return max(_orders(Midpoint(), 20, 2), _orders(Heun(), 20, 2))
