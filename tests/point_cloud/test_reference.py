"""The sampler against closed forms, and its refusal of samples that are not at equilibrium."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.point_cloud import cache
from fm_science_domains.point_cloud.cache import cached
from fm_science_domains.point_cloud.energies import LennardJones, distances
from fm_science_domains.point_cloud.reference import Plan, sample, verify
from fm_science_domains.point_cloud.systems import System, dw4, lj13, named

QUICK = Plan(populations=8, clouds=32, temperatures=40, settle=20, gap=4)
STIFF = 4.0


def springs(x: torch.Tensor) -> torch.Tensor:
    """Each particle on a spring to the centre: a Gaussian, whose mean energy is half its freedom."""
    return 0.5 * STIFF * (x - x.mean(1, keepdim=True)).square().sum((1, 2))


HARMONIC = System("springs", springs, 5, 3, (6.0, 0.0), (6 * math.log(2 * math.pi / STIFF), 0.0))


def test_springs_have_their_closed_forms() -> None:
    found = sample(HARMONIC, 1000, QUICK)  # refuses itself if mean energy, virial or log Z is off
    assert found.x.shape == (1000, 5, 3)
    assert found.x.mean(1).abs().max() < 1e-6
    expected = math.sqrt((1 - 1 / 5) / STIFF)
    # 12 independent numbers a cloud; clouds of one chain are nearly independent
    assert float(found.x.std()) == pytest.approx(expected, abs=5 * expected / math.sqrt(2 * 6000))
    assert 0 < found.log_z[1] < 0.5


def test_two_particles_with_hard_cores_have_the_integral_over_their_distance() -> None:
    """The way through soft cores, there and back, ends at the true law: Z = int 4 pi r² exp(-U) dr, d = sqrt(2) r."""
    r = torch.linspace(1e-3, 12, 40_000, dtype=torch.float64)
    energy = LennardJones(2, factor=2.0)
    u = energy(torch.stack([r, -r], 1)[..., None] / math.sqrt(2))
    weight = 4 * math.pi * r.square() * (-u).exp()
    log_z, mean = torch.trapezoid(weight, r).log().item(), (weight.sum().reciprocal() * (weight * u).sum()).item()
    system = System("two", energy, 2, 3, (mean, 0.0), (log_z, 0.0), width=1.0, bounded=True)
    found = sample(system, 512, QUICK)  # refuses itself if mean energy, virial or log Z is off
    assert found.log_z_above is not None
    assert abs(found.log_z_above[0] - log_z) < 4 * found.log_z_above[1]


def test_the_way_back_bounds_log_z_from_above() -> None:
    found = sample(replace(HARMONIC, bounded=True), 256, QUICK)
    assert found.log_z_above is not None
    known = HARMONIC.log_z
    assert known is not None
    assert abs(found.log_z_above[0] - known[0]) < 4 * found.log_z_above[1]
    apart = replace(found, log_z_above=(known[0] + 9, 0.1))
    with pytest.raises(UserError, match="from above"):
        verify(replace(HARMONIC, log_z=None), apart)


def test_the_double_well_agrees_with_what_is_known() -> None:
    found = sample(dw4(), 2000, replace(QUICK, clouds=64, temperatures=100))
    assert abs(found.log_z[0] - 29.672) < 3 * math.hypot(found.log_z[1], 0.005)
    assert abs(found.virial[0] - 6) < 3 * found.virial[1]
    d = distances(found.x)
    assert ((d > 2) & (d < 6.2)).double().mean() > 0.95


@pytest.mark.parametrize("wrong", [{"mean_energy": (7.0, 0.0)}, {"log_z": (5.0, 0.0)}])
def test_samples_that_disagree_with_what_is_known_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match="not at equilibrium"):
        sample(replace(HARMONIC, **wrong), 256, QUICK)


def test_an_energy_that_does_not_hold_the_cloud_together_is_refused() -> None:
    loose = System("loose", lambda x: 0 * x.sum((1, 2)), 3, 2)
    with pytest.raises(UserError, match="virial"):
        sample(loose, 256, QUICK)


def test_samples_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached(HARMONIC, 256, QUICK, str(tmp_path))
    monkeypatch.setattr(cache, "sample", lambda *_: pytest.fail("sampled again"))
    again = cached(HARMONIC, 256, QUICK, str(tmp_path))
    assert torch.equal(first.x, again.x)
    assert first.log_z == again.log_z
    with pytest.raises(pytest.fail.Exception):
        cached(replace(HARMONIC, energy=lambda x: 2 * springs(x)), 256, QUICK, str(tmp_path))


def test_what_is_kept_is_told_apart_by_all_that_it_hangs_on(tmp_path: Path) -> None:
    """The name of a function ends in its address, and what follows it counts too."""
    found = [cached(HARMONIC, n, QUICK, str(tmp_path)).x for n in (256, 128)]
    assert [len(x) for x in found] == [256, 128]
    cached(HARMONIC, 128, replace(QUICK, settle=21), str(tmp_path))
    cached(replace(HARMONIC, code="changed"), 128, QUICK, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_kept_file_of_another_length_is_not_used(tmp_path: Path) -> None:
    cached(HARMONIC, 128, QUICK, str(tmp_path))
    (file,) = tmp_path.iterdir()
    stored = torch.load(file, weights_only=True)
    torch.save({**stored, "x": stored["x"][:9]}, file)
    assert len(cached(HARMONIC, 128, QUICK, str(tmp_path)).x) == 128


def test_an_energy_whose_file_has_changed_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "def energy(x):\n    return x.square().sum((1, 2))\n"
    codes = []
    for k, body in enumerate((text, text, text + "# changed\n")):
        (tmp_path / f"ions_{k}.py").write_text(body)
        system = named(f"ions_{k}:energy", 1.0, 3, 2)
        assert system is not None
        codes.append(system.code)
    assert codes[0] == codes[1] != codes[2]
    assert dw4().code == ""


def test_the_same_seed_gives_the_same_clouds_and_torch_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (sample(HARMONIC, 64, QUICK).x for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


def test_facts_belong_to_one_way_of_counting_pairs() -> None:
    assert lj13(1.0).mean_energy is not None
    assert lj13(0.5).mean_energy is None
    assert lj13().freedom == 36
    assert lj13().normaliser == pytest.approx(33.08, abs=0.005)
    assert dw4().normaliser == pytest.approx(5.514, abs=0.0005)
