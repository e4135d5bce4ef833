"""Solvers: stated orders, landing, splitting of mixed states, and refusals that come before the first step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fm_science.couplings import Paired
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Field, Gaussian, Geodesic, Interpolant, ProductPath
from fm_science.predictions import Endpoint, Posterior, Velocity
from fm_science.priors import Classes, Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VE, VP, Cosine, Exponential, Linear, Polynomial, SubVP, Trigonometric
from fm_science.solvers import (
    RK4,
    Adaptive,
    Churn,
    Euler,
    Heun,
    Langevin,
    Midpoint,
    PredictorCorrector,
    log_snr_grid,
    power_grid,
    uniform_grid,
)
from fm_science.spaces import SO3, Categorical, Centered, Euclidean, Hyperbolic, Product, Sphere
from fm_science.state import Context, expand_like
from tests.oracles.closed_forms import three_modes

pytestmark = pytest.mark.usefixtures("double")
FIXED = [Euler(), Heun(), Midpoint(), RK4()]
CURVED = [(Sphere(2), Uniform()), (SO3(), Uniform()), (Hyperbolic(2), Wrapped(0.5))]


def counted(network):
    """The network, and the times at which it was asked."""
    calls = []

    def ask(x, t, context=None):
        calls.append(float(t[0]))
        return network(x, t)

    return ask, calls


@pytest.mark.parametrize("solver", FIXED, ids=str)
def test_the_order_on_flat_spaces_is_the_stated_one(solver):
    path = Field(Euclidean(2).bind(Context.full(1)))
    x = torch.tensor([[[0.1, 0.4]]])

    def field(y, t):  # the logistic equation in the time t², x / (1 - x) = exp(2 t²) x0 / (1 - x0)
        return expand_like(4 * t, y) * y * (1 - y)

    odds = x / (1 - x) * math.exp(2)
    exact = odds / (1 + odds)
    errors = [
        float((solver.integrate(path, field, x, torch.linspace(0, 1, n + 1)) - exact).abs().max()) for n in (40, 80)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(solver.order, abs=0.2)


@pytest.mark.parametrize("solver", [*FIXED, Adaptive(1e-8, 1e-8)], ids=str)
@pytest.mark.parametrize(("space", "prior"), CURVED, ids=lambda v: repr(v))
def test_there_and_back_returns_on_curved_spaces(space, prior, solver):
    context = Context.full(4, 2)
    steps = {1: 2000, 2: 100}.get(solver.order, 20)
    flow = Flow(Geodesic(space), prior, lambda x, t, c: 0.4 * torch.ones(4, 2, space.tangent_event[0]))
    if solver.order == 1:
        steps = 200
    x = prior.sample(space, context)
    y = flow.transport(x, context, solver, steps)
    back = flow.transport(y, context, solver, steps, reverse=True)
    allowed = {1: 0.01, 2: 1e-4}.get(solver.order, 1e-6)
    assert flow.path.bind(context).space.distance(back, x).max() < allowed


def test_adaptive_reaches_its_tolerance_and_costs_no_more_than_the_reference():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    mixture = three_modes()
    network, calls = counted(lambda x, t: mixture.network(Linear(), "velocity")(x, t, None))
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network)
    x = torch.randn(16, 1, 2)
    exact = Flow(flow.path, Normal(), network).transport(x, Context.full(16), RK4(), 100)
    calls.clear()
    ours = flow.transport(x, Context.full(16), Adaptive(1e-6, 1e-6), 10)
    evaluations = len(calls)
    calls.clear()
    grid = torch.tensor([0.0, 1.0])
    theirs = torchdiffeq.odeint(lambda t, y: network(y, t.expand(16)), x, grid, rtol=1e-6, atol=1e-6)[-1]
    assert (ours - exact).abs().max() < 1e-5
    assert (ours - theirs).abs().max() < 5e-5
    assert evaluations < 1.5 * len(calls) + 20


def test_output_points_of_an_adaptive_solver_are_free_where_only_the_end_is_wanted():
    network, calls = counted(lambda x, t: -x)
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network)
    x = torch.randn(4, 1, 2)
    flow.transport(x, Context.full(4), Adaptive(), 1)
    few = len(calls)
    flow.transport(x, Context.full(4), Adaptive(), 200)
    assert len(calls) == 2 * few
    assert len(list(flow.trajectory(x, Context.full(4), Adaptive(), 7))) == 7


def test_adaptive_lands_where_the_velocity_is_undefined_and_says_so_when_it_cannot():
    flow = Flow(Geodesic(SO3(), predicts=Endpoint()), Uniform(), lambda x, t, c: torch.eye(3).expand_as(x))
    end = flow.sample(Context.full(3), Adaptive(), 20)
    assert (end - torch.eye(3)).abs().max() < 1e-9
    with pytest.raises(ValueError, match="more steps"):
        flow.sample(Context.full(3), Adaptive(), 1)


EVERY = [*FIXED, Adaptive(), Langevin(1.0), PredictorCorrector(Heun()), Churn(Heun())]


@pytest.mark.parametrize("solver", EVERY, ids=str)
@pytest.mark.parametrize("schedule", [Linear(), VP(), Cosine(), SubVP(), VE(0.01, 150.0)], ids=str)
def test_no_rate_is_evaluated_where_it_is_infinite(solver, schedule):
    network, calls = counted(lambda x, t: torch.full_like(x, 0.7))
    flow = Flow(Gaussian(Euclidean(2), schedule, Endpoint()), Normal(), network)
    end = flow.sample(Context.full(3), solver, 8, seed=0)
    assert end.isfinite().all()
    if schedule.ends[3] == 0:
        assert max(calls) < 1
        assert (end - 0.7).abs().max() < 1e-9


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(
    "schedule", [Linear(), Polynomial(2.0), Polynomial(0.5), Exponential(10.0), Trigonometric(), Cosine()], ids=str
)
def test_the_last_jump_lands_on_a_class_of_the_data_for_every_clock(schedule, steps):
    path = Geodesic(Categorical(4), schedule, Posterior(mask=3))
    flow = Flow(path, Classes([0, 0, 0, 1.0]), lambda x, t, c: torch.zeros_like(x))
    x = flow.sample(Context.full(500, 3), Euler(), steps)
    assert (x[..., 3] == 0).all()
    assert ((x == 0) | (x == 1)).all()
    assert (x.mean((0, 1))[:3] - 1 / 3).abs().max() < 4.5 * (2 / 9 / 1500) ** 0.5


@pytest.mark.parametrize("solver", [Heun(), Midpoint(), RK4(), Adaptive()], ids=str)
def test_jump_rates_are_not_averaged(solver):
    network, calls = counted(lambda x, t: x)
    flow = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), network)
    with pytest.raises(TypeError, match="Use Euler"):
        flow.sample(Context.full(2), solver, 4)
    assert calls == []


def molecule(smooth=Geodesic(Euclidean(1), predicts=Velocity())):
    path = ProductPath(position=smooth, kind=Geodesic(Categorical(2), predicts=Posterior()))
    return path, ProductPrior(position=Normal(), kind=Classes([0.5, 0.5]))


@pytest.mark.parametrize(("solver", "evaluations"), [(Euler(), 2), (Heun(), 4), (Midpoint(), 4), (RK4(), 8)])
def test_mixed_states_take_half_a_smooth_step_a_jump_and_half_a_smooth_step(solver, evaluations):
    path, prior = molecule()
    seen = []

    def network(x, t, context):
        seen.append((round(float(t[0]), 6), float(x["kind"][..., 0].sum())))
        return {"position": torch.ones_like(x["position"]), "kind": torch.zeros_like(x["kind"])}

    flow = Flow(path, prior, network)
    x0 = flow.noise(Context.full(50))
    end = flow.transport(x0, Context.full(50), solver, torch.tensor([0.0, 0.5]))
    assert len(seen) == evaluations
    assert torch.allclose(end["position"], x0["position"] + 0.5)
    before = [kinds for time, kinds in seen[: evaluations // 2 + 1]]
    assert len(set(before)) == 1, "stages keep the corner"
    assert 0.25 in [time for time, _ in seen], "the posterior is asked at the middle"


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_a_mixed_state_reaches_its_joint_law(solver):
    """A class that decides the mean of a Gaussian: the exact posterior and velocity given both parts."""
    means, std, shares = torch.tensor([-1.0, 1.5]), 0.4, torch.tensor([0.3, 0.7])
    path, prior = molecule()

    def network(x, t, context):
        y, c, r = x["position"], x["kind"], expand_like(t, x["position"])
        variance = r**2 * std**2 + (1 - r) ** 2
        log = shares.log() - 0.5 * (y - r * means).square() / variance
        log = log + (r * c + (1 - r) * 0.5).log()
        posterior = log.softmax(-1)
        x1 = means + r * std**2 / variance * (y - r * means)
        mean = (posterior * x1).sum(-1, keepdim=True)
        noise = (posterior * (1 - r) / variance * (y - r * means)).sum(-1, keepdim=True)
        return {"position": mean - noise, "kind": log}

    n = 5_000
    x = Flow(path, prior, network).sample(Context.full(n), solver, 40, seed=0)
    kind = x["kind"][:, 0].argmax(-1)
    assert float((kind == 1).double().mean()) == pytest.approx(0.7, abs=0.04)
    for k in (0, 1):
        y = x["position"][kind == k]
        assert float(y.mean()) == pytest.approx(float(means[k]), abs=0.08)
        assert float(y.std()) == pytest.approx(std, abs=0.07)


@pytest.mark.parametrize("solver", [Heun(), Adaptive()], ids=str)
def test_classes_jump_once_a_step_whatever_the_solver_of_the_smooth_parts(solver):
    """Two sites must be of one class: drawn at once they agree by chance, one step after the other nearly always."""

    def network(x, t, context):
        known = x["kind"][..., :2].amax(1, keepdim=True)  # a class that stands at either site
        logits = torch.where(known.sum(-1, keepdim=True) > 0, known.log(), 0.0).expand(-1, 2, -1)
        return {"position": 0 * x["position"], "kind": torch.nn.functional.pad(logits, (0, 1))}

    path = ProductPath(
        position=Geodesic(Euclidean(1)), kind=Geodesic(Categorical(3), predicts=Posterior(mask=2))
    )  # fmt: skip
    flow = Flow(path, ProductPrior(position=Normal(), kind=Classes([0.0, 0.0, 1.0])), network)
    kind = flow.sample(Context.full(400, 2), solver, 60, seed=0)["kind"].argmax(-1)
    assert float((kind[:, 0] == kind[:, 1]).double().mean()) > 0.95


SCORELESS = [
    (Geodesic(Sphere(2)), Uniform()),
    (Geodesic(SO3(), predicts=Endpoint()), Uniform()),
    (ProductPath(a=Gaussian(Euclidean(1), Linear()), b=Geodesic(SO3())), ProductPrior(a=Normal(), b=Uniform())),
    (Interpolant(Euclidean(2), predicts=(Velocity(),)), Normal()),
]


@pytest.mark.parametrize("solver", [Langevin(), PredictorCorrector(), Churn()], ids=str)
@pytest.mark.parametrize(("path", "prior"), SCORELESS, ids=lambda v: repr(v)[:40])
def test_solvers_that_exchange_noise_are_refused_before_the_first_step_where_there_is_no_score(path, prior, solver):
    network, calls = counted(lambda x, t: x)
    with pytest.raises(TypeError, match="score"):
        Flow(path, prior, network).sample(Context.full(2), solver, 4)
    assert calls == []


@pytest.mark.parametrize("solver", [Langevin(), PredictorCorrector(), Churn(Euler())], ids=str)
def test_solvers_that_exchange_noise_are_refused_after_training_that_ties_noise_to_data(solver):
    flow = Flow(Gaussian(Euclidean(1), Linear(), Endpoint()), Normal(), lambda x, t, c: x)
    flow.sample(Context.full(2), solver, 4)
    x = torch.randn(2, 1, 1)
    FlowMatching(coupling=Paired())(flow, x, Context.full(2), x0=x)
    with pytest.raises(TypeError, match="coupling"):
        flow.sample(Context.full(2), solver, 4)
    flow.sample(Context.full(2), Heun(), 4)
    FlowMatching()(flow, x, Context.full(2))
    flow.sample(Context.full(2), solver, 4)


def test_noise_of_its_own_gives_an_interpolant_a_score_for_any_coupling():
    flow = Flow(Interpolant(Euclidean(1)), Normal(), lambda x, t, c: {"velocity": -x, "noise": x})
    flow.independent = False
    assert flow.sample(Context.full(2), Langevin(1.0), 4).isfinite().all()


def test_heat_can_be_given_by_part_and_as_a_function_of_time():
    path = ProductPath(a=Gaussian(Euclidean(1), Linear(), Endpoint()), b=Geodesic(SO3(), predicts=Endpoint()))
    prior = ProductPrior(a=Normal(), b=Uniform())
    flow = Flow(path, prior, lambda x, t, c: {"a": 0 * x["a"], "b": torch.eye(3).expand_as(x["b"])})
    context = Context.full(4)
    x0 = flow.noise(context)
    grid = torch.tensor([0.0, 0.3, 0.6])
    hot = flow.transport(x0, context, Langevin({"a": lambda t: 5 * t}), grid)
    cold = flow.transport(x0, context, Euler(), grid)
    assert torch.allclose(hot["b"], cold["b"])
    assert not torch.allclose(hot["a"], cold["a"])
    with pytest.raises(TypeError, match="score"):
        flow.transport(x0, context, Langevin({"b": 1.0}), grid)
    with pytest.raises(TypeError, match=r"part 'c'; the parts of this path are \['a', 'b'\]"):
        flow.transport(x0, context, Langevin({"c": 1.0}), grid)
    plain = Flow(path.parts["a"], Normal(), lambda x, t, c: x)
    with pytest.raises(TypeError, match="part 'a'; the parts of this path are none"):
        plain.sample(context, Langevin({"a": 1.0}), 2)


@pytest.mark.parametrize("make", [Geodesic, Gaussian])
@pytest.mark.parametrize("solver", [Langevin(), Euler()], ids=str)
def test_a_clock_that_stands_still_at_first_lets_walks_begin(make, solver):
    """Where alpha' = 0 a velocity says nothing about the endpoint, which noise and self-conditioning ask for."""

    class Network(torch.nn.Module):
        self_conditioned = True

        def forward(self, x, t, context):
            return -x

    flow = Flow(make(Euclidean(2), Polynomial(2.0), Velocity()), Normal(), Network())
    assert flow.sample(Context.full(3), solver, 4).isfinite().all()


