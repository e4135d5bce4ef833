"""The hyperbolic plane: equations whose flow is known, an isometry and a swelling that carries laws along."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood import backward
from fm_science.paths import Field, Geodesic
from fm_science.priors import Wrapped
from fm_science.solvers import RK4, Adaptive, Midpoint
from fm_science.spaces import Hyperbolic
from fm_science.state import Context, expand_like
from tests.oracles.table import largest, oracle

#: Boosts along both axes and a rotation: an element of the Lie algebra of the isometries
GENERATOR = ((0.0, 0.4, -0.3), (0.4, 0.0, -1.0), (-0.3, 1.0, 0.0))


def _isometry(solver: object, steps: int) -> float:
    """The flow of x' = A x is exp(A); the largest distance from it, for points up to about 1.3 from the origin."""
    a, context = torch.tensor(GENERATOR), Context.full(64)
    space = Hyperbolic(2).bind(context)
    x = Wrapped(0.4).sample(Hyperbolic(2), context)
    y = solver.integrate(Field(space), lambda z, t: z @ a.mT, x, torch.linspace(0, 1, steps + 1))  # type: ignore
    return largest(space.distance(y, x @ torch.linalg.matrix_exp(a).mT))


@oracle("isometry of H²: RK4, 80 steps", 1e-7)
def isometry_fourth() -> float:
    return _isometry(RK4(), 80)


@oracle("isometry of H²: midpoint, 80 steps", 1e-3)
def isometry_midpoint() -> float:
    return _isometry(Midpoint(), 80)


@oracle("isometry of H²: adaptive, tolerance 1e-9", 1e-7)
def isometry_adaptive() -> float:
    return _isometry(Adaptive(1e-9, 1e-9), 1)


@oracle("isometry of H²: densities do not change", 1e-6)
def isometry_density() -> float:
    a, context = torch.tensor(GENERATOR), Context.full(32)
    path = Geodesic(Hyperbolic(2)).bind(context, Wrapped(0.4))
    x1 = Wrapped(0.4).sample(Hyperbolic(2), context)
    walk = backward(path, lambda x, t: x @ a.mT, x1, Wrapped(0.4), RK4(), 80)
    x0 = x1 @ torch.linalg.matrix_exp(-a).mT
    return largest(walk.logp - Wrapped(0.4).log_prob(Hyperbolic(2).bind(context), x0))


def _swelling(x: Tensor, t: Tensor, context: Context) -> Tensor:
    """c(t) times the way from the origin, c = 1 / (1 + t): by time 1 every distance from the origin has doubled."""
    leaf = Hyperbolic(x.shape[-1] - 1)
    return expand_like(-1 / (1 + t), x) * leaf.log(x, leaf.origin(x).expand_as(x))


@oracle("swelling of H² and H³: flow", 1e-8)
def swelling_map() -> float:
    worst, context = 0.0, Context.full(64)
    for leaf in (Hyperbolic(2), Hyperbolic(3)):
        x0 = Wrapped(0.5).sample(leaf, context)
        origin = leaf.origin(x0).expand_as(x0)
        x1 = Flow(Geodesic(leaf), Wrapped(0.5), _swelling).transport(x0, context, RK4(), 40)
        worst = max(worst, largest(leaf.bind(context).distance(x1, leaf.exp(origin, 2 * leaf.log(origin, x0)))))
    return worst


@oracle("swelling of H² and H³: the wrapped normal of twice the width (log-density)", 1e-6)
def swelling_density() -> float:
    worst, context = 0.0, Context.full(64)
    for leaf in (Hyperbolic(2), Hyperbolic(3)):
        x = Wrapped(1.0).sample(leaf, context)
        r = leaf.bind(context).distance(leaf.origin(x).expand_as(x), x)
        exact = -0.5 * r**2 - 0.5 * leaf.dim * math.log(2 * math.pi) - (leaf.dim - 1) * (r.sinh() / r).log()
        found = Flow(Geodesic(leaf), Wrapped(0.5), _swelling).log_prob(x, context, steps=60)
        worst = max(worst, largest(found - exact))
    return worst
