"""General stochastic equations: orders of convergence on laws and paths that are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import SDE, brownian_increments, euler_maruyama, milstein, probability_flow, stochastic_heun
from fm_science.paths import Field
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean
from fm_science.state import Context

THETA, SIGMA, MU, VOLATILITY = 1.3, 0.7, 0.4, 0.6


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def ornstein_uhlenbeck(step):
    return SDE(lambda x, t: -THETA * x, lambda x, t: torch.full_like(x, SIGMA)[..., None], step)


def geometric(step):
    return SDE(lambda x, t: MU * x, lambda x, t: VOLATILITY * x[..., None], step)


def affine(sde, x, n):
    """Mean and variance at t = 1 of an equation whose steps are affine in the point and in its noise."""
    h, t, zero, one = 1 / n, torch.zeros(1), torch.zeros(1, 1), torch.ones(1, 1)
    slope = float(sde.step(sde, one, t, h, zero) - sde.step(sde, zero, t, h, zero))
    noise = float(sde.step(sde, zero, t, h, one))
    return slope**n * x, sum(noise**2 * h * slope ** (2 * k) for k in range(n))


@pytest.mark.parametrize(("step", "order"), [(euler_maruyama, 1), (milstein, 1), (stochastic_heun, 2)])
def test_the_weak_order_on_an_ornstein_uhlenbeck_process(step, order):
    """Steps are affine there, so mean and variance are carried without drawing."""
    exact = 2 * math.exp(-THETA), SIGMA**2 * -math.expm1(-2 * THETA) / (2 * THETA)
    errors = [
        [abs(a - b) for a, b in zip(affine(ornstein_uhlenbeck(step), 2.0, n), exact, strict=True)] for n in (32, 64)
    ]
    for coarse, fine in zip(*errors, strict=True):
        assert abs(math.log2(coarse / fine) - order) < 0.1


@pytest.mark.parametrize("step", [euler_maruyama, milstein, stochastic_heun])
def test_the_weak_order_on_geometric_brownian_motion(step):
    """E X_1 = exp(mu): each step multiplies, and its mean is that over two increments with the moments of a normal."""
    errors = []
    for n in (32, 64):
        h, sde = 1 / n, geometric(step)
        ends = torch.tensor([[math.sqrt(3 * h)], [0.0], [-math.sqrt(3 * h)]])  # moments up to the fifth
        mean = torch.tensor([1 / 6, 2 / 3, 1 / 6]) @ step(sde, torch.ones(3, 1), torch.zeros(3), h, ends)
        errors.append(abs(float(mean) ** n - math.exp(MU)))
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.1


@pytest.mark.parametrize(("step", "order"), [(euler_maruyama, 0.5), (milstein, 1.0), (stochastic_heun, 1.0)])
def test_the_strong_order_on_geometric_brownian_motion(step, order):
    """The distance to the path of the same Brownian motion, exp((mu - sigma²/2) t + sigma W_t), on grids that halve."""
    fine = torch.linspace(0, 1, 257)
    motion = brownian_increments(fine, 2000, 1)
    exact = torch.exp(MU - VOLATILITY**2 / 2 + VOLATILITY * motion.sum(0))
    errors = []
    for n in (16, 64, 256):
        coarse = motion.reshape(n, 256 // n, 2000, 1).sum(1)
        x = geometric(step).sample(torch.ones(2000, 1), torch.linspace(0, 1, n + 1), increments=coarse)
        errors.append(float((x - exact).abs().mean()))
    assert abs(math.log2(errors[0] / errors[2]) / 4 - order) < 0.12


def test_simulated_paths_have_the_law_that_their_steps_say():
    sde = ornstein_uhlenbeck(euler_maruyama)
    mean, variance = affine(sde, 2.0, 20)
    x = sde.sample(torch.full((20_000, 1), 2.0), torch.linspace(0, 1, 21), seed=0)
    assert abs(float(x.mean()) - mean) < 5 * math.sqrt(variance / 20_000)
    assert abs(float(x.var()) - variance) < 5 * variance * math.sqrt(2 / 20_000)


def test_the_ordinary_equation_has_the_law_of_the_simulated_one():
    """Noise that depends on the place: log-normal points by geometric Brownian motion, and by its probability flow."""
    sde = geometric(milstein)
    spread = lambda t: 0.3**2 + VOLATILITY**2 * t  # noqa: E731  # of log x, from N(0, 0.3²)

    def score(x, t):
        centre = (MU - VOLATILITY**2 / 2) * t
        return -(1 + (x.log() - centre[:, None]) / spread(t)[:, None]) / x

    start = (0.3 * torch.randn(10_000, 1)).exp()
    times = torch.linspace(0, 1, 41)
    drawn = sde.sample(start, times, seed=1).log()  # the motion is not that of the start
    velocity = probability_flow(sde.drift, sde.diffusion, score)
    path = Field(Euclidean(1)).bind(Context.full(10_000))
    flown = RK4().integrate(path, lambda x, t: velocity(x[:, 0], t)[:, None], start[:, None], times).log()
    for x in (drawn, flown):
        assert abs(float(x.mean()) - (MU - VOLATILITY**2 / 2)) < 5 * math.sqrt(spread(1) / 10_000) + 1e-3
        assert abs(float(x.var()) / spread(1) - 1) < 5 * math.sqrt(2 / 10_000) + 0.01


def test_noise_that_does_not_commute_is_refused_where_it_must():
    turn = lambda x, t: torch.stack([torch.ones_like(x), torch.stack([0 * x[:, 0], x[:, 0]], 1)], 2)  # noqa: E731
    x, times = torch.ones(2, 2), torch.linspace(0, 1, 3)
    assert SDE(lambda x, t: -x, turn).sample(x, times, seed=0).shape == (2, 2)
    for step in (milstein, stochastic_heun):
        with pytest.raises(ValueError, match="do not commute"):
            SDE(lambda x, t: -x, turn, step).sample(x, times)
        own = SDE(lambda x, t: -x, lambda x, t: torch.diag_embed(x), step)  # a component for each coordinate
        assert bool(own.sample(x, times, seed=0).isfinite().all())


def test_wrong_shapes_are_told_and_seeds_are_kept():
    sde = geometric(euler_maruyama)
    x, times = torch.ones(3, 1), torch.linspace(0, 1, 3)
    for bad, hint in (
        ((torch.ones(3), times), "vectors"),
        ((x, times.flip(0)), "increasing"),
        ((x, times, None, torch.zeros(2, 3, 2)), "components of the noise"),
    ):
        with pytest.raises(ValueError, match=hint):
            sde.sample(*bad)
    with pytest.raises(ValueError, match="diffusion"):
        SDE(sde.drift, lambda x, t: x).sample(x, times)
    before = torch.get_rng_state()
    assert torch.equal(sde.sample(x, times, seed=1), sde.sample(x, times, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(list(sde.trajectory(x, times, seed=1))) == 2