def test_annealed_langevin_lands():
    """Without a last step along the flow the noise of the step before would stay, and masks would."""
    flow = Flow(Gaussian(Euclidean(1), Linear(), Endpoint()), Normal(), lambda x, t, c: torch.full_like(x, 3.0))
    assert (flow.sample(Context.full(50), PredictorCorrector(None, 3, 0.2), 10) == 3).all()
    masked = Geodesic(Categorical(3), predicts=Posterior(mask=2))
    flow = Flow(masked, Classes([0.0, 0.0, 1.0]), lambda x, t, c: torch.zeros_like(x))
    assert (flow.sample(Context.full(50), PredictorCorrector(None, 3, 0.2), 10)[..., 2] == 0).all()


def test_without_heat_langevin_is_ddim_and_with_endless_heat_all_noise_is_fresh():
    path = Gaussian(Euclidean(1), Linear(), Endpoint()).bind(Context.full(2000), Normal(2.0))
    x, raw = torch.full((2000, 1, 1), 3.0), torch.ones(2000, 1, 1)
    t, s = torch.full((2000,), 0.2), torch.full((2000,), 0.5)
    ask = lambda y, r: raw  # noqa: E731
    assert torch.allclose(Langevin(0.0).step(path, ask, x, t, s - t), path.step_to_endpoint(x, raw, t, s))
    y = Langevin(1e6).step(path, ask, x, t, s - t)
    assert float(y.mean()) == pytest.approx(0.5, abs=4.5 / 2000**0.5)
    assert float(y.std()) == pytest.approx(1.0, abs=4.5 / 4000**0.5)


