"""Distances between laws, where they are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import (
    bures,
    critic_wasserstein,
    energy_distance,
    frechet,
    jensen_shannon,
    line_wasserstein,
    sinkhorn_divergence,
    sliced_wasserstein,
    wasserstein,
)

pytestmark = pytest.mark.usefixtures("double")
SHIFT = torch.tensor([0.6, -0.8], dtype=torch.float64)


def points(n: int, dim: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_a_shift_is_as_far_as_it_is_long(p):
    x = points(60)
    assert wasserstein(x, x + SHIFT, p) == pytest.approx(1.0, abs=1e-9)
    assert wasserstein(x, x, p) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_on_a_line_one_direction_is_the_whole_distance_also_of_unequal_numbers(p):
    x, y = points(30, 1), 0.5 * points(45, 1, 1) + 1
    assert sliced_wasserstein(x, y, p, directions=1) == pytest.approx(wasserstein(x, y, p), abs=1e-9)


def test_slices_of_a_shift_see_its_share_along_each_direction():
    """E (v . a)² = |v|² / d over unit directions a; its spread in the plane is |v|² / 8^1/2."""
    found = sliced_wasserstein(points(50), points(50) + SHIFT, directions=4000) ** 2
    assert found == pytest.approx(0.5, abs=5 / 8**0.5 / 4000**0.5)


def test_sinkhorn_divergence_goes_from_transport_to_the_distance_of_means():
    x, y = points(40), 0.5 * points(30, 2, 1) + SHIFT
    assert float(sinkhorn_divergence(x, x, 0.5)) == pytest.approx(0.0, abs=1e-9)
    means = (x.mean(0) - y.mean(0)).square().sum()
    assert float(sinkhorn_divergence(x, y, 1e4)) == pytest.approx(float(means), rel=1e-3)
    few, others = x[:12], y[:12]
    sharp = float(sinkhorn_divergence(few, others, 0.1, steps=20_000, tolerance=1e-4))
    assert sharp == pytest.approx(wasserstein(few, others) ** 2, abs=0.1 * math.log(12))  # reg times the entropy
    moved = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sinkhorn_divergence(moved, y, 1e4), moved)
    assert torch.allclose(slope, (2 * (x.mean(0) - y.mean(0)) / len(x)).expand_as(x), atol=1e-3)


def test_sinkhorn_divergence_has_the_slope_of_differences():
    x, y = points(6), points(7, 2, 1) + SHIFT
    (slope,) = torch.autograd.grad(
        sinkhorn_divergence(x.requires_grad_(), y, 0.5, tolerance=1e-12), x
    )  # fmt: skip
    step = torch.zeros_like(x)
    step[2, 1] = 1e-5
    ahead, behind = (sinkhorn_divergence(x.detach() + s * step, y, 0.5, tolerance=1e-12) for s in (1, -1))
    assert float(slope[2, 1]) == pytest.approx(float(ahead - behind) / 2e-5, abs=1e-6)


def test_bures_is_the_cost_of_the_affine_map_between_gaussians():
    """(m0 - m1)² + (s0 - s1)² on a line; and the mean square of T(z) - z for points whose moments are exact."""
    one = [torch.tensor([2.0]), torch.tensor([[0.25]]), torch.tensor([0.0]), torch.tensor([[1.0]])]
    assert float(bures(*one)) == pytest.approx(math.sqrt(4 + 0.25), abs=1e-12)
    z = points(100)
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T, correction=0)).T)
    root = torch.tensor([[1.0, 0.3], [0.3, 0.7]], dtype=torch.float64)
    there = z @ root + SHIFT
    found = bures(torch.zeros(2), torch.eye(2), SHIFT, root @ root)
    assert float(found) == pytest.approx(float((there - z).square().sum(1).mean().sqrt()), abs=1e-9)
    assert float(found) == pytest.approx(wasserstein(z, there), abs=1e-9)


def test_a_critic_finds_the_length_of_a_shift():
    """The critic s v . x of a shift v of length d gains s d - penalty (s - 1)², most at s = 1 + d / (2 penalty)."""
    x = points(400).float()
    found = critic_wasserstein(x, x - 2 * SHIFT.float(), steps=100, width=16, batch=64)
    assert found == pytest.approx(2.2, abs=0.05)
    assert found == critic_wasserstein(x, x - 2 * SHIFT.float(), steps=100, width=16, batch=64)


def test_what_is_no_set_of_points_is_refused():
    for make in (wasserstein, sliced_wasserstein, critic_wasserstein, sinkhorn_divergence):
        with pytest.raises(ValueError, match="expected"):
            make(points(4), points(4, 3))
    with pytest.raises(ValueError, match="at least 1"):
        wasserstein(points(4), points(4), 0.5)
    with pytest.raises(ValueError, match="positive"):
        sinkhorn_divergence(points(4), points(4), 0.0)
    with pytest.raises(RuntimeError, match="converge"):
        sinkhorn_divergence(points(40), points(40, 2, 1), 1e-3, steps=3)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_numbers_on_a_line_are_carried_in_order(p):
    x, one = torch.arange(6.0), torch.tensor([0.0, 1.0])
    assert line_wasserstein(x, x + 2, p) == pytest.approx(2)
    assert line_wasserstein(x, x.repeat(3), p) == pytest.approx(0)
    assert line_wasserstein(one, one[:1], p) == pytest.approx(0.5 ** (1 / p))
    assert line_wasserstein(points(30, 1)[:, 0], 2 * points(45, 1, 1)[:, 0], p) == pytest.approx(
        wasserstein(points(30, 1), 2 * points(45, 1, 1), p), abs=1e-9
    )
    assert math.isnan(line_wasserstein(x, x[:0], p))


@pytest.mark.parametrize(("n", "m", "dim"), [(500, 300, 6), (8, 5, 30)])  # more points than coordinates, and fewer
def test_the_frechet_distance_is_that_of_the_fitted_gaussians(n, m, dim):
    x, y = points(n, dim), points(m, dim, 1) @ points(dim, dim, 2) + 1
    expected = bures(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()) ** 2
    assert frechet(x, y) == pytest.approx(float(expected), rel=1e-6)  # roots of an eigenvalue zero are lost in rounding


def test_the_frechet_distance_in_closed_form():
    """A shift costs its square; commuting covariances the squared differences of their roots."""
    x, shift = points(500, 4), torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)
    middle = x - x.mean(0)
    assert frechet(middle, 3 * middle) == pytest.approx(4 * float(x.T.cov().trace()), rel=1e-9)
    assert math.isnan(frechet(x[:1], x))


def test_the_energy_distance_of_point_masses_is_twice_their_distance():
    x = torch.zeros(5, 3, dtype=torch.float64)
    assert energy_distance(x, x + 2) == pytest.approx(2 * math.sqrt(12))
    assert energy_distance(x, x) == 0
    assert math.isnan(energy_distance(x[:1], x))


def test_the_energy_distance_is_zero_on_average_for_one_law():
    """Its mean is zero; a draw of 400 points deviates by less than the mean distance over the root of 400."""
    a, b = points(400), points(400, 2, 1)
    assert abs(energy_distance(a, b)) < float(torch.cdist(a, b).mean()) / 20


def test_jensen_shannon_is_one_bit_for_what_never_meets():
    one, other = torch.tensor([1, 0]), torch.tensor([0, 7])
    assert jensen_shannon(one, other) == pytest.approx(1)
    assert jensen_shannon(one, 2 * one) == 0
    assert jensen_shannon(one, one + other) == pytest.approx(
        0.5 * math.log2(1 / (9 / 16)) + 0.5 * (math.log2((1 / 8) / (9 / 16)) / 8 + (7 / 8) * 1), rel=1e-9
    )
    assert math.isnan(jensen_shannon(torch.zeros(2), torch.ones(2)))
