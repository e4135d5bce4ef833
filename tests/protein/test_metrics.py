"""Metrics know natives from garbage: documented values on real chains, closed forms, and no crash on nonsense."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fm_science_domains.protein import fold, geometry, ramachandran, sheets
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.metrics import (
    Metrics,
    matched,
    metrics,
    per_sample,
    random_coil,
    references,
)  # fmt: skip
from fm_science_domains.protein.structure import Backbone, grow

pytest.importorskip("pydssp")
pytest.importorskip("tmtools")
FAST = metrics(Metrics(pairs=3, candidates=1, designed=0))


def chain(phi: float, psi: float, length: int = 30) -> Backbone:
    one = torch.ones(length, dtype=torch.float64)
    return Backbone(grow(math.radians(phi) * one, math.radians(psi) * one).float())


@pytest.fixture(scope="module")
def natives() -> tuple[Backbone, ...]:
    return backbones(True)[::3]


@pytest.fixture(scope="module")
def coil() -> list[Backbone]:
    return random_coil([60, 80, 100] * 4, torch.Generator().manual_seed(0))


def table(samples, reference=None) -> dict[str, float]:
    reference = samples if reference is None else reference
    cheap = ("peptide", "ramachandran", "clashes", "size", "secondary", "strands", "frechet")
    return {k: v for name in cheap for k, v in FAST[name](samples, reference).items()}


def test_natives_have_the_documented_values(natives):
    """Values of 3,271 chains of the same origin; tolerances are three standard errors of 95 chains or more."""
    found = table(natives)
    documented = {
        "finite": (1, 0), "ca_ca": (3.806, 0.004), "ca_ca_ok": (0.9935, 0.005), "ca_ca_cis": (0.0027, 0.002),
        "c_n": (1.330, 0.002), "c_n_ok": (1.0, 0.001), "angle_ca_c_n": (116.6, 0.2), "angle_c_n_ca": (121.5, 0.2),
        "omega_trans": (0.997, 0.002), "omega_sd": (5.0, 0.6), "rama_favoured": (0.941, 0.01),
        "rama_allowed": (0.985, 0.006), "phi_positive": (0.061, 0.01), "clashes": (0.0, 0.001), "overlaps": (0, 0.001),
        "rg_ratio": (1.08, 0.03), "rg_z": (0.0, 0.35), "helix": (0.35, 0.08), "strand": (0.24, 0.06),
        "strand_placed": (0.88, 0.03), "strand_near": (0.11, 0.03), "strand_far": (0.01, 0.01),
        "ss_distance": (0, 1e-6), "rama_js": (0, 1e-9), "frechet": (0, 1e-6),
    }  # fmt: skip
    wrong = {k: (found[k], v) for k, (v, tolerance) in documented.items() if abs(found[k] - v) > tolerance}
    assert not wrong


def test_the_coil_is_locally_perfect_and_no_protein(coil, natives):
    found = table(coil, natives)
    assert found["ca_ca_ok"] == found["c_n_ok"] == found["omega_trans"] == 1
    assert found["rama_favoured"] == pytest.approx(ramachandran.FAVOURED, abs=0.02)
    assert found["rg_ratio"] > 1.35
    assert found["strand"] < 0.1
    assert found["clashes"] > 0.02
    assert found["frechet"] > 20
    assert found["ss_distance"] > 0.3


def test_strands_are_placed_where_a_sheet_has_them():
    """Two straight strands of CAs at a known distance, and one on its own."""
    sites = torch.arange(10.0)
    apart = {4.0: "near", 4.8: "placed", 5.5: "placed", 6.5: "far"}
    for distance, where in apart.items():
        ca = torch.stack([3.4 * sites.remainder(5), distance * (sites >= 5), 0 * sites], -1)
        coords = ca[:, None] + 0.1 * torch.arange(4.0)[:, None]
        found = geometry.placement(coords.double(), torch.ones(10, dtype=torch.bool))
        assert found == {f"strand_{k}": float(k == where) for k in ("placed", "near", "far")} | {"strand_judged": 10}
    nothing = geometry.placement(coords, torch.zeros(10, dtype=torch.bool))
    assert math.isnan(nothing["strand_placed"])
    assert nothing["strand_judged"] == 0


def test_residues_that_are_asked_to_be_strand_are_judged(natives):
    plain = natives[40]
    all_strand = replace(plain, structure="E" * len(plain))
    assert geometry.measure(all_strand)["strand_judged"] == len(plain)
    assert geometry.measure(plain)["strand_judged"] < len(plain)
    pooled = FAST["strands"]([plain, chain(-120, 130)], natives)
    assert pooled["strand_placed"] == pytest.approx(geometry.measure(plain)["strand_placed"])


def test_what_was_asked_is_compared_with_what_came(natives):
    plain = next(b for b in natives if geometry.measure(b)["strand"] > 0.4)
    kinds = geometry.secondary(plain.coords)
    sheet = sheets.written(sheets.pairs(plain.coords, kinds))
    conditioned = replace(plain, structure=geometry.spelt(kinds), sheet=sheet)
    assert FAST["obedience"]([conditioned], natives) == {"structure_kept": 1, "sheet_kept": 1}
    flipped = sheet.translate(str.maketrans("ap", "pa"))
    assert FAST["obedience"]([replace(conditioned, sheet=flipped)], natives) == {"structure_kept": 1, "sheet_kept": 0}
    helix = replace(plain, structure="H" * 10 + "X" * (len(plain) - 10))
    expected = (kinds[:10] == geometry.HELIX).double().mean().item()
    assert FAST["obedience"]([helix, plain], natives) == {"structure_kept": expected}
    assert FAST["obedience"](natives, natives) == {}


def test_raw_and_closed_joints_and_the_way_between(natives):
    good = natives[20]
    stretched = replace(good, coords=good.coords, raw=good.coords * 1.1)
    found = FAST["closure"]([stretched], natives)
    assert found["raw_ca_ca_ok"] == 0
    assert found["raw_c_n_ok"] < 0.2
    assert found["raw_angle_ca_c_n_sd"] == pytest.approx(geometry.measure(good)["angle_ca_c_n_sd"], abs=1e-3)
    moved = 0.1 * good.coords.double().square().sum(-1).mean().sqrt().item()
    assert found["atoms_moved"] == found["atoms_moved_most"] == pytest.approx(moved, rel=1e-5)
    assert FAST["closure"](natives, natives) == {}
    assert per_sample([stretched])[0]["atoms_moved"] == pytest.approx(moved, rel=1e-5)


def test_regions_of_the_ramachandran_plot():
    density = ramachandran.reference()
    assert density.mass.sum().item() == pytest.approx(1)
    assert (density.mass >= density.favoured).double().mean().item() == pytest.approx(0.157, abs=0.005)
    assert (density.mass >= density.allowed).double().mean().item() == pytest.approx(0.379, abs=0.01)
    drawn = density.sample(20_000, torch.Generator().manual_seed(0))
    # binomial error of 20,000 draws: 0.0012 and 0.0003
    assert (density(drawn) >= density.favoured).double().mean().item() == pytest.approx(0.97, abs=0.005)
    assert (density(drawn) >= density.allowed).double().mean().item() == pytest.approx(0.998, abs=0.0015)
    alpha, beta, nowhere = torch.tensor([[-63.0, -42], [-120, 130], [90, -90]]).deg2rad()
    assert density(alpha) > density(beta) > density.favoured > density.allowed > density(nowhere)


def test_helix_strand_and_mirror_image():
    helix, strand = geometry.measure(chain(-63, -42)), geometry.measure(chain(-120, 130))
    assert helix["helix"] > 0.8
    assert strand["helix"] == strand["strand"] == 0  # one strand alone has no partner
    assert helix["rama_favoured"] == strand["rama_favoured"] == 1
    assert helix["rg"] == pytest.approx(1.5 * math.sqrt((30**2 - 1) / 12) / 1, rel=0.1)  # a rod of 30 steps of 1.5
    left = Backbone(chain(-63, -42).coords * torch.tensor([-1.0, 1, 1]))
    assert geometry.measure(left)["phi_positive"] == 1


def test_measures_do_not_depend_on_the_pose(natives):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    moved = Backbone(natives[9].coords @ (turn * torch.linalg.det(turn)) + 5)
    a, b = geometry.measure(natives[9]), geometry.measure(moved)
    assert a == pytest.approx(b, abs=1e-3)


def test_tm_score(natives, coil):
    a, b = natives[10], natives[11]
    assert fold.tm_score(a, a) == pytest.approx(1, abs=1e-4)
    assert fold.tm_score(a, b) == pytest.approx(fold.tm_score(b, a), abs=0.05)
    assert fold.nearest(a, natives, 3) == pytest.approx(1, abs=1e-4)
    assert fold.nearest(a, natives, 3, others=True) < 0.99
    assert math.isnan(fold.tm_score(a, chain(-60, -40, 4)))
    assert math.isnan(fold.nearest(a, [], 3))


def test_clusters_join_through_a_chain_of_neighbours():
    similarity = torch.eye(5)
    for i, j in [(0, 3), (3, 1)]:
        similarity[i, j] = similarity[j, i] = 0.6
    assert fold.clusters(similarity) == 3
    assert fold.clusters(torch.ones(4, 4)) == 1
    assert fold.clusters(torch.zeros(0, 0)) == 0


def test_copies_are_not_diverse_and_not_novel(natives):
    train = backbones(False)[700:720]
    judge = metrics(Metrics(pairs=6, candidates=2), lambda: train)
    copies = [Backbone(train[3].coords + k) for k in range(4)]
    assert judge["diversity"](copies, natives) == pytest.approx({"tm_pairs": 1, "clusters": 0.25}, abs=1e-4)
    assert judge["novelty"](copies, natives) == pytest.approx({"tm_train": 1, "tm_train_same_fold": 1}, abs=1e-4)


def nonsense() -> dict[str, list[Backbone]]:
    g = torch.Generator().manual_seed(0)
    random = [Backbone(10 * torch.randn(n, 4, 3, generator=g)) for n in (40, 50)]
    return {
        "nothing": [],
        "one": random[:1],
        "random": random,
        "huge": [Backbone(1e6 * b.coords) for b in random],
        "one point": [Backbone(torch.zeros(40, 4, 3))] * 2,
        "a line": [Backbone(torch.arange(160.0).reshape(40, 4, 1) * torch.ones(3))] * 2,
        "not numbers": [Backbone(torch.full((40, 4, 3), torch.nan)), *random],
        "short": [Backbone(b.coords[:n]) for b, n in zip(random * 3, range(1, 7), strict=True)],
    }


@pytest.mark.parametrize("case", nonsense())
def test_nonsense_gets_numbers_and_no_exception(case, natives):
    samples = nonsense()[case]
    keys = {name: metric(list(natives[:3]), natives[:3]).keys() for name, metric in FAST.items()}
    for name, metric in FAST.items():
        found = metric(samples, natives[:3])
        assert found.keys() == keys[name]
        assert all(isinstance(v, float) and not math.isinf(v) for v in found.values())
    assert len({tuple(row) for row in per_sample([*samples, natives[0]])}) == 1


def test_each_sample_tells_its_secondary_structure(natives):
    (row,) = per_sample(natives[:1])
    assert len(row["structure"]) == len(natives[0])
    assert row["structure"].count("H") / len(natives[0]) == pytest.approx(row["helix"])
    assert row["structure"].count("E") / len(natives[0]) == pytest.approx(row["strand"])


def test_reference_rows_match_in_number_and_length(natives):
    samples = [Backbone(torch.zeros(n, 4, 3)) for n in (45, 60, 60, 100, 128)]
    rows = references(samples, seed=1)
    assert list(rows) == ["held-out natives", "resampled training set", "random coil"]
    for name, row in rows.items():
        assert len(row) == len(samples)
        off = max(abs(len(a) - len(b)) for a, b in zip(row, samples, strict=True))
        assert off <= (0 if name == "random coil" else 3)
    assert len({b.name for b in rows["held-out natives"]}) == 5
    assert {b.name for b in rows["held-out natives"]} <= {b.name for b in backbones(True)}
    again, other = references(samples, seed=1), references(samples, seed=2)
    assert torch.equal(again["random coil"][0].coords, rows["random coil"][0].coords)
    assert not torch.equal(other["random coil"][0].coords, rows["random coil"][0].coords)
    assert len(matched([50] * 7, natives[:2], torch.Generator())) == 7
    assert references([]) == {name: [] for name in rows}
