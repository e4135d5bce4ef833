"""Identities of flows and diffusions, on processes whose laws are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.identities import (
    backward_drift,
    continuity_residual,
    current_velocity,
    fokker_planck_residual,
    ornstein_uhlenbeck_bridge,
    osmotic_velocity,
    probability_flow,
    transport_bound,
)
from fm_science.likelihood import entropy_along
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean
from fm_science.state import Context, expand_like

pytestmark = pytest.mark.usefixtures("double")
THETA, SIGMA, N = 0.7, 1.3, 50


def places(dim: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, dim, generator=generator, dtype=torch.float64)
    return x, torch.linspace(0.1, 0.9, N, dtype=torch.float64)


def moments(t):
    """Of the Ornstein-Uhlenbeck process from N(2, 1/4), ``(B, 1)`` each."""
    decay = torch.exp(-THETA * t)[:, None]
    return 2 * decay, 0.25 * decay**2 + SIGMA**2 * (1 - decay**2) / (2 * THETA)


def log_density(x, t):
    mean, variance = moments(t)
    return (-0.5 * (x - mean) ** 2 / variance - 0.5 * (2 * math.pi * variance).log()).sum(1)


def score(x, t):
    mean, variance = moments(t)
    return (mean - x) / variance


def drift(x, t):
    return -THETA * x


def test_the_law_of_an_ornstein_uhlenbeck_process_solves_its_fokker_planck_equation():
    x, t = places()
    assert fokker_planck_residual(log_density, drift, SIGMA, x, t).abs().max() < 1e-10
    wrong = fokker_planck_residual(log_density, lambda y, r: drift(y, r) + 1.0, SIGMA, x, t)
    assert torch.allclose(wrong, score(x, t).sum(1), atol=1e-10)  # a drift of one more in each coordinate


def test_nelson_relation_gives_the_flow_and_the_process_backwards():
    x, t = places()
    flow = lambda y, r: current_velocity(drift(y, r), score(y, r), SIGMA)  # noqa: E731
    assert continuity_residual(log_density, flow, x, t).abs().max() < 1e-10
    back = backward_drift(drift(x, t), score(x, t), SIGMA)
    assert torch.allclose(0.5 * (drift(x, t) + back), flow(x, t))
    assert torch.allclose(0.5 * (drift(x, t) - back), osmotic_velocity(score(x, t), SIGMA))
    # against the clock the law is that of drift -b* and the same noise
    reverse = fokker_planck_residual(
        lambda y, r: log_density(y, 1 - r),
        lambda y, r: -backward_drift(drift(y, 1 - r), score(y, 1 - r), SIGMA), SIGMA, x, 1 - t,
    )  # fmt: skip
    assert reverse.abs().max() < 1e-10


def test_noise_that_depends_on_the_place_has_a_flow_with_its_divergence():
    """Geometric Brownian motion dX = a X dt + c X dW of log-normal law: with y = log x of mean m and variance v the
    velocity is x (a - c² / 2 + c² (y - m) / (2 v))."""
    a, c = 0.4, 0.8
    mean, variance = lambda t: (a - 0.5 * c**2) * t[:, None], lambda t: 0.3 + c**2 * t[:, None]

    def log_normal(x, t):
        y = x.log()
        v = variance(t)
        return (-0.5 * (y - mean(t)) ** 2 / v - 0.5 * (2 * math.pi * v).log() - y).sum(1)

    slope = lambda x, t: (-1 - (x.log() - mean(t)) / variance(t)) / x  # noqa: E731
    velocity = probability_flow(lambda x, t: a * x, lambda x, t: c * torch.diag_embed(x), slope)
    x, t = places()
    x = x.exp()
    exact = x * (a - 0.5 * c**2 + 0.5 * c**2 * (x.log() - mean(t)) / variance(t))
    assert torch.allclose(velocity(x, t), exact, atol=1e-10)
    assert continuity_residual(log_normal, velocity, x, t).abs().max() < 1e-9


def test_a_process_that_is_bound_to_arrive_has_the_law_of_its_bridge():
    """From x0 to y the Ornstein-Uhlenbeck bridge is Gaussian, of mean (x0 sinh(theta (1-t)) + y sinh(theta t)) /
    sinh(theta) and variance sigma² sinh(theta t) sinh(theta (1-t)) / (theta sinh(theta))."""
    x, t = places()
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 2.0])

    def law(y, r):
        ahead, behind = torch.sinh(THETA * r)[:, None], torch.sinh(THETA * (1 - r))[:, None]
        mean = (start * behind + end * ahead) / math.sinh(THETA)
        v = SIGMA**2 * ahead * behind / (THETA * math.sinh(THETA))
        return (-0.5 * (y - mean) ** 2 / v - 0.5 * (2 * math.pi * v).log()).sum(1)

    bound = lambda y, r: ornstein_uhlenbeck_bridge(y, r, end, THETA, SIGMA)  # noqa: E731
    assert fokker_planck_residual(law, bound, SIGMA, x, t).abs().max() < 1e-9
    plain = ornstein_uhlenbeck_bridge(x, t, end, 0.0)
    assert torch.allclose(plain, (end - x) / (1 - t)[:, None])
    assert torch.allclose(ornstein_uhlenbeck_bridge(x, t, end, 1e-6), plain, atol=1e-4)


def test_entropy_falls_by_the_logarithm_of_the_spread():
    """N(0, 1) to N(2, 1/4): the spread at t is 1 - t/2 in each of two directions. Only the first entropy is guessed."""
    context = Context.full(200)
    path = Geodesic(Euclidean(2)).bind(context, Normal())

    def velocity(x, t):
        t = expand_like(t, x)
        return 2 - 0.5 * (x - 2 * t) / (1 - t / 2)

    torch.manual_seed(0)
    x, times = torch.randn(200, 1, 2), torch.linspace(0, 1, 11)
    found = entropy_along(path, velocity, x, Normal(), RK4(), times)
    assert torch.allclose(found - found[0], 2 * torch.log(1 - times / 2), atol=1e-6)
    # -log p of a point has variance d / 2
    assert float(found[0]) == pytest.approx(1 + math.log(2 * math.pi), abs=4 / 200**0.5)
    with pytest.raises(ValueError, match="t = 0"):
        entropy_along(path, velocity, x, Normal(), RK4(), times + 0.1)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.4), (-1.0, 0.5), (1.0, 2.0)])
def test_flows_with_close_velocities_end_close(a, b):
    """Flows a x and b x of N(0, 1): ends of spread e^a and e^b, and a difference of velocities of (a-b)² e^(2 a t)."""
    apart = (math.exp(a) - math.exp(b)) ** 2
    loss = (a - b) ** 2 * (math.exp(2 * a) - 1) / (2 * a)
    assert apart <= transport_bound(abs(b), loss)
    assert transport_bound(0.0, 1.0) == pytest.approx(math.e)
