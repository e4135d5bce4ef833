"""The samplers of diffusion models: laws of Gaussian data to the order that they claim, and their identities.

With Gaussian data the optimal endpoint is affine in x, so each step is affine in x and in the fresh noise, and mean and
variance are carried from step to step without drawing anything.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from fm_science.errors import OptionError
from fm_science.flow import Flow
from fm_science.paths import Gaussian, Geodesic, ProductPath
from fm_science.predictions import Endpoint, Noise, Posterior, Score, Velocity
from fm_science.priors import Classes, Normal, ProductPrior, Uniform
from fm_science.sampling import solver as named
from fm_science.schedules import VE, VP, Cosine, Linear, SubVP
from fm_science.solvers import (
    DDIM,
    DDPM,
    AnnealedLangevin,
    DPMSolver,
    Euler,
    PredictorCorrector,
    ReverseSDE,
    log_snr_grid,
)
from fm_science.spaces import Categorical, Euclidean, Sphere
from fm_science.state import Context, expand_like

pytestmark = pytest.mark.usefixtures("double")
M, V, STD = 2.0, 0.25, 1.5  # mean and variance of the data, spread of the noise
SCHEDULES = [Linear(), VP(), SubVP(), VE(0.01, 150.0), Cosine()]


@dataclass(frozen=True)
class Given(Normal):
    """Noise that is always the same number, in place of a draw."""

    value: float = 0.0

    def sample(self, space, context):
        return torch.full(space.bind(context).shape, self.value)


def marginal(schedule, t):
    """Mean and variance of x_t."""
    alpha, sigma = (float(v) for v in schedule(torch.tensor(t)))
    return alpha * M, alpha**2 * V + (sigma * STD) ** 2


def endpoint(schedule, x, t):
    """E[x1 | x_t]."""
    alpha, sigma = (expand_like(v, x) for v in schedule(t))
    return M + alpha * V / (alpha**2 * V + (sigma * STD) ** 2) * (x - alpha * M)


def network(schedule, predicts):
    """The optimal network for each meaning of its output."""
    path = Gaussian(Euclidean(1), schedule, predicts).bind(Context.full(1), Normal(STD))

    def raw(x, t, context=None):
        x1 = endpoint(schedule, x, t)
        if isinstance(predicts, Endpoint):
            return x1
        if isinstance(predicts, Velocity):
            return path.endpoint_to_velocity(x, x1, t)
        x0 = path.endpoint_to_noise(x, x1, t)
        return x0 if not isinstance(predicts, Score) else -x0 / expand_like(path.sigma(t), x) / STD**2

    return raw


def carried(solver, schedule, times, predicts):
    """Mean and variance at the end of ``times`` from the exact ones at their start."""
    laws = [Gaussian(Euclidean(1), schedule, predicts).bind(Context.full(2), Given(STD, z)) for z in (0.0, 1.0)]
    ask, mean, var = network(schedule, predicts), *marginal(schedule, float(times[0]))
    steps = [solver.begin(path) for path in laws]
    ends = torch.tensor([0.0, 1.0])[:, None, None]
    if not solver.stochastic:
        top = solver.integrate(laws[0], ask, ends, times)
        slope = float(top[1] - top[0])
        return float(top[0]) + slope * mean, slope**2 * var
    for a, b in itertools.pairwise(times):
        t, h = a.expand(2), (b - a).expand(2)
        quiet, loud = (step(path, ask, ends, t, h) for step, path in zip(steps, laws, strict=True))
        slope, noise = float(quiet[1] - quiet[0]), float(loud[0] - quiet[0])
        mean, var = float(quiet[0]) + slope * mean, slope**2 * var + (noise * STD) ** 2
    return mean, var


def errors(solver, schedule, predicts, counts, low=0.2, high=0.7):
    """The error of mean and standard deviation at the end of grids of so many equal steps."""
    found = []
    mean, var = marginal(schedule, high)
    for n in counts:
        m, v = carried(solver, schedule, torch.linspace(low, high, n + 1, dtype=torch.float64), predicts)
        found.append(math.hypot(m - mean, math.sqrt(v) - math.sqrt(var)))
    return found


SOLVERS = [ReverseSDE(), ReverseSDE(0.7), ReverseSDE(lambda t: 1 + t), ReverseSDE(0.0), DDIM(), DDIM(0.5), DDPM()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("solver", [*SOLVERS, DPMSolver()], ids=lambda s: repr(s)[:24])
def test_the_law_of_gaussian_data_is_reached_at_the_order_that_is_claimed(solver, schedule):
    few, many = errors(solver, schedule, Endpoint(), (25, 50))
    assert math.log2(few / many) > solver.order - 0.3
    assert many < 0.05


@pytest.mark.parametrize("predicts", [Endpoint(), Velocity(), Noise(), Score()], ids=str)
@pytest.mark.parametrize("solver", [ReverseSDE(), ReverseSDE(0.7), DDIM(0.5), DPMSolver()], ids=str)
def test_what_the_network_predicts_changes_nothing(solver, predicts):
    times = torch.linspace(0.1, 0.9, 11, dtype=torch.float64)
    ours, reference = (carried(solver, VP(), times, p) for p in (predicts, Endpoint()))
    assert ours == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize("schedule", [Linear(), VP(), Cosine()], ids=str)
def test_the_ancestral_step_is_the_posterior_of_the_chain(schedule):
    """q(x_s | x_t, x1) is N(mu, var) with the products of signals of Ho et al. (2020, eq. 7); on a straight path, which
    is no variance-preserving chain, by the same Gaussian algebra."""
    t, s, x, x1 = 0.4, 0.6, 0.9, M
    (a, b), (c, d) = ((float(v) for v in schedule(torch.tensor(r))) for r in (t, s))
    step = a / c  # x_t = step x_s + noise of variance b² - (step d)²
    var = 1 / (step**2 / (b**2 - (step * d) ** 2) + 1 / d**2)
    mean = var * (step * x / (b**2 - (step * d) ** 2) + c * x1 / d**2)
    found = []
    for value in (0.0, 1.0):
        path = Gaussian(Euclidean(1), schedule, Endpoint()).bind(Context.full(1), Given(1.0, value))
        here = torch.full((1, 1, 1), x)
        found.append(float(DDPM().step(path, lambda y, r: torch.full_like(y, x1), here, *map(_one, (t, s - t)))))
    assert found[0] == pytest.approx(mean, abs=1e-12)
    assert (found[1] - found[0]) ** 2 == pytest.approx(var, abs=1e-12)


def _one(value):
    return torch.tensor([value])


def test_the_own_noise_of_the_variance_preserving_diffusion_is_its_beta():
    t, h = 0.3, 1e-6
    path = Gaussian(Euclidean(1), VP(), Endpoint()).bind(Context.full(1), Normal())
    keep = float(ReverseSDE().keep(path, _one(t), _one(t + h)))
    beta = 0.1 + (1 - t) * 19.9
    assert (1 - keep**2) * float(path.sigma(_one(t))) ** 2 / h == pytest.approx(beta, rel=1e-4)
    root = float(torch.tensor(beta).sqrt())
    assert float(ReverseSDE(root).keep(path, _one(t), _one(t + h))) == pytest.approx(keep, abs=1e-9)


def test_without_fresh_noise_all_names_mean_the_ordinary_equation():
    flow = Flow(Gaussian(Euclidean(1), VP(), Endpoint()), Normal(STD), network(VP(), Endpoint()))
    x = flow.noise(Context.full(8))
    reference = flow.transport(x, Context.full(8), Euler(), 10)
    for solver in (ReverseSDE(0.0), DDIM(), DPMSolver(1)):
        assert torch.allclose(flow.transport(x, Context.full(8), solver, 10), reference)
    ancestral, own = (flow.sample(Context.full(8), s, 10, seed=3) for s in (DDPM(), ReverseSDE()))
    assert torch.allclose(ancestral, own)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VP()], ids=str)
def test_few_steps_of_the_second_order_go_the_whole_way(schedule):
    """On 20 steps of equal ratios; a single step is the endpoint."""
    path = Gaussian(Euclidean(1), schedule, Endpoint())
    grid = log_snr_grid(20, schedule, 1e-2, 1 - 1e-2)
    flow = Flow(path, Normal(STD), network(schedule, Endpoint()))
    x = torch.tensor([-1.0, 1.0])[:, None, None] * STD * schedule.ends[1]
    mean, spread = (float(v) for v in _law(flow.transport(x, Context.full(2), DPMSolver(), grid)))
    coarse = [float(v) for v in _law(flow.transport(x, Context.full(2), DDIM(), grid))]
    assert mean == pytest.approx(M, abs=0.02)
    assert spread == pytest.approx(V**0.5, abs=0.01)
    assert abs(spread - V**0.5) < 0.3 * abs(coarse[1] - V**0.5)


def _law(x):
    """Mean and spread of the Gaussian whose points at -1 and +1 spreads were carried."""
    return x.mean(), 0.5 * (x[1] - x[0])


@pytest.mark.parametrize("solver", [ReverseSDE(), DDPM(), DPMSolver(), AnnealedLangevin()], ids=str)
def test_classes_and_angles_beside_numbers_follow_the_flow(solver):
    classes = Geodesic(Categorical(3), predicts=Posterior(2))
    path = ProductPath(a=Gaussian(Euclidean(1), Linear(), Endpoint()), k=classes)
    prior = ProductPrior(a=Normal(), k=Classes([0, 0, 1.0]))
    flow = Flow(path, prior, lambda x, t, c: {"a": torch.full_like(x["a"], 3.0), "k": torch.zeros_like(x["k"])})
    end = flow.sample(Context.full(50), solver, 10, seed=0)
    assert (end["a"] - 3).abs().max() < 1e-9
    assert (end["k"][..., 2] == 0).all()
    assert (end["k"].sum(-1) == 1).all()


@pytest.mark.parametrize("solver", [ReverseSDE(), DDIM(), DPMSolver()], ids=str)
def test_without_gaussian_noise_they_are_refused_before_the_first_step(solver):
    flow = Flow(Geodesic(Sphere(2)), Uniform(), lambda x, t, c: pytest.fail("was asked"))
    with pytest.raises(TypeError, match="score"):
        flow.sample(Context.full(2), solver, 4)


def test_annealed_langevin_is_the_corrector_alone():
    flow = Flow(Gaussian(Euclidean(1), VE(0.01, 150.0), Endpoint()), Normal(), network(VE(0.01, 150.0), Endpoint()))
    context = Context.full(16)
    ours, theirs = (
        flow.sample(context, s, 10, seed=1) for s in (AnnealedLangevin(), PredictorCorrector(None, 10, 0.2))
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [lambda: DDIM(1.5), lambda: DDIM(-0.1), lambda: DPMSolver(3)])
def test_what_they_cannot_do_is_refused(make):
    with pytest.raises(ValueError, match=r"expected|order"):
        make()


def test_the_shell_knows_them_by_name():
    words = ["reverse_sde", "ddim", "ddpm", "dpm_solver", "annealed_langevin", "predictor_corrector"]
    kinds = [ReverseSDE, DDIM, DDPM, DPMSolver, AnnealedLangevin, PredictorCorrector]
    assert [type(named(word)) for word in words] == kinds
    with pytest.raises(OptionError, match="ddim"):
        named("ddimm")
