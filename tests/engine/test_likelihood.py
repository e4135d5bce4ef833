"""Densities: conventions, divergences, refusals, gradients, and the bound for classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.likelihood import (
    Derivative,
    ExactTrace,
    Hutchinson,
    HutchPP,
    bits_per_dimension,
    divergence,
    elbo,
    integrate_log_prob,
)
from fm_science.paths import Gaussian, Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Data, Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VE, Linear, LipmanOT, Polynomial
from fm_science.solvers import RK4, Adaptive, Heun
from fm_science.spaces import SO3, SPD, Categorical, Centered, Euclidean, Hyperbolic, Sphere, Torus
from fm_science.state import Context
from tests.oracles.closed_forms import three_modes

pytestmark = pytest.mark.usefixtures("double")
RAGGED = Context(torch.arange(3) < torch.tensor([2, 3, 1])[:, None])


def still(x, t, context):
    """A field that moves nothing."""
    return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("space", "volume"),
    [
        (Torus(2), (2 * math.pi) ** 2),
        (Sphere(2), 4 * math.pi),
        (Sphere(3), 2 * math.pi**2),
        (SO3(), 8 * math.pi**2),
    ],
    ids=str,
)
def test_a_flow_that_stands_still_has_the_density_of_its_prior(space, volume):
    x = Uniform().sample(space, RAGGED)
    field = lambda y, t, c: torch.zeros(3, 3, *space.tangent_event)  # noqa: E731
    logp = Flow(Geodesic(space), Uniform(), field).log_prob(x, RAGGED, steps=2)
    assert torch.allclose(logp, -torch.tensor([2.0, 3.0, 1.0]) * math.log(volume))


def test_the_wrapped_normal_of_hyperbolic_space_keeps_its_volume():
    x = Wrapped(0.8).sample(Hyperbolic(2), RAGGED)
    logp = Flow(Geodesic(Hyperbolic(2)), Wrapped(0.8), still).log_prob(x, RAGGED, steps=2)
    r = torch.acosh(x[..., 0].clamp_min(1))
    each = -0.5 * (r / 0.8) ** 2 - math.log(2 * math.pi * 0.64) - torch.where(r > 0, (r.sinh() / r).log(), 0.0)
    assert torch.allclose(logp, torch.where(RAGGED.mask, each, 0.0).sum(1), atol=1e-9)


def scaled(rate):
    """x1 = exp(rate) x0, and its density."""
    return lambda x, t, context: rate * x


def test_centred_clouds_count_one_site_less():
    x = Normal(1.0).sample(Centered(3), RAGGED)
    logp = Flow(Geodesic(Centered(3)), Normal(), scaled(0.5)).log_prob(x, RAGGED, steps=10)
    d = 3 * (RAGGED.mask.sum(1) - 1)
    exact = Normal(math.exp(0.5)).log_prob(Centered(3).bind(RAGGED), x)
    assert torch.allclose(logp, exact, atol=1e-6)
    assert torch.allclose(exact[2], torch.zeros(()))
    assert d.tolist() == [3, 6, 0]


def test_frozen_sites_have_no_density():
    known = torch.randn(2, 2, 2)
    context = Context(torch.ones(2, 2, dtype=torch.bool), free=torch.tensor([[True, False]] * 2), known=known)
    x = known.clone()
    x[:, 0] = torch.randn(2, 2)
    logp = Flow(Geodesic(Euclidean(2)), Normal(), scaled(0.5)).log_prob(x, context, steps=10)
    exact = torch.distributions.Normal(0, math.exp(0.5)).log_prob(x[:, 0]).sum(1)
    assert torch.allclose(logp, exact, atol=1e-6)


def test_the_density_of_a_product_is_the_product_of_densities():
    path = ProductPath(a=Geodesic(Centered(3)), b=Geodesic(SO3()))
    prior = ProductPrior(a=Normal(), b=Uniform())
    network = lambda x, t, c: {"a": 0.5 * x["a"], "b": 0.3 * torch.ones(3, 3, 3)}  # noqa: E731
    x = prior.sample(path.space, RAGGED)
    logp = Flow(path, prior, network).log_prob(x, RAGGED, steps=8)
    a = Flow(path.parts["a"], Normal(), lambda y, t, c: 0.5 * y).log_prob(x["a"], RAGGED, steps=8)
    b = Flow(path.parts["b"], Uniform(), lambda y, t, c: 0.3 * torch.ones(3, 3, 3)).log_prob(x["b"], RAGGED, steps=8)
    assert torch.allclose(logp, a + b)


def test_padding_changes_no_density():
    mixture = three_modes()
    network = lambda x, t, c: torch.cat(  # noqa: E731
        [mixture.network(Linear(), "velocity")(x[:, [i]], t, c) for i in range(x.shape[1])], 1
    )
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network)
    x = torch.randn(3, 3, 2)
    logp = flow.log_prob(x, RAGGED, steps=10)
    alone = flow.log_prob(x[:1, :2], Context.full(1, 2), steps=10)
    assert torch.allclose(logp[:1], alone)


# --- refusals


class Remembering(nn.Module):
    self_conditioned = True

    def forward(self, x, t, context):
        return x


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), still), "smooth"),
        (Flow(Geodesic(Euclidean(2)), Normal(), Remembering()), "self-conditioned"),
        (Flow(Geodesic(Euclidean(2)), Data(torch.zeros(4, 1, 2)), still), "no density"),
    ],
    ids=["classes", "self-conditioned", "data"],
)
def test_what_has_no_density_is_refused(flow, message):
    with pytest.raises(TypeError, match=message):
        flow.log_prob(torch.eye(2)[:, None], Context.full(2))


# --- divergences


def rough(space, seed=0):
    """A smooth field without structure on a flat space of 3 sites in the plane."""
    torch.manual_seed(seed)
    a, b = torch.randn(6, 6), torch.randn(6, 6)
    return lambda y: space.tangent(y, (torch.tanh(y.flatten(1) @ a) @ b).reshape(y.shape))


def full_trace(field, x):
    jacobian = torch.autograd.functional.jacobian(lambda y: field(y).flatten(1), x)  # (B, 6, B, 3, 2)
    return torch.stack([jacobian[i, :, i].reshape(6, 6).trace() for i in range(len(x))])


@pytest.mark.parametrize("rule", [ExactTrace(), ExactTrace(chunk=1), ExactTrace(chunk=4)], ids=str)
@pytest.mark.parametrize("leaf", [Euclidean(2), Centered(2)], ids=str)
def test_the_exact_trace_is_exact_in_every_chunk(leaf, rule):
    space = leaf.bind(Context.full(4, 3))
    field, x = rough(space), space.gaussian(torch.zeros(4, 3, 2))
    derivative = Derivative(space, field, x, rule.chunk)
    found = rule(derivative, rule.draw(x.flatten(1)))
    exact = full_trace(lambda y: field(space.tangent(y, y)), x)
    assert torch.allclose(found, exact)
    assert torch.allclose(derivative.velocity, field(x))


@pytest.mark.parametrize("rule", [Hutchinson(400), HutchPP(400)], ids=str)
@pytest.mark.parametrize("leaf", [Euclidean(2), Centered(2)], ids=str)
def test_estimates_are_unbiased(leaf, rule):
    space = leaf.bind(Context.full(4, 3))
    field, x = rough(space), space.gaussian(torch.zeros(4, 3, 2))
    exact = ExactTrace()(Derivative(space, field, x), ExactTrace().draw(x.flatten(1)))
    rounds = [rule(Derivative(space, field, x), rule.draw(x.flatten(1))) for _ in range(20)]
    found, error = torch.stack(rounds).mean(0), torch.stack(rounds).std(0) / 20**0.5
    assert ((found - exact).abs() < 5 * error + 1e-9).all()


def test_hutchpp_varies_less_where_the_spectrum_decays():
    space = Euclidean(30).bind(Context.full(1))
    q = torch.linalg.qr(torch.randn(30, 30))[0]
    a = q @ torch.diag(0.5 ** torch.arange(30.0)) @ q.mT
    x = torch.randn(1, 1, 30)
    spread = {}
    for rule in (Hutchinson(15), HutchPP(15)):
        runs = [rule(Derivative(space, lambda y: y @ a, x), rule.draw(x.flatten(1))) for _ in range(60)]
        spread[type(rule).__name__] = float(torch.stack(runs).std())
    assert spread["HutchPP"] < 0.3 * spread["Hutchinson"]
    with pytest.raises(ValueError, match="at least three"):
        HutchPP(2)


def test_an_estimated_density_is_unbiased_repeats_with_its_seed_and_leaves_the_generator_alone():
    flow = Flow(Geodesic(Euclidean(2)), Normal(), three_modes().network(Linear(), "velocity"))
    x = three_modes().draw(1).expand(400, 1, 2)
    state = torch.get_rng_state()
    one = flow.log_prob(x, Context.full(400), Heun(), 20, Hutchinson(probes=1), seed=1)
    assert torch.equal(one, flow.log_prob(x, Context.full(400), Heun(), 20, Hutchinson(1), seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    exact = flow.log_prob(x[:1], Context.full(1), Heun(), 20)
    assert abs(float(one.mean() - exact)) < 4.5 * float(one.std()) / 20
    assert float(one.std()) > 0, "each sample has probes of its own"


def test_affine_invariant_metrics_need_more_than_the_plain_trace():
    """u(P) = P is a motion of constant length without divergence on positive definite matrices."""
    space = SPD(2).bind(Context.full(5))
    x = space.exp(torch.eye(2).expand(5, 1, 2, 2), space.gaussian(torch.eye(2).expand(5, 1, 2, 2)))
    _, found = divergence(space, lambda y: y, x, ExactTrace())
    assert found.abs().max() < 1e-8
    # in one dimension the length is log P, so that u = P² is d(log P)/dt = P, with divergence dP / d(log P) = P
    line = SPD(1).bind(Context.full(5))
    point = torch.rand(5, 1, 1, 1) + 0.5
    _, found = divergence(line, lambda y: y * y, point, ExactTrace())
    assert torch.allclose(found, point[:, 0, 0, 0])
    context = Context.full(5)
    logp = Flow(Geodesic(SPD(2)), Wrapped(0.5), lambda y, t, c: y).log_prob(x, context, RK4(), 10)
    assert torch.allclose(logp, Wrapped(0.5).log_prob(space, x * math.exp(-1)), atol=1e-6)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(2, 8)
        self.outside = nn.Linear(8, 2)

    def forward(self, x, t, context):
        h = self.inside(x)
        return self.outside(nn.functional.scaled_dot_product_attention(h, h, h))


def test_networks_with_fused_attention_have_densities_and_gradients():
    network = Attention()
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network)
    x = torch.randn(2, 3, 2)
    logp = flow.log_prob(x, Context.full(2, 3), Heun(), 4)
    logp.sum().backward()
    gradient, step = network.outside.weight.grad[0, 0].clone(), 1e-5
    with torch.no_grad():
        network.outside.weight[0, 0] += step
        up = flow.log_prob(x, Context.full(2, 3), Heun(), 4).sum()
        network.outside.weight[0, 0] -= 2 * step
        down = flow.log_prob(x, Context.full(2, 3), Heun(), 4).sum()
    assert float((up - down) / (2 * step)) == pytest.approx(float(gradient), rel=1e-5)


def test_gradients_flow_through_curved_densities():
    rate = torch.tensor(0.4, requires_grad=True)
    axis = torch.tensor([0.0, 0.0, 1.0])
    space = Sphere(2)
    flow = Flow(Geodesic(space), Uniform(), lambda x, t, c: rate * space.tangent(x, axis.expand_as(x)))
    x = Uniform().sample(space, Context.full(4))
    (gradient,) = torch.autograd.grad(flow.log_prob(x, Context.full(4), RK4(), 10).sum(), rate)
    values = []
    with torch.no_grad():
        for value in (0.4 + 1e-5, 0.4 - 1e-5):
            rate.fill_(value)
            values.append(flow.log_prob(x, Context.full(4), RK4(), 10).sum())
    assert float((values[0] - values[1]) / 2e-5) == pytest.approx(float(gradient), rel=1e-6)


# --- ends, energy, helpers


STRAIGHT = [Gaussian(Euclidean(2), Linear(), Endpoint()), Geodesic(Euclidean(2), predicts=Endpoint())]


@pytest.mark.parametrize("path", STRAIGHT, ids=lambda path: type(path).__name__)
def test_the_density_starts_before_a_singular_end_with_the_volume_of_the_contraction(path):
    """With the contraction the error is of second order in 1e-5; without it the last term would be 2e-5."""
    mixture = three_modes()
    x = mixture.draw(16)
    flow = Flow(path, Normal(), mixture.network(Linear(), "endpoint"))
    exact = mixture.log_prob(x, torch.ones(16), torch.zeros(16))
    assert (flow.log_prob(x, Context.full(16), Adaptive(1e-8, 1e-8)) - exact).abs().max() < 1e-7
    flow.independent = False
    truncated = flow.log_prob(x, Context.full(16), Adaptive(1e-8, 1e-8))
    assert 1e-6 < float((truncated - exact).abs().max()) < 2e-3


def test_single_precision_starts_earlier_and_is_still_right():
    mixture = three_modes()
    x = mixture.draw(16)
    exact = mixture.log_prob(x, torch.ones(16), torch.zeros(16))
    torch.set_default_dtype(torch.float32)
    flow = Flow(Gaussian(Euclidean(2), Linear(), Endpoint()), Normal(), three_modes().network(Linear(), "endpoint"))
    logp = flow.log_prob(x.float(), Context.full(16), RK4(), 100)
    assert logp.dtype == torch.float32
    assert (logp - exact).abs().max() < 2e-3


@pytest.mark.parametrize("schedule", [LipmanOT(0.05), VE(0.05, 150.0)], ids=str)
def test_where_noise_is_left_on_the_data_the_density_is_that_of_the_noisy_data(schedule):
    mixture = three_modes()
    mixture = type(mixture)(mixture.weight, mixture.mean - mixture.weight @ mixture.mean, mixture.std)
    x = mixture.draw(16)
    flow = Flow(Gaussian(Euclidean(2), schedule, Endpoint()), Normal(), mixture.network(schedule, "endpoint"))
    one = torch.ones(16)
    exact = mixture.log_prob(x, one, 0.05 * one)
    allowed = 1e-6 if schedule.ends[0] == 0 else 1e-3  # VE keeps a little of the data in its noise
    assert (flow.log_prob(x, Context.full(16), Adaptive(1e-8, 1e-8)) - exact).abs().max() < allowed


def test_adaptive_steps_do_not_depend_on_the_energy():
    calls = []

    def predict(x, t):
        calls.append(1)
        return 100 * torch.ones_like(x)  # a huge energy, but a motion without error

    path = Geodesic(Euclidean(1)).bind(Context.full(1), Normal())
    walk = integrate_log_prob(path, predict, torch.zeros(1, 1, 1), Normal(), Adaptive(1e-6, 1e-6), 1)
    assert walk.energy.item() == pytest.approx(1e4)
    assert walk.noise.item() == pytest.approx(-100)
    assert len(calls) < 60


def test_a_noisy_walk_has_no_density_but_an_elbo_bounds_classes():
    joint = torch.tensor([0.3, 0.7, 0.0])
    path = Geodesic(Categorical(3), Polynomial(2.0), Posterior(mask=2))
    flow = Flow(path, Classes([0, 0, 1.0]), lambda x, t, c: joint.clamp_min(1e-300).log().expand_as(x))
    x1 = torch.eye(3)[torch.tensor([[0, 1], [1, 1]])]
    found = torch.stack([elbo(flow, x1, Context.full(2, 2), 60, seed=s) for s in range(8)])
    exact = torch.tensor([0.3 * 0.7, 0.7 * 0.7]).log()
    assert ((found.mean(0) - exact).abs() < 6 * found.std(0) / 8**0.5).all()
    uniform = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), _two_class_posterior)
    x1 = torch.eye(2)[torch.tensor([[0], [1]])].repeat(1000, 1, 1)
    bound = elbo(uniform, x1, Context.full(2000), 60, seed=0).view(1000, 2)
    known = bound.mean(0) + 4 * bound.std(0) / 1000**0.5
    assert (known < torch.tensor([0.3, 0.7]).log()).all(), "a lower bound, not an equality"
    with pytest.raises(TypeError, match="log_prob"):
        elbo(Flow(Geodesic(Euclidean(2)), Normal(), still), torch.zeros(2, 1, 2), Context.full(2))


def test_a_bound_is_finite_though_a_time_rounds_to_one(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **k: torch.full(shape, 1 - 2.0**-24, dtype=torch.float32))
    path = Geodesic(Categorical(3), predicts=Posterior(mask=2))
    x1 = torch.eye(3, dtype=torch.float32)[torch.tensor([[0], [1]])]
    for prior in (Classes([0, 0, 1.0]), Classes([0.4, 0.4, 0.2])):
        assert elbo(Flow(path, prior, lambda x, t, c: 0 * x), x1, Context.full(2), 4).isfinite().all()


def test_the_trace_is_estimated_through_projections_on_positive_matrices():
    path = Geodesic(SPD(2), predicts=Endpoint()).bind(Context.full(3), Wrapped(0.5))
    x, t = Wrapped(0.5).sample(path.space, Context.full(3)), torch.full((3,), 0.5)

    def motion(y):
        return path.velocity(1.5 * y, y, t)

    _, exact = divergence(path.space, motion, x, ExactTrace())
    _, found = divergence(path.space, motion, x, HutchPP(9))
    assert torch.allclose(found, exact, rtol=0.3, atol=0.3)


def _two_class_posterior(x, t, context):
    k = t[:, None, None]
    return ((k * x + (1 - k) * 0.5) * torch.tensor([0.3, 0.7])).log()


def test_bits_per_dimension_of_uniform_noise_on_a_byte_are_eight():
    logp = torch.full((3,), 12 * math.log(1 / 2.0))  # uniform on [-1, 1], 12 dimensions
    assert torch.allclose(bits_per_dimension(logp, 12, bin_width=2 / 256), torch.full((3,), 8.0))


@pytest.mark.parametrize("end", [0.5, 0.9])
def test_a_grid_that_ends_early_gives_the_density_of_the_law_at_its_end(end):
    """x_t = t x1 + (1 - t) x0 for x1 ~ N(1, 1/4): the prediction has no velocity at t = 1, and none is needed there."""

    def expected(x, t, context):
        a, s = t[:, None, None], 1 - t[:, None, None]
        return 1 + a / 4 / (a * a / 4 + s * s) * (x - a)

    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), expected)
    x = torch.linspace(-1, 2, 7)[:, None, None]
    law = torch.distributions.Normal(end, math.hypot(0.5 * end, 1 - end))
    steps = torch.linspace(0, end, 41)
    assert torch.allclose(flow.log_prob(x, Context.full(7), steps=steps), law.log_prob(x)[:, 0, 0], atol=1e-5)
