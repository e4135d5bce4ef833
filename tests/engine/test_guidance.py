"""Networks that wear networks: guidance, temperature and steering, against laws known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fm_science.couplings import Independent
from fm_science.flow import Flow, Sampler
from fm_science.networks import Guided, ScoreGuided, TemperatureScaled, drop_condition
from fm_science.paths import Gaussian, Geodesic, Interpolant, ProductPath
from fm_science.predictions import Endpoint, Noise, Score, Velocity
from fm_science.priors import Normal, ProductPrior
from fm_science.schedules import Linear, Trigonometric
from fm_science.solvers import Euler, Heun
from fm_science.spaces import SO3, Euclidean, Product
from fm_science.state import Context


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


class Labelled(nn.Module):
    """Answers with its label (100 where it is dropped), and counts how often it was asked."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, t, context):
        self.calls += 1
        label = context.cond["label"]
        return torch.where(label < 0, 100.0, label.to(x))[:, None, None].expand_as(x)


def ask(network, **cond):
    return network(torch.zeros(4, 1, 2), torch.full((4,), 0.5), Context.full(4, **cond))


def test_guidance_extrapolates_from_off_to_on_and_asks_no_more_than_it_must():
    label = torch.arange(4)
    for scale, calls in ((1, 1), (0, 1), (3.0, 2)):
        network = Labelled()
        out = ask(Guided(network, scale), label=label)[:, 0, 0]
        assert network.calls == calls
        assert torch.equal(out, 100 + scale * (label - 100.0))
    inside = Guided(Labelled(), lambda t: torch.where(t < 0.4, 3.0, 1.0))
    assert torch.equal(ask(inside, label=label)[:, 0, 0], label.double())


def test_dropping_marks_numbers_and_floats_as_unknown_on_the_rows_that_are_named():
    context = Context.full(3, label=torch.arange(3), energy=torch.ones(3, 2))
    rows = torch.tensor([True, False, True])
    assert drop_condition(context, "label", rows).cond["label"].tolist() == [-1, 1, -1]
    gone = drop_condition(context, "energy", rows).cond["energy"].isnan()
    assert gone.tolist() == [[True] * 2, [False] * 2, [True] * 2]
    assert drop_condition(context, "label").cond["label"].tolist() == [-1] * 3
    assert context.cond["label"].tolist() == [0, 1, 2]
    for dtype in (torch.bool, torch.uint8):  # a dropped label must not become one of the labels
        with pytest.raises(ValueError, match="not known"):
            drop_condition(Context.full(3, label=torch.ones(3, dtype=dtype)), "label")
    with pytest.raises(ValueError, match="energy"):
        drop_condition(context, "lable")


def test_guided_logits_are_the_renormalised_product_and_impossible_classes_stay_so():
    on, off = torch.randn(4, 1, 3), torch.randn(4, 1, 3)
    on[..., 2] = off[..., 2] = -math.inf
    network = lambda x, t, c: torch.where(c.cond["label"][:, None, None] < 0, off, on)  # noqa: E731
    out = ask(Guided(network, 2.0), label=torch.arange(4)).softmax(-1)
    want = (on.softmax(-1) ** 2 / off.softmax(-1))[..., :2]
    assert torch.allclose(out[..., :2], want / want.sum(-1, keepdim=True))
    assert bool((out[..., 2] == 0).all())


