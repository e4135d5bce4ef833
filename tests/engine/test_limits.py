"""What happens at the ends of what is defined: no samples, no precision left, infinite rates, angles of zero."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from fm_science import (
    IGSO3,
    SO3,
    SPD,
    Categorical,
    Centered,
    Classes,
    Context,
    Data,
    Endpoint,
    Euclidean,
    Flow,
    FlowMatching,
    Functions,
    Gaussian,
    Geodesic,
    HutchPP,
    Interpolant,
    MaximumLikelihood,
    Normal,
    Permutations,
    Polynomial,
    Posterior,
    Rotations,
    Sphere,
    Transport,
    Uniform,
    Velocity,
    Wrapped,
    elbo,
    elbo_estimate,
)
from fm_science.solvers import RK4, Adaptive, Euler, Heun, Langevin, PredictorCorrector


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# adaptive steps


@pytest.mark.parametrize("weights", [None, "few"])
@pytest.mark.parametrize("sensors", [4, 400])
def test_adaptive_tolerances_mean_the_same_on_functions_of_any_number_of_sensors(sensors, weights):
    spread = torch.rand(2, sensors, dtype=torch.float64) + 0.1
    cond = {} if weights is None else {"weights": 0.01 * spread / spread.sum(1, keepdim=True)}
    calls = []

    def network(x, t, c):
        calls.append(1)
        return torch.cos(6 * t)[:, None, None] * x

    flow = Flow(Geodesic(Functions(1)), Normal(), network)
    x = torch.randn(2, sensors, 1, dtype=torch.float64)
    end = flow.transport(x, Context.full(2, sensors, **cond), Adaptive(1e-6, 1e-6))
    exact = x * math.exp(math.sin(6) / 6)
    assert (end - exact).square().mean().sqrt() < 5e-6
    assert 40 < len(calls) < 110


def test_tolerances_below_the_precision_are_refused():
    flow = Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: -x)
    x = torch.randn(4, 1, 2)
    with pytest.raises(ValueError, match=re.escape("asks for more than torch.float32 can tell")):
        flow.transport(x, Context.full(4), Adaptive(1e-11, 1e-11))
    flow.transport(x.double(), Context.full(4), Adaptive(1e-11, 1e-11))
    flow.transport(x, Context.full(4), Adaptive(1e-5, 1e-11))


# infinite rates


def test_a_clock_that_starts_at_infinite_speed_takes_endpoints_and_euler():
    clock = Polynomial(0.5)
    for path in (Geodesic, Gaussian):
        with pytest.raises(ValueError, match="infinite at t = 0"):
            path(Euclidean(2), clock, Velocity())
    with pytest.raises(ValueError, match="infinite at t = 0"):
        Interpolant(Euclidean(2), clock)
    with pytest.raises(ValueError, match="must be positive"):
        Polynomial(0.0)
    flow = Flow(Geodesic(Sphere(), clock, Endpoint()), Uniform(), lambda x, t, c: c.cond["end"])
    context = Context.full(5, end=Sphere().uniform((5, 1), torch.empty(0)))
    x = flow.noise(context)
    first = next(flow.trajectory(x, context, Euler(), torch.tensor([0.0, 0.25, 1.0])))
    way = flow.path.space.bind(context).distance
    torch.testing.assert_close(way(x, first), 0.5 * way(x, context.cond["end"]), rtol=1e-4, atol=1e-5)
    loss = FlowMatching(times=torch.zeros)(flow, context.cond["end"], context)["loss"]
    assert loss.abs().max() < 1e-9
    for door in (
        lambda: flow.sample(context, Heun(), 4), lambda: flow.sample(context, Adaptive(), 4),
        lambda: flow.log_prob(x, context, steps=4), lambda: flow.transport(x, context, Euler(), 4, reverse=True),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="infinite"):
            door()


def test_classes_may_start_at_infinite_speed_beside_any_solver():
    flow = Flow(Geodesic(Categorical(3), Polynomial(0.5), Posterior()), Classes([1, 0, 0]), lambda x, t, c: 0 * x)
    assert flow.sample(Context.full(6, 2), Euler(), 3).shape == (6, 2, 3)


def test_an_interpolant_has_no_score_at_its_ends():
    path = Interpolant(Euclidean(2)).bind(Context.full(3))
    raw = {"velocity": torch.zeros(3, 1, 2), "noise": torch.ones(3, 1, 2)}
    for t in (0.0, 1.0):
        with pytest.raises(ValueError, match="no score where gamma is zero"):
            path.score(raw, raw["velocity"], torch.full((3,), t))
    assert path.score(raw, raw["velocity"], torch.full((3,), 0.5)).isfinite().all()


def test_times_do_not_round_to_one_for_data_in_half_precision():
    seen = []

    def network(x, t, c):
        seen.append(t)
        return 0 * x

    flow = Flow(Geodesic(Sphere(), predicts=Endpoint()), Uniform(), network)
    x1 = Sphere().uniform((64, 1), torch.empty(0)).bfloat16()
    loss = FlowMatching(times=lambda n: torch.full((n,), 1 - 1e-4))(flow, x1, Context.full(64))["loss"]
    assert loss.isfinite().all()
    assert seen[0].max() < 1


# rotations that return to the identity


@pytest.mark.parametrize("std", [0.05, 0.3, 1.5, 2.0])
def test_the_isotropic_gaussian_is_flat_at_the_identity(std):
    angles = torch.tensor([0.0, 1e-300, 1e-18, 1e-16, 1e-14, 1e-12, 1e-10, 1e-8], dtype=torch.float64)
    found = IGSO3(std).log_kernel(angles)
    torch.testing.assert_close(found, found[:1].expand_as(found), atol=1e-12, rtol=0)
    r = SO3().uniform((1000, 1), torch.empty(0, dtype=torch.float64))
    log = IGSO3(std).log_prob(SO3().bind(Context.full(1000)), r @ r.mT)
    assert (log - found[0] + math.log(8 * math.pi**2)).abs().max() < 1e-10


# the bound for classes


def two_sites(prior, k):
    """Two sites that hold the same class, 0 with probability 0.3, beside noise of the given probabilities: the exact
    posterior of each site on the path of x_t, and the data."""
    p = torch.tensor([0.3, 0.7], dtype=torch.float64)
    noise = torch.tensor(prior, dtype=torch.float64)

    def network(x, t, c):
        share = t[:, None, None, None]
        both = torch.eye(len(prior), dtype=x.dtype)[:2]
        reach = share * both + (1 - share) * noise  # (B, 1, class of the datum, class of x_t)
        like = (reach.expand(len(x), 2, 2, -1) * x[:, :, None]).sum(-1).prod(1)  # (B, class of the datum)
        post = (p * like / (p * like).sum(-1, keepdim=True)).clamp_min(1e-300)
        logits = torch.full((len(x), 2, len(prior)), -torch.inf, dtype=x.dtype)
        logits[..., :2] = post.log()[:, None]
        return logits

    path = Geodesic(Categorical(len(prior)), predicts=Posterior(mask=k))
    x1 = torch.eye(len(prior), dtype=torch.float64)[torch.tensor([[0, 0], [1, 1]])]
    return Flow(path, Classes(prior), network), x1, p.log()


@pytest.mark.parametrize(("prior", "mask"), [((0, 0, 1.0), 2), ((0.99, 0.01), None)])
def test_the_bound_has_a_small_error_that_it_reports(prior, mask):
    """With masks only both sites unknown cost anything, 4 |log p| / v with probability v⁴: the variance of a draw is
    (4 log p)² / 3 - (log p)², and intervals of v can only lower it. For skewed noise uniform times err by 4 nats."""
    flow, x1, exact = two_sites(prior, mask)
    context = Context.full(2, 2)
    found = [elbo_estimate(flow, x1, context, 64, seed=s) for s in range(60)]
    values, errors = torch.stack([f.value for f in found]), torch.stack([f.error for f in found])
    spread = values.std(0)
    most = (13 / 3 * exact.square() / 64).sqrt() if mask is not None else torch.full((2,), 0.2)
    assert (spread < 1.25 * most).all()
    ratio = errors.square().mean(0).sqrt() / spread  # the spread itself is known to 9 % at one standard error
    assert ((ratio > 0.7) & (ratio < 1.5)).all()
    gap = values.mean(0) - exact
    if mask is not None:  # the bound is the log-probability
        assert (gap.abs() < 4.5 * spread / 60**0.5).all()
    else:
        assert (gap < 4.5 * spread / 60**0.5).all()
    assert torch.equal(elbo(flow, x1, context, 64, seed=3), found[3].value)
    with pytest.raises(ValueError, match="at least two"):
        elbo_estimate(flow, x1, context, 1)


# no samples


@pytest.mark.parametrize(
    ("space", "prior"),
    [
        (Euclidean(2), Normal()), (Centered(), Normal()), (Functions(1), Normal()), (Sphere(), Uniform()),
        (SO3(), IGSO3()), (SPD(2), Wrapped(0.5)),
    ],
    ids=repr,
)  # fmt: skip
def test_a_batch_of_nothing_gives_nothing(space, prior):
    context = Context.full(0, 3)
    flow = Flow(Geodesic(space), prior, lambda x, t, c: torch.zeros(*x.shape[:2], *space.tangent_event))
    x = flow.noise(context)
    for solver in (Euler(), Heun(), RK4(), Adaptive()):
        assert flow.sample(context, solver, 2).shape == x.shape
    for coupling in (FlowMatching(), FlowMatching(Transport())):
        assert coupling(flow, x, context)["loss"].shape == (0,)
    assert flow.log_prob(x, context, steps=2).shape == (0,)
    assert flow.log_prob(x, context, steps=2, divergence=HutchPP()).shape == (0,)
    assert MaximumLikelihood(steps=2)(flow, x, context)["likelihood"].shape == (0,)


def test_no_classes_no_clouds_and_no_data_too():
    context = Context.full(0, 3)
    flow = Flow(Geodesic(Categorical(4), predicts=Posterior()), Classes([0.25] * 4), lambda x, t, c: x)
    for solver in (Euler(), Langevin(1.0), PredictorCorrector()):
        assert flow.sample(context, solver, 2).shape == (0, 3, 4)
    assert elbo(flow, torch.zeros(0, 3, 4), context, 2).shape == (0,)
    assert FlowMatching()(flow, torch.zeros(0, 3, 4), context)["loss"].shape == (0,)
    clouds = Flow(Geodesic(Centered()), Normal(), lambda x, t, c: -x)
    pairs = FlowMatching(Transport(Permutations(), Rotations()))
    assert pairs(clouds, torch.zeros(0, 3, 3), context)["loss"].shape == (0,)
    source = Flow(Geodesic(Euclidean(2)), Data(torch.randn(5, 3, 2)), lambda x, t, c: -x)
    assert source.sample(context, Euler(), 2).shape == (0, 3, 2)


# weights of compiled networks


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x, t, c):
        return self.linear(x)


def test_weights_of_a_compiled_network_load_into_a_plain_one_and_back(tmp_path):
    plain, compiled = (Flow(Geodesic(Euclidean(2)), Normal(), net) for net in (Line(), torch.compile(Line())))
    assert any("_orig_mod" in k for k in compiled.state_dict())
    for there, back in ((plain, compiled), (compiled, plain)):
        with torch.no_grad():
            there.network.linear.weight.normal_()
        there.save(tmp_path / "weights.pt")
        back.load(tmp_path / "weights.pt")
        torch.testing.assert_close(there.network.linear.weight, back.network.linear.weight)


def test_errors_of_a_data_prior_do_not_print_its_data():
    flow = Flow(Geodesic(Euclidean(2)), Data(torch.randn(500, 3, 2)), lambda x, t, c: -x)
    with pytest.raises(TypeError) as caught:
        flow.log_prob(torch.randn(4, 3, 2), Context.full(4, 3))
    assert len(str(caught.value)) < 120
