"""Manifolds: finite data on six of them through one formula, and laws on the circle and the sphere."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood import Derivative, ExactTrace, backward
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Uniform
from fm_science.solvers import RK4, Euler
from fm_science.spaces import SO3, Euclidean, Hyperbolic, Sphere, Torus
from fm_science.state import Context
from tests.oracles.closed_forms import (
    Empirical,
    circle_velocity,
    hyperbolic_volume,
    rotation_volume,
    sphere_volume,
    von_mises_fisher,
)
from tests.oracles.table import largest, oracle


def _empiricals() -> dict[str, Empirical]:
    plane = Euclidean(2)
    sphere, space3 = Sphere(2), Sphere(3)
    h2, so3 = Hyperbolic(2), SO3()
    near = 0.4 * torch.randn(3, 3)
    eye = torch.eye(3).expand(3, 3, 3)
    pole, pole3, sheet = (torch.eye(n)[0].expand(3, n) for n in (3, 4, 3))

    def wrapped(x: Tensor) -> Tensor:
        r = torch.acosh(x[..., 0].clamp_min(1 + 1e-15))
        return -0.5 * r**2 - math.log(2 * math.pi) - hyperbolic_volume(2)(r)

    return {
        "R²": Empirical(
            plane, near[:, :2], lambda x: -0.5 * x.square().sum(-1) - math.log(2 * math.pi), torch.zeros_like
        ),
        "T²": Empirical(Torus(2), near[:, :2], lambda x: torch.zeros_like(x[..., 0]) - math.log(Torus(2).volume),
                        torch.zeros_like, math.pi),
        "S²": Empirical(sphere, sphere.exp(pole, sphere.tangent(pole, near)),
                        lambda x: torch.zeros_like(x[..., 0]) - math.log(sphere.volume), sphere_volume(2), math.pi),
        "S³": Empirical(space3, space3.exp(pole3, space3.tangent(pole3, 0.4 * torch.randn(3, 4))),
                        lambda x: torch.zeros_like(x[..., 0]) - math.log(space3.volume), sphere_volume(3), math.pi),
        "SO(3)": Empirical(so3, so3.exp(eye, near),
                           lambda x: torch.zeros_like(x[..., 0, 0]) - math.log(so3.volume), rotation_volume, math.pi),
        "H²": Empirical(h2, h2.exp(sheet, h2.tangent(sheet, near)), wrapped, hyperbolic_volume(2)),
    }  # fmt: skip


def continuity(space: object, velocity: Callable, log_prob: Callable, x: Tensor, t: Tensor) -> Tensor:
    """d/dt log p + <u, grad log p> + div u, which is zero for a true pair of density and velocity ``(B,)``."""
    u = velocity(x, t)
    _, by_time = torch.func.jvp(lambda s: log_prob(x, s), (t,), (torch.ones_like(t),))
    _, along = torch.func.jvp(
        lambda s: log_prob(space.exp(x, s * u), t),  # type: ignore[attr-defined]
        (torch.zeros(()),),
        (torch.ones(()),),
    )
    derivative = Derivative(space, lambda y: velocity(y, t), x)
    trace = ExactTrace()
    return by_time + along + trace(derivative, trace.draw(u.flatten(1)))


@oracle("finite data on R², T², S², S³, SO(3), H²: continuity equation", 1e-8)
def empirical_continuity() -> float:
    worst = 0.0
    for field in _empiricals().values():
        context = Context.full(64)
        space = field.leaf.bind(context)
        t = 0.1 + 0.5 * torch.rand(64)
        y = field.points[torch.randint(0, 3, (64,))][:, None]
        x = space.exp(y, 0.5 * space.gaussian(y))
        inside = field._weights(x, t).isfinite().all(1)
        assert int(inside.sum()) > 40
        residual = continuity(space, field, field.log_prob, x, t)[inside]
        worst = max(worst, largest(residual))
    return worst


@oracle("finite data on R², T², S², S³, SO(3), H²: every walk ends on a datum", 1e-6)
def empirical_lands() -> float:
    worst = 0.0
    for name, field in _empiricals().items():
        context = Context.full(32)
        space = field.leaf.bind(context)
        prior = Normal() if name == "R²" else Uniform()
        x0 = prior.sample(field.leaf, context) if name != "H²" else space.exp(
            y0 := field.points[:1].expand(32, 1, -1), space.gaussian(y0)
        )  # fmt: skip
        times = 1 - torch.logspace(0, -7, 300)
        times[0] = 0.0
        x = Flow(Geodesic(field.leaf), prior, field).transport(x0, context, Euler(), times)
        y = field.points.expand(32, *field.points.shape)
        v = field.leaf.log(x.expand_as(y), y)
        nearest = field.leaf.dot(y, v, v).clamp_min(0).amin(1).sqrt()
        worst = max(worst, largest(nearest))
    return worst


def density_before(leaf: object, velocity: Callable, log_prob: Callable, x: Tensor, last: float, steps: int) -> float:
    """The density of x_t at t = ``last``, by walking from there to the noise."""
    context = Context.full(len(x))
    path = Geodesic(leaf).bind(context, Uniform())  # type: ignore[arg-type]
    times = torch.linspace(0, last, steps + 1)
    walk = backward(path, lambda y, t: velocity(y, t, context), x, Uniform(), RK4(), times)
    return largest(walk.logp - log_prob(x, torch.full((len(x),), last)))


@oracle("wrapped normal on the circle: continuity equation", 1e-8)
def circle_continuity() -> float:
    velocity, log_prob = circle_velocity(0.7, 0.8)
    space = Torus(1).bind(Context.full(256))
    x, t = torch.rand(256, 1, 1) * 6.2 - 3.1, 0.02 + 0.93 * torch.rand(256)
    return largest(continuity(space, velocity, log_prob, x, t))


@oracle("wrapped normal on the circle: log-density at t = 0.95", 1e-6, slow=True)
def circle_density() -> float:
    velocity, log_prob = circle_velocity(0.7, 0.8)
    return density_before(Torus(1), velocity, log_prob, torch.rand(64, 1, 1) * 6 - 3, 0.95, 70)


@oracle("von Mises-Fisher on S²: continuity equation", 1e-8)
def fisher_continuity() -> float:
    velocity, log_prob = von_mises_fisher(3.0)
    context = Context.full(32)
    space = Sphere(2).bind(context)
    x, t = Uniform().sample(Sphere(2), context), 0.02 + 0.93 * torch.rand(32)
    return largest(continuity(space, velocity, log_prob, x, t))


@oracle("von Mises-Fisher on S²: log-density at t = 0.9", 1e-6, slow=True)
def fisher_density() -> float:
    velocity, log_prob = von_mises_fisher(3.0, (40, 32))
    x = Uniform().sample(Sphere(2), Context.full(16))
    return density_before(Sphere(2), velocity, log_prob, x, 0.9, 40)
