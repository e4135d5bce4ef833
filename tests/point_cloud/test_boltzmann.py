"""Weights, likelihoods and ways of a flow whose density is known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import Centered, Context, Flow, Geodesic, Normal
from fm_science.state import expand_like
from fm_science_domains.point_cloud import boltzmann
from fm_science_domains.point_cloud.boltzmann import Work, appraise, effective_size, forward_effective_size, log_z
from fm_science_domains.point_cloud.metrics import total_variation
from fm_science_domains.point_cloud.report import _density
from fm_science_domains.point_cloud.systems import System

SCALE, POINTS, DIM = 1.5, 4, 2
FREEDOM = (POINTS - 1) * DIM


def widening(x: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
    """The velocity that carries a Gaussian of spread 1 to one of spread SCALE."""
    return x * expand_like((SCALE - 1) / (1 + (SCALE - 1) * t), x)


def energy(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x - x.mean(1, keepdim=True)).square().sum((1, 2)) / SCALE**2


LOG_Z = FREEDOM * (0.5 * math.log(2 * math.pi) + math.log(SCALE))


def test_a_perfect_flow_has_equal_weights_and_reaches_every_floor() -> None:
    torch.manual_seed(0)
    flow = Flow(Geodesic(Centered(DIM)), Normal(), widening)
    held_out = SCALE * Normal().sample(Centered(DIM), Context.full(400, POINTS))
    system = System("wide", energy, POINTS, DIM, log_z=(LOG_Z, 0.0))
    found = appraise(flow, energy, held_out, Work(300, steps=16, seed=1), system)
    assert found["ess"] == pytest.approx(1, abs=1e-4)
    assert found["ess_forward"] == pytest.approx(1, abs=1e-4)
    assert found["log_z"] == pytest.approx(LOG_Z, abs=1e-3)
    assert found["nll"] == pytest.approx(found["nll_floor"], abs=1e-3)
    assert found["nll_above_floor"] == pytest.approx(0, abs=1e-3)
    assert found["nll"] - found["nll_unnormalised"] == pytest.approx(system.normaliser, abs=1e-6)
    assert found["straightness"] == pytest.approx(1, abs=1e-4)
    # |x1 - x0| = (SCALE - 1) |x0|, and |x0| follows the chi law with as many degrees as there is freedom
    chi = math.sqrt(2) * math.exp(math.lgamma((FREEDOM + 1) / 2) - math.lgamma(FREEDOM / 2))
    assert found["path_length"] == pytest.approx((SCALE - 1) * chi, abs=5 * 0.5 * 0.7 / math.sqrt(300))


def test_a_narrow_flow_is_told_by_its_weights() -> None:
    """q = N(0, 1), p = N(0, s²) in d dimensions: the share of samples of p that count is known in closed form."""
    torch.manual_seed(0)
    x = torch.randn(200_000, 1, dtype=torch.float64)
    narrow, s2 = 0.8, 0.64
    log_w = -0.5 * (x / narrow).square().sum(1) + 0.5 * x.square().sum(1)  # exp(-U) / q up to a constant
    # 1 / E_q (p/q)² for Gaussians with s² < 2
    expected = narrow * math.sqrt(2 - s2)
    assert effective_size(log_w) == pytest.approx(expected, abs=0.005)
    data = narrow * torch.randn(200_000, 1, dtype=torch.float64)
    forward = -0.5 * (data / narrow).square().sum(1) + 0.5 * data.square().sum(1)
    assert forward_effective_size(forward) == pytest.approx(expected, abs=0.005)


def test_weighted_histograms_are_those_of_the_target() -> None:
    torch.manual_seed(0)
    x = torch.randn(100_000, 1, dtype=torch.float64)
    edges = torch.linspace(-3, 3, 13, dtype=torch.float64)
    share = (-0.5 * (x[:, 0] / 0.8) ** 2 + 0.5 * x[:, 0] ** 2).softmax(0)
    law = torch.distributions.Normal(0.0, 0.8)
    expected = law.cdf(edges[1:]) - law.cdf(edges[:-1])
    assert torch.allclose(_density(x, share, edges) * 0.5, expected, atol=0.005)  # five standard errors
    assert float(_density(x, None, edges).sum()) * 0.5 == pytest.approx(0.9973, abs=0.001)


def test_weights_of_one_sample_count_as_one() -> None:
    log_w = torch.tensor([0.0, *[-math.inf] * 9], dtype=torch.float64)
    assert effective_size(log_w) == pytest.approx(0.1)
    assert log_z(log_w)[0] == pytest.approx(-math.log(10))
    assert effective_size(torch.full((7,), 3.0)) == pytest.approx(1)


def test_the_bootstrap_finds_the_error_of_a_mean() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = boltzmann.bootstrap(values, lambda v: v.mean().item())
    assert found == pytest.approx(float(values.std()) / 20, rel=0.2)  # 200 rounds: 5 % error, four times that


def test_total_variation_on_the_line() -> None:
    x = torch.arange(6.0, dtype=torch.float64)
    assert total_variation(x, x) == pytest.approx(0)
    assert total_variation(x + 100, x) == pytest.approx(1)
