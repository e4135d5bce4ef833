"""One walk gives samples and their densities, equal to two walks and to closed forms."""

from __future__ import annotations

import pytest
import torch

from fm_science import (
    SO3,
    VP,
    Categorical,
    Classes,
    Context,
    Endpoint,
    Euclidean,
    Flow,
    Gaussian,
    Geodesic,
    Normal,
    Posterior,
    Sphere,
    Uniform,
)
from fm_science.solvers import RK4, Adaptive

SPREAD, MEAN = 0.5, 2.0


def line(path):
    """The exact network of Gaussian data N(MEAN, SPREAD²)."""

    def velocity(x, t, c):
        s = t[:, None, None]
        return MEAN + (s * SPREAD**2 - (1 - s)) / ((1 - s) ** 2 + s**2 * SPREAD**2) * (x - s * MEAN)

    def endpoint(x, t, c):
        alpha, sigma = (v[:, None, None] for v in path.schedule(t))
        return MEAN + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (x - alpha * MEAN)

    return Flow(path, Normal(), endpoint if isinstance(path.predicts, Endpoint) else velocity).double()


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (Geodesic(Euclidean(2)), 1e-6), (Geodesic(Euclidean(2), predicts=Endpoint()), 1e-4),
        (Gaussian(Euclidean(2), VP(), Endpoint()), 1e-3),
    ],
    ids=["velocity", "endpoint", "diffusion"],
)  # fmt: skip
def test_the_density_is_that_of_the_sample(path, allowed):
    flow, context = line(path), Context.full(64)
    x, logp = flow.sample_with_log_prob(context, RK4(), 100, seed=3)
    walked = flow.log_prob(x, context, RK4(), 100)
    assert (logp - walked).abs().max() < allowed
    if not isinstance(path, Gaussian):  # a diffusion keeps a share of the datum at t = 0
        exact = torch.distributions.Normal(MEAN, SPREAD).log_prob(x).sum((1, 2))
        assert (logp - exact).abs().max() < allowed
    again, _ = flow.sample_with_log_prob(context, RK4(), 100, seed=3)
    assert torch.equal(again, x)


@pytest.mark.parametrize(("space", "solver"), [(Sphere(), RK4()), (SO3(), Adaptive(1e-8, 1e-8))], ids=repr)
def test_one_walk_is_two_walks_on_curved_spaces(space, solver):
    def network(x, t, c):
        return space.tangent(x, (1 + t)[:, None, None] * torch.sin(2 * x.flatten(2)[..., :3] + 0.3))

    flow, context = Flow(Geodesic(space), Uniform(), network), Context.full(6, 2)
    x, logp = flow.sample_with_log_prob(context, solver, 60, seed=1)
    assert (logp - flow.log_prob(x, context, solver, 60)).abs().max() < 1e-5


def test_what_has_no_density_is_refused():
    flow = Flow(Geodesic(Categorical(3), predicts=Posterior()), Classes([1 / 3] * 3), lambda x, t, c: x)
    with pytest.raises(TypeError, match="smooth space"):
        flow.sample_with_log_prob(Context.full(2))
    with pytest.raises(ValueError, match="start at t = 0"):
        line(Geodesic(Euclidean(2))).sample_with_log_prob(Context.full(2), steps=torch.tensor([0.5, 1.0]))
