"""Paths, conversions and densities beside flow_matching's."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.flow import Flow
from fm_science.paths import Gaussian, Geodesic
from fm_science.predictions import Endpoint, Noise, Velocity
from fm_science.priors import Normal
from fm_science.schedules import VP, Linear, Polynomial, Trigonometric
from fm_science.solvers import Adaptive, Euler, Midpoint
from fm_science.spaces import Euclidean, Sphere, Torus
from fm_science.state import Context

peer_path = pytest.importorskip("flow_matching.path", reason="needs pip install 'fm-science[peers]'")
scheduler = pytest.importorskip("flow_matching.path.scheduler")
manifolds = pytest.importorskip("flow_matching.utils.manifolds")
pytestmark = pytest.mark.peers

BATCH, DIM = 64, 5
CLOCKS = [
    (Linear(), lambda: scheduler.CondOTScheduler()),
    (Polynomial(3.0), lambda: scheduler.PolynomialConvexScheduler(3.0)),
    (Trigonometric(), lambda: scheduler.CosineScheduler()),
    (VP(0.1, 20.0), lambda: scheduler.VPScheduler(0.1, 20.0)),
]


def close(ours, theirs, tolerance=1e-9):
    torch.testing.assert_close(ours[:, 0], theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("schedule", "clock"), CLOCKS, ids=lambda v: repr(v) if hasattr(v, "ends") else "")
def test_gaussian_paths_and_their_conversions_agree(schedule, clock):
    x0, x1 = torch.randn(2, BATCH, 1, DIM)
    t = 0.05 + 0.9 * torch.rand(BATCH)
    theirs = peer_path.AffineProbPath(clock())
    found = theirs.sample(x_0=x0[:, 0], x_1=x1[:, 0], t=t)
    path = Gaussian(Euclidean(DIM), schedule).bind(Context.full(BATCH), Normal())
    x, u = path.trace(x0, x1, t)
    close(x, found.x_t)
    close(u, found.dx_t)
    wide = t[:, None].expand(BATCH, DIM)  # the peer's conversions do not broadcast
    raw = torch.randn(BATCH, 1, DIM)
    given = {"x_t": x[:, 0], "t": wide}
    for prediction, name, to_velocity in (
        (Endpoint(), "x_1", theirs.target_to_velocity),
        (Noise(), "epsilon", theirs.epsilon_to_velocity),
    ):
        means = Gaussian(Euclidean(DIM), schedule, prediction).bind(Context.full(BATCH), Normal())
        close(means.velocity(raw, x, t), to_velocity(**{name: raw[:, 0]}, **given))
    close(path.endpoint(raw, x, t), theirs.velocity_to_target(velocity=raw[:, 0], **given), 1e-8)


@pytest.mark.parametrize(("schedule", "clock"), CLOCKS[:3], ids=lambda v: repr(v) if hasattr(v, "ends") else "")
def test_great_circles_agree(schedule, clock):
    space = Sphere(3).bind(Context.full(BATCH))
    x0, x1 = (space.project(torch.randn(BATCH, 1, 4)) for _ in range(2))
    t = 0.05 + 0.9 * torch.rand(BATCH)
    found = peer_path.GeodesicProbPath(clock(), manifolds.Sphere()).sample(x_0=x0[:, 0], x_1=x1[:, 0], t=t)
    path = Geodesic(Sphere(3), schedule).bind(Context.full(BATCH))
    x, u = path.trace(x0, x1, t)
    close(x, found.x_t)
    close(u, found.dx_t)
    close(path.motion(x0, x1, x, t), found.dx_t)
    close(path.drift(x, x1, t), found.dx_t)


def test_geodesics_of_the_torus_agree():
    path = Geodesic(Torus(3)).bind(Context.full(BATCH))
    x0, x1 = (path.space.project(6 * torch.randn(BATCH, 1, 3)) for _ in range(2))
    t = torch.rand(BATCH)
    theirs = peer_path.GeodesicProbPath(scheduler.CondOTScheduler(), manifolds.FlatTorus())
    found = theirs.sample(x_0=x0[:, 0] % (2 * math.pi), x_1=x1[:, 0] % (2 * math.pi), t=t)
    x, u = path.trace(x0, x1, t)
    close(x % (2 * math.pi), found.x_t)
    close(u, found.dx_t)


MEAN, STD = 2.0, 0.5  # of the data; the noise is standard normal


def marginal_velocity(x, t):
    """E[x1 - x0 | x_t] for independent ends on straight lines."""
    return MEAN + (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * STD**2) * (x - t * MEAN)


def density(mean, std):
    return lambda x: torch.distributions.Normal(mean, std).log_prob(x).sum(-1)


@pytest.mark.parametrize(
    ("solver", "method", "steps"),
    [(Euler(), "euler", 50), (Midpoint(), "midpoint", 50), (Adaptive(1e-5, 1e-5), "dopri5", 1)],
    ids=["euler", "midpoint", "dopri5"],
)
def test_errors_of_gaussian_densities_are_no_larger(solver, method, steps):
    """Where both have the same method. (The peer's "rk4" is the 3/8 rule, which is another one than ours.)"""
    ode = pytest.importorskip("flow_matching.solver")
    utils = pytest.importorskip("flow_matching.utils")

    class Marginal(utils.ModelWrapper):
        def forward(self, x, t, **extras):
            return marginal_velocity(x, t)

    x = MEAN + STD * torch.randn(512, 2)
    exact = density(MEAN, STD)(x)
    _, theirs = ode.ODESolver(Marginal(torch.nn.Identity())).compute_likelihood(
        x, density(0.0, 1.0), step_size=None if method == "dopri5" else 1 / steps, method=method, atol=1e-5, rtol=1e-5,
        exact_divergence=True,
    )  # fmt: skip
    flow = Flow(Geodesic(Euclidean(2), predicts=Velocity()), Normal(), lambda x, t, c: marginal_velocity(x, t[0]))
    ours = flow.log_prob(x[:, None], Context.full(512), solver, steps)
    error, yardstick = (float((value - exact).abs().max()) for value in (ours, theirs))
    assert error <= yardstick * (1 + 1e-6) + 1e-12, f"{error:.3g} beside {yardstick:.3g}"
