"""Multistep: order two for one evaluation a step on every geodesic space. Restart: the law stays, errors shrink."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.flow import Flow
from fm_science.paths import Gaussian, Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior, Velocity
from fm_science.priors import Classes, Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VP, Exponential, Linear, Polynomial
from fm_science.solvers import RK4, Euler, FlowMap, Heun, Multistep, Restart
from fm_science.spaces import SO3, Categorical, Euclidean, Hyperbolic, Product, Sphere, Torus
from fm_science.state import Context, expand_like

pytestmark = pytest.mark.usefixtures("double")
MEAN, STD = 1.5, 0.4
CURVED = [(Sphere(2), Uniform()), (SO3(), Uniform()), (Hyperbolic(2), Wrapped(0.5)), (Torus(2), Uniform())]


def posterior_mean(x, t):
    """E[x1 | x_t] for data N(MEAN, STD²) and standard noise on the straight path."""
    t = expand_like(t, x)
    variance = t**2 * STD**2 + (1 - t) ** 2
    return MEAN + t * STD**2 / variance * (x - t * MEAN)


def order(solver, path, predict, x, exact, until=1.0, steps=(40, 80)):
    """The observed order of convergence at the time ``until``."""
    errors = []
    for n in steps:
        y = solver.integrate(path, predict, x, torch.linspace(0, until, n + 1, dtype=torch.float64))
        errors.append(float(path.space.distance(y, exact).max()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("solver", "expected"), [(Multistep(), 2), (Euler(), 1)])
@pytest.mark.parametrize("schedule", [Linear(), Polynomial(2.0)], ids=str)
def test_the_order_on_a_gaussian_is_two(solver, expected, schedule):
    """The flow from N(0, 1) to N(MEAN, STD²) is x1 = MEAN + STD x0, on any schedule. Steps next to the end cover a
    share h / (1 - t) of the way with an error of h², so all errors add up to h² log(1 / h)."""
    x = torch.linspace(-2, 2, 5)[:, None, None]
    path = Geodesic(Euclidean(1), schedule, Endpoint()).bind(Context.full(5))
    found = order(solver, path, lambda y, t: posterior_mean(y, schedule(t)[0]), x, MEAN + STD * x, steps=(800, 1600))
    logs = math.log2(math.log(1600) / math.log(800)) if expected == 2 else 0
    assert found + logs == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(("space", "prior"), CURVED, ids=lambda v: repr(v))
def test_the_order_on_curved_spaces_is_two(space, prior):
    """Endpoints that move off the geodesic with the point and with time; the truth by RK4 with many steps."""
    context = Context.full(4)
    path = Geodesic(space, predicts=Endpoint()).bind(context)
    torch.manual_seed(0)
    base = prior.sample(path.space, context)
    push, pull = (path.space.tangent(base, 0.5 * torch.randn(4, 1, *space.tangent_event)) for _ in range(2))
    x = path.space.exp(base, push)

    def predict(y, t):
        away = path.space.log(base, y)
        return path.space.exp(base, expand_like(t, away) * pull + 0.4 * away)

    exact = RK4().integrate(path, predict, x, torch.linspace(0, 0.9, 120, dtype=torch.float64))
    assert order(Multistep(), path, predict, x, exact, until=0.9) == pytest.approx(2, abs=0.2)
    assert order(Euler(), path, predict, x, exact, until=0.9) == pytest.approx(1, abs=0.2)


def test_parts_that_jump_are_sampled_as_by_euler():
    path = ProductPath(a=Geodesic(Euclidean(1), predicts=Endpoint()), b=Geodesic(Categorical(2), predicts=Posterior()))
    prior = ProductPrior(a=Normal(), b=Classes([0.5, 0.5]))
    n = 4000

    def network(x, t, context):
        logits = torch.tensor([math.log(0.25), math.log(0.75)]).expand(len(t), 1, 2)
        return {"a": posterior_mean(x["a"], t), "b": logits}

    x = Flow(path, prior, network).sample(Context.full(n), Multistep(), 20, seed=0)
    assert x["b"][..., 1].mean().item() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / n))
    assert x["a"].mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(n) + 0.01)


def test_paths_without_a_geodesic_are_refused_before_the_first_step():
    calls = []
    flow = Flow(Gaussian(Euclidean(1), VP()), Normal(), lambda x, t, c: calls.append(t) or x)
    with pytest.raises(TypeError, match="has none: use Euler"):
        flow.sample(Context.full(2), Multistep(), 5)
    path = Geodesic(Categorical(3), predicts=Posterior())
    flow = Flow(path, Classes([1 / 3] * 3), lambda x, t, c: calls.append(t) or x)
    with pytest.raises(TypeError, match="has none: use Euler"):
        flow.sample(Context.full(2), Multistep(), 5)
    assert not calls


def test_single_precision_stays_finite_where_a_clock_has_all_but_arrived():
    """An exponential clock is through to within rounding long before the end."""
    space = Product(a=Euclidean(2), b=SO3())
    path = ProductPath(
        a=Geodesic(space.parts["a"], predicts=Endpoint()), b=Geodesic(SO3(), Exponential(200.0), Endpoint())
    )
    prior = ProductPrior(a=Normal(), b=Uniform())
    bound = path.bind(Context.full(3), prior)
    x = {k: v.float() for k, v in prior.sample(bound.space, Context.full(3)).items()}
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    y = Multistep().integrate(bound, lambda x, t: {k: v.clone() for k, v in x.items()}, x, times)
    assert all(v.isfinite().all() for v in y.values())


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_errors_shrink_by_restarts_as_stated(rounds):
    """A network that is wrong before t = 1/2 leaves an error; going back to r keeps the factor r s / sqrt(r² s² + (1 -
    r)²) of it, the derivative of the flow from r to 1 times r."""
    r, n = 0.6, 20_000

    def network(x, t, context):
        return posterior_mean(x, t) + (t < 0.5).to(x)[:, None, None]

    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), network)
    first = flow.sample(Context.full(n), Multistep(), 50, seed=0).mean().item() - MEAN
    assert first > 0.1
    x = flow.sample(Context.full(n), Restart(Multistep(), rounds, r), 50, seed=0)
    kept = r * STD / math.hypot(r * STD, 1 - r)
    assert x.mean().item() - MEAN == pytest.approx(first * kept**rounds, abs=5 * STD / math.sqrt(n))
    assert x.std().item() == pytest.approx(STD, abs=5 * STD / math.sqrt(2 * n) + 0.005)


def test_restarts_keep_the_law_of_classes_and_of_rotations():
    n = 4000
    flow = Flow(
        Geodesic(Categorical(3), predicts=Posterior()), Classes([1 / 3] * 3),
        lambda x, t, c: torch.tensor([0.2, 0.3, 0.5]).log().expand(len(t), 1, 3),
    )  # fmt: skip
    x = flow.sample(Context.full(n), Restart(Euler(), 2, 0.5), 10, seed=1)
    assert torch.allclose(x.mean((0, 1)), torch.tensor([0.2, 0.3, 0.5]), atol=4 * math.sqrt(0.25 / n))
    turn = SO3().bind(Context.full(1)).exp(torch.eye(3).expand(1, 1, 3, 3), torch.tensor([[[0.3, 0.2, 0.1]]]))
    flow = Flow(Geodesic(SO3(), predicts=Endpoint()), Uniform(), lambda x, t, c: turn.expand_as(x))
    assert torch.allclose(flow.sample(Context.full(5), Restart(Multistep(), 1, 0.5), 10), turn.expand(5, 1, 3, 3))


def test_frozen_sites_and_padding_stay():
    mask = torch.arange(3) < torch.tensor([2, 3])[:, None]
    known = torch.randn(2, 3, 2)
    context = Context(mask, free=torch.tensor([True, False, True]).expand(2, 3), known=known)
    flow = Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), lambda x, t, c: torch.ones_like(x))
    for solver in (Multistep(), Restart(Multistep(), 2, 0.5), Restart(Heun(), 1, 0.3)):
        x = flow.sample(context, solver, 5)
        assert torch.equal(x[:, 1], known[:, 1])
        assert torch.equal(x[0, 2], torch.zeros(2))
        assert torch.allclose(x[:, 0], torch.ones(2))


def test_restarts_that_cannot_be_are_refused():
    for options in ({"rounds": -1}, {"from_time": 0.0}, {"from_time": 1.0}, {"solver": FlowMap()}):
        with pytest.raises(ValueError, match="Restart"):
            Restart(**options)
    flow = Flow(Geodesic(Euclidean(1)), Normal(), lambda x, t, c: x)
    with pytest.raises(ValueError, match="must end at 1"):
        flow.sample(Context.full(2), Restart(), torch.linspace(0, 0.9, 5))
    flow.independent = False
    with pytest.raises(TypeError, match="ties noise"):
        flow.sample(Context.full(2), Restart(), 5)
    with pytest.raises(TypeError, match="bound to no prior"):
        Geodesic(Euclidean(1), predicts=Velocity()).bind(Context.full(2)).noised(torch.zeros(2, 1, 1), torch.zeros(2))