def test_rewinding_is_the_noising_of_the_path():
    n = 20_000
    context = Context.full(n)
    path = Gaussian(Euclidean(1), VP(), Endpoint()).bind(context, Normal())
    x1, t, r = torch.full((n, 1, 1), 2.0), torch.full((n,), 0.8), torch.full((n,), 0.5)
    y = path.add_noise(path.sample(torch.randn(n, 1, 1), x1, t), t, r)
    alpha, sigma = (float(v[0]) for v in path.schedule(r))
    assert float(y.mean()) == pytest.approx(2 * alpha, abs=4.5 * sigma / n**0.5)
    assert float(y.std()) == pytest.approx(sigma, abs=4.5 * sigma / (2 * n) ** 0.5)
    kinds = Geodesic(Categorical(2), Polynomial(2.0), Posterior()).bind(context, Classes([0.5, 0.5]))
    x1 = torch.eye(2)[0].expand(n, 1, 2)
    z = kinds.add_noise(kinds.sample(kinds.noise(x1), x1, t), t, r)
    assert float(z[..., 0].mean()) == pytest.approx(0.25 + 0.75 * 0.5, abs=4.5 * 0.5 / n**0.5)


def test_annealed_langevin_needs_no_predictor():
    def endpoint(x, t, context):
        _, sigma = VE(0.01, 150.0)(expand_like(t, x))
        return 0.25 / (0.25 + sigma**2) * x

    flow = Flow(Gaussian(Euclidean(1), VE(0.01, 150.0), Endpoint()), Normal(), endpoint)
    x = flow.sample(Context.full(2000), PredictorCorrector(None, 5, 0.2), 80)
    assert float(x.std()) == pytest.approx(0.5, abs=0.07)


