"""Schedules: their ends, rates, inverses, and the diffusions they stand for."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.objectives import ChainTime
from fm_science.schedules import (
    VE,
    VP,
    Betas,
    Cosine,
    Exponential,
    Linear,
    LipmanOT,
    Polynomial,
    SubVP,
    Trigonometric,
)

pytestmark = pytest.mark.usefixtures("double")
FULL = [Linear(), Polynomial(2.0), Polynomial(0.7), Trigonometric(), Exponential(10.0)]
ALL = [*FULL, Cosine(), VP(), SubVP(), VE(), LipmanOT(1e-3)]


@pytest.mark.parametrize("schedule", FULL)
def test_straight_clocks_run_from_pure_noise_to_pure_data(schedule):
    assert schedule.ends == pytest.approx((0, 1, 1, 0), abs=1e-15)
    assert schedule.ends[3] == 0, "exactly, so that the last step is known to be singular"


@pytest.mark.parametrize(
    ("schedule", "ends"),
    [
        (Cosine(), (0, 1, 1, 0)),
        (VP(), (math.exp(-0.5 * 10.05), math.sqrt(1 - math.exp(-10.05)), 1, 0)),
        (SubVP(), (math.exp(-0.5 * 10.05), 1 - math.exp(-10.05), 1, 0)),
        (VE(0.1, 20.0), (1, 20, 1, 0.1)),
        (LipmanOT(0.2), (0, 1, 1, 0.2)),
    ],
)
def test_other_clocks_have_their_stated_ends(schedule, ends):
    assert schedule.ends == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize("schedule", ALL)
def test_rates_are_the_derivatives(schedule):
    t, h = torch.linspace(0.05, 0.95, 19), 1e-6
    _, _, dalpha, dsigma = schedule.rates(t)
    (a, s), (b, r) = schedule(t + h), schedule(t - h)
    scale = 1 + schedule(t)[1].abs()
    assert ((dalpha - (a - b) / (2 * h)) / scale).abs().max() < 1e-7
    assert ((dsigma - (s - r) / (2 * h)) / scale).abs().max() < 1e-7


@pytest.mark.parametrize("schedule", ALL)
def test_the_time_of_a_ratio_of_signal_to_noise_is_found_again(schedule):
    t = torch.linspace(0.02, 0.98, 49)
    alpha, sigma = schedule(t)
    assert (alpha / sigma).diff().min() > 0
    assert (schedule.time(3 * alpha, 3 * sigma) - t).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", [*FULL, Cosine(), VP()])
def test_the_remaining_way_is_right_near_the_end(schedule):
    rest = torch.tensor([1e-3, 1e-6, 1e-9])
    t = 1 - rest
    exact = 1 - schedule(t.to(torch.float64))[0]
    assert ((schedule.remaining(t) - exact).abs() < 1e-15 + 1e-4 * schedule.remaining(t)).all()
    assert (schedule.remaining(t) > 0).all()


@pytest.mark.parametrize("rate", [10.0, 100.0, 800.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fast_exponential_clocks_do_not_overflow(rate, dtype):
    t = torch.linspace(0, 1, 11, dtype=dtype)
    alpha, sigma = Exponential(rate)(t)
    assert alpha.isfinite().all()
    assert torch.allclose(alpha + sigma, torch.ones_like(t), atol=4 * torch.finfo(dtype).eps)
    assert (float(sigma[0]), float(sigma[-1])) == (1.0, 0.0)


def test_vp_and_sub_vp_are_the_diffusions_of_their_names():
    """d log alpha / dt = beta / 2 in forward time; sigma² = 1 - alpha², and its square."""
    t = torch.linspace(0.1, 0.9, 9)
    alpha, sigma, dalpha, _ = VP().rates(t)
    beta = 0.1 + (1 - t) * 19.9
    assert (dalpha / alpha - 0.5 * beta).abs().max() < 1e-12
    assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-12
    assert (SubVP()(t)[1] - sigma**2).abs().max() < 1e-12


def test_cosine_keeps_the_variance_and_follows_its_angle():
    t = torch.linspace(0, 1, 11)
    alpha, sigma = Cosine(0.01)(t)
    angle = (1 - t + 0.01) / 1.01 * 0.5 * math.pi
    assert (alpha - angle.cos() / angle[-1].cos()).abs().max() < 1e-12
    assert (alpha**2 + sigma**2 - 1).abs().max() < 1e-12


@pytest.mark.parametrize("offset", [1e-4, 0.003, 0.008, 0.02, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_rounding_leaves_noise_or_less_than_none_at_the_end_of_cosine(offset, dtype):
    alpha, sigma = Cosine(offset)(torch.ones(1, dtype=dtype))
    assert float(sigma) == 0
    assert float(alpha) == pytest.approx(1, abs=4 * torch.finfo(dtype).eps)


def test_a_chain_of_betas_is_the_product_of_its_steps_and_near_its_continuous_relative():
    chain = Betas(10, 0.1, 0.3)
    beta = torch.linspace(0.1, 0.3, 10)
    alpha, sigma = chain(1 - torch.arange(11) / 10)
    products = torch.cat([torch.ones(1), (1 - beta).cumprod(0)])
    assert torch.allclose(alpha.square(), products)
    assert torch.allclose(sigma.square(), 1 - products)
    t = torch.linspace(0.055, 0.955, 19)  # between the steps
    h = 1e-6
    assert torch.allclose(chain.rates(t)[2], (chain(t + h)[0] - chain(t - h)[0]) / (2 * h), atol=1e-6)
    ratio = Betas()(t)[0] / VP()(t)[0]  # 1,000 steps with beta / 1,000
    assert (ratio - 1).abs().max() < 0.03


@pytest.mark.parametrize("make", [lambda: Betas(0), lambda: Betas(10, 0.0), lambda: Betas(10, 0.1, 1.0)])
def test_a_chain_needs_steps_and_betas(make):
    with pytest.raises(ValueError, match="betas between 0 and 1"):
        make()


def test_times_of_a_chain_are_those_of_its_steps():
    t = ChainTime(4)(1000)
    assert t.unique().tolist() == [0.0, 0.25, 0.5, 0.75]