def test_on_curved_spaces_guidance_combines_velocities_towards_both_endpoints():
    path = ProductPath(r=Geodesic(SO3(), predicts=Endpoint()), x=Geodesic(Euclidean(3), predicts=Velocity()))
    on, off = (SO3().uniform((5, 2), torch.zeros(())) for _ in range(2))
    pick = lambda c, a, b: torch.where(c.cond["label"].view(-1, *[1] * (a.ndim - 1)) < 0, b, a)  # noqa: E731
    u, v = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    network = lambda x, t, c: {"r": pick(c, on, off), "x": pick(c, u, v)}  # noqa: E731
    context = Context.full(5, 2, label=torch.arange(5))
    x = {"r": SO3().exp(off, 0.3 * torch.randn(5, 2, 3)), "x": torch.zeros(5, 2, 3)}
    t = torch.full((5,), 0.4)
    bound = path.bind(context)
    towards = [bound.velocity({"r": r, "x": w}, x, t) for r, w in ((off, v), (on, u))]
    for scale in (0.5, 1.3):
        got = bound.velocity(Guided(network, scale, path=path)(x, t, context), x, t)
        for k in ("r", "x"):
            want = towards[0][k] + scale * (towards[1][k] - towards[0][k])
            short = want.norm(dim=-1) * (1 - 0.4) < 3.1  # beyond half a turn the same endpoint is nearer the other way
            assert bool(short.any())
            assert torch.allclose(got[k][short], want[short], atol=1e-6)


def test_temperature_sharpens_named_parts_only():
    logits = torch.randn(4, 1, 3)
    network = lambda x, t, c: {"atoms": logits, "bonds": logits}  # noqa: E731
    out = ask(TemperatureScaled(network, atoms=0.5))
    assert torch.equal(out["atoms"], 2 * logits)
    assert out["bonds"] is logits
    assert torch.equal(ask(TemperatureScaled(lambda x, t, c: logits, 4.0)), logits / 4)
    with pytest.raises(ValueError, match="no part"):
        ask(TemperatureScaled(network, atom=0.5))
    for bad in ({}, {"temperature": 1.0, "atoms": 2.0}, {"atoms": 0.0}):
        with pytest.raises(ValueError, match="emper"):
            TemperatureScaled(network, **bad)


def test_wrappers_pass_on_whether_the_network_remembers_and_keep_its_weights():
    inner = nn.Linear(2, 2)
    inner.self_conditioned = True
    steered = ScoreGuided(inner, Geodesic(Euclidean(2)), None)
    for wrapped in (Guided(inner, 2.0), TemperatureScaled(inner, 0.5), steered):
        assert wrapped.self_conditioned
        assert len(list(wrapped.parameters())) == 2
        assert not type(wrapped)(lambda x, t, c: x, *_arguments(wrapped)).self_conditioned


def _arguments(wrapped):
    more = {Guided: (2.0,), TemperatureScaled: (0.5,), ScoreGuided: (Geodesic(Euclidean(2)), None)}
    return more[type(wrapped)]


MEAN, STD, NOISE = 1.0, 0.6, 0.4  # the data are N(MEAN, STD²), and y = x1 + NOISE e is seen


def levels(path, t):
    alpha, sigma = path.schedule(t)
    sigma = 1 - alpha if isinstance(path, Geodesic) else sigma
    return alpha[:, None, None], sigma[:, None, None]