def test_flows_on_classes_cannot_be_reversed():
    flow = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), lambda x, t, c: x)
    with pytest.raises(TypeError, match="reversed"):
        flow.transport(flow.noise(Context.full(2)), Context.full(2), Euler(), 4, reverse=True)


def test_reversal_starts_before_a_singular_end():
    mixture = three_modes()
    flow = Flow(Gaussian(Euclidean(2), Linear(), Endpoint()), Normal(), mixture.network(Linear(), "endpoint"))
    x0 = torch.randn(16, 1, 2)
    x1 = flow.transport(x0, Context.full(16), RK4(), power_grid(60, 3.0))
    back = flow.transport(x1, Context.full(16), RK4(), power_grid(60, 3.0), reverse=True)
    assert (back - x0).abs().max() < 1e-3


def test_padding_and_frozen_sites_stay_through_every_solver():
    mask = torch.arange(3) < torch.tensor([2, 3])[:, None]
    known = torch.randn(2, 3, 2)
    context = Context(mask, free=torch.tensor([True, False, True]).expand(2, 3), known=known)
    flow = Flow(Gaussian(Euclidean(2), Linear(), Endpoint()), Normal(), lambda x, t, c: torch.ones_like(x))
    for solver in (*FIXED, Adaptive(), Langevin(2.0), PredictorCorrector(), Churn()):
        x = flow.sample(context, solver, 5)
        assert torch.equal(x[:, 1], known[:, 1])
        assert torch.equal(x[0, 2], torch.zeros(2))
        assert torch.allclose(x[:, 0], torch.ones(2))


