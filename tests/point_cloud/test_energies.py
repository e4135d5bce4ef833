"""Energies against closed forms and long-known minima."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science_domains.point_cloud.energies import DoubleWell, LennardJones, force, virial

WELL = math.sqrt(4 / (2 * 0.9))  # a s² + b s is least at s = -b / 2a


def pair(distance: float, dim: int) -> torch.Tensor:
    x = torch.zeros(1, 2, dim, dtype=torch.float64)
    x[0, 1, 0] = distance
    return x


@pytest.mark.parametrize("distance", [4 - WELL, 4 + WELL])
def test_a_pair_of_the_double_well_has_its_minima_where_they_are_known(distance: float) -> None:
    x = pair(distance, 2)
    assert DoubleWell()(x).item() == pytest.approx(-(4.0**2) / (4 * 0.9), abs=1e-12)
    assert force(DoubleWell(), x)[1].abs().max() < 1e-10
    assert pytest.approx(1.4907, abs=5e-5) == WELL


@pytest.mark.parametrize(("factor", "depth"), [(1.0, -2.0), (0.5, -1.0)])
def test_the_factor_counts_ordered_or_unordered_pairs(factor: float, depth: float) -> None:
    trap = 0.5 * 2 * 0.5**2
    assert LennardJones(2, factor)(pair(1.0, 3)).item() == pytest.approx(depth + trap, abs=1e-12)


def icosahedron() -> torch.Tensor:
    """A point amid the corners of an icosahedron of radius one, ``(13, 3)``."""
    g = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * g) for a in (1, -1) for b in (1, -1)]
    points = torch.tensor([p[k:] + p[:k] for p in corners for k in range(3)], dtype=torch.float64)
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), points / points.norm(dim=1, keepdim=True)])


def test_thirteen_particles_have_the_known_ground_state() -> None:
    scale = torch.linspace(0.9, 1.1, 20_001, dtype=torch.float64)
    clouds = scale[:, None, None] * icosahedron()
    energies = torch.cat([LennardJones(13, 0.5, trap=0.0)(part) for part in clouds.split(2_000)])
    assert energies.min().item() == pytest.approx(-44.326801, abs=1e-5)  # Hoare & Pal 1971


@pytest.mark.parametrize(("energy", "shape"), [(DoubleWell(), (8, 4, 2)), (LennardJones(5), (8, 5, 3))])
def test_energies_do_not_see_order_pose_or_position(energy, shape) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(shape, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(shape[2], shape[2], dtype=torch.float64))[0]
    moved = (x @ turn + torch.randn(shape[2], dtype=torch.float64))[:, torch.randperm(shape[1])]
    torch.testing.assert_close(energy(moved), energy(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("energy", "shape"), [(DoubleWell(), (8, 4, 2)), (LennardJones(5), (8, 5, 3))])
def test_the_virial_is_the_change_of_energy_on_scaling(energy, shape) -> None:
    torch.manual_seed(0)
    x = 2 * torch.randn(shape, dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    one = torch.ones((), dtype=torch.float64)
    change = torch.func.jvp(lambda s: energy(s * x), (one,), (one,))[1]
    torch.testing.assert_close(virial(energy, x), change)
    assert force(energy, x)[1].mean(1).abs().max() < 1e-6 * force(energy, x)[1].abs().max()


def test_points_on_top_of_each_other_leave_gradients_finite() -> None:
    x = torch.zeros(1, 4, 2)
    assert force(DoubleWell(), x)[1].isfinite().all()


def test_clouds_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="clouds of 4 points"):
        LennardJones(13)(torch.randn(2, 4, 3))


@pytest.mark.parametrize("core", [0.0, 0.3])
def test_the_closed_form_of_a_force_is_the_slope_of_the_energy(core: float) -> None:
    torch.manual_seed(0)
    x = 1.3 * torch.randn(6, 7, 3, dtype=torch.float64)
    energy = LennardJones(7, 0.5, 1.3, 0.9, 0.7, core)
    found, expected = force(energy, x), force(lambda y: energy(y), x)
    torch.testing.assert_close(found[0], expected[0])
    scale = expected[1].abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(found[1] / scale, expected[1] / scale, rtol=0, atol=1e-12)


def test_soft_cores_let_particles_pass_and_end_hard() -> None:
    together = torch.zeros(1, 3, 3, dtype=torch.float64)
    hard, soft = LennardJones(3), LennardJones(3).softer(1.0)
    assert 0 < soft(together).item() < 1e3 < hard(together).item()
    assert bool(force(soft, together)[1].isfinite().all())
    x = torch.randn(2, 3, 3, dtype=torch.float64)
    assert torch.equal(hard.softer(0.0)(x), hard(x))
    assert repr(soft) == repr(hard)  # stored samples are known by it