def gaussian_network(path):
    """The exact network of N(0, 1) to N(MEAN, STD²) for each meaning of its output."""

    def network(x, t, context):
        alpha, sigma = levels(path, t)
        rates = torch.func.jvp(lambda s: levels(path, s), (t.clone(),), (torch.ones_like(t),))[1]
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x1 = MEAN + gain * (x - alpha * MEAN)
        x0 = sigma / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)
        score = -(x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        return {Endpoint: x1, Noise: x0, Velocity: rates[0] * x1 + rates[1] * x0, Score: score}[type(path.predicts)]

    return network


def observed(path, y):
    """log h(x, t): y given x_t is Gaussian about E[x1 | x_t]."""

    def log_h(x, t):
        alpha, sigma = levels(path, t)
        total = alpha**2 * STD**2 + sigma**2
        mean = MEAN + alpha * STD**2 / total * (x - alpha * MEAN)
        spread = STD**2 * sigma**2 / total + NOISE**2
        return (-0.5 * (y - mean).square() / spread - 0.5 * spread.log()).flatten(1).sum(1)

    return log_h


PATHS = {
    "line": Geodesic(Euclidean(1), Linear(), Velocity()),
    "clock": Geodesic(Euclidean(1), Trigonometric(), Endpoint()),
    "circle": Gaussian(Euclidean(1), Trigonometric(), Velocity()),
}


@pytest.mark.parametrize("name", PATHS)
def test_doobs_transform_samples_the_exact_posterior(name):
    path, y = PATHS[name], 2.5
    steered = ScoreGuided(gaussian_network(path), path, observed(path, y), doob=True)
    x = Flow(path, Normal(), steered).sample(Context.full(4000), Heun(), 100, seed=0)
    precision = 1 / STD**2 + 1 / NOISE**2
    mean, std = (MEAN / STD**2 + y / NOISE**2) / precision, precision**-0.5
    assert abs(float(x.mean()) - mean) < 5 * std / math.sqrt(4000) + 0.005
    assert abs(float(x.std()) - std) < 5 * std / math.sqrt(8000) + 0.005


@pytest.mark.parametrize("kind", [Geodesic, Gaussian])
def test_every_prediction_is_steered_to_the_same_velocity(kind):
    t, y = torch.tensor([0.2, 0.5, 0.9]), 2.0
    x = torch.randn(3, 1, 1)
    context = Context.full(3)
    fields = []
    for predicts in (Velocity(), Endpoint(), Noise()) + (() if kind is Geodesic else (Score(),)):
        path = kind(Euclidean(1), Trigonometric(), predicts)
        raw = ScoreGuided(gaussian_network(path), path, observed(path, y), doob=True)(x, t, context)
        fields.append(path.bind(context, Normal()).velocity(raw, x, t))
    assert all(torch.allclose(fields[0], field) for field in fields)


def test_the_likelihood_of_the_predicted_datum_serves_where_the_observation_is_vague_and_on_products():
    """With noise much wider than the data, the datum's remaining spread hardly adds to that of the observation."""
    path, wide, y = ProductPath(a=Geodesic(Euclidean(1)), b=Geodesic(Euclidean(1))), 2.0, 4.0
    single = gaussian_network(path.parts["a"])
    network = lambda x, t, c: {k: single(v, t, c) for k, v in x.items()}  # noqa: E731
    seen = lambda x1: -0.5 * ((x1["a"] - y) / wide).square().flatten(1).sum(1)  # noqa: E731
    flow = Flow(path, ProductPrior(a=Normal(), b=Normal()), ScoreGuided(network, path, seen))
    x = flow.sample(Context.full(4000), Euler(), 50, seed=0)
    shift = (y - MEAN) / wide**2 / (1 / STD**2 + 1 / wide**2)
    error = 5 * STD / math.sqrt(4000)
    assert abs(float(x["a"].mean()) - MEAN - shift) < error + shift * (STD / wide) ** 2
    assert abs(float(x["b"].mean()) - MEAN) < error


def test_steering_refuses_curved_spaces_and_inference_mode():
    with pytest.raises(TypeError, match="linear spaces"):
        ScoreGuided(lambda x, t, c: x, Geodesic(SO3()), lambda x: x)
    with pytest.raises(TypeError, match="Geodesic and Gaussian"):
        ScoreGuided(lambda x, t, c: x, Interpolant(Euclidean(1)), lambda x: x)
    path = Geodesic(Euclidean(1))
    steered = ScoreGuided(gaussian_network(path), path, lambda x: -x.square().flatten(1).sum(1))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="no_grad"):
        ask(steered)
    assert Independent().independent
    assert Product(x=Euclidean(1)).linear


def test_a_sampler_wraps_the_network_for_sampling_alone():
    def press(network):
        return Guided(network, 3.0)

    space, network = Euclidean(2), Labelled()
    context = Context.full(4, label=torch.arange(4))
    flow = Flow(Geodesic(space), Normal(), network, Sampler(Euler(), 4, wrap_network=press))
    plain = Flow(Geodesic(space), Normal(), press(network), Sampler(Euler(), 4))
    assert torch.equal(flow.sample(context, seed=1), plain.sample(context, seed=1))
    assert flow.network is network
    assert list(flow.state_dict()) == list(Flow(Geodesic(space), Normal(), network).state_dict())