def test_grids_begin_and_end_where_they_should():
    assert torch.allclose(power_grid(4, 2.0), torch.tensor([0, 7 / 16, 3 / 4, 15 / 16, 1]).double())
    for schedule in (Linear(), VP(), Cosine(), VE()):
        grid = uniform_grid(log_snr_grid(20, schedule))
        assert len(grid) == 21
        assert (float(grid[0]), float(grid[-1])) == (0, 1)
        alpha, sigma = schedule(grid[2:-2])
        ratios = (alpha / sigma).log().diff()
        assert torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-6)
    assert torch.allclose(log_snr_grid(10, VE()), torch.linspace(0, 1, 11).double())
    with pytest.raises(ValueError, match="at least"):
        log_snr_grid(1, VP())


def test_products_of_flat_and_curved_parts_keep_the_order():
    """x on a line drives a rotation of the sphere: the product is solved as one state."""
    context = Context.full(2)
    space = Product(a=Euclidean(1), b=Sphere(2)).bind(context)
    x = {"a": torch.ones(2, 1, 1), "b": torch.eye(3)[:1].expand(2, 1, 3)}

    def field(y, t):  # a = exp(t), and b turns about the last axis at the speed a
        spin = torch.tensor([0.0, 0, 1]).expand_as(y["b"])
        return {"a": y["a"], "b": y["a"] * torch.linalg.cross(spin, y["b"])}

    angle = math.e - 1
    exact = torch.tensor([math.cos(angle), math.sin(angle), 0])
    errors = []
    for n in (10, 20):
        y = RK4().integrate(Field(space), field, x, torch.linspace(0, 1, n + 1))
        errors.append(float((y["b"] - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) > 3.8


def test_centred_clouds_stay_centred():
    context = Context(torch.arange(5) < torch.tensor([3, 5])[:, None])
    flow = Flow(Gaussian(Centered(3), VP(), Endpoint()), Normal(), lambda x, t, c: torch.randn_like(x))
    for solver in (Euler(), RK4(), Langevin(3.0), Churn()):
        x = flow.sample(context, solver, 6)
        assert x.sum(1).abs().max() < 1e-10


def test_the_same_path_on_another_clock_walks_to_the_same_place():
    path = Geodesic(SO3(), predicts=Endpoint()).bind(Context.full(3))
    other = replace(path, schedule=Exponential(10.0))
    x, y = Uniform().sample(SO3(), Context.full(3)), Uniform().sample(SO3(), Context.full(3))
    one, zero = torch.ones(3), torch.zeros(3)
    assert torch.allclose(path.step(y, x, zero, one), other.step(y, x, zero, one))
