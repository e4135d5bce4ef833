"""Metrics know molecules from wreckage: hand-made cases, closed forms, and the documented values of real data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from fm_science_domains.molecule import geometry, metrics, strain, validity
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.drugs import conformer
from fm_science_domains.molecule.geometry import Geometry
from fm_science_domains.molecule.metrics import Metrics
from fm_science_domains.molecule.molecule import Molecule, without_hydrogens
from fm_science_domains.molecule.validity import judge, stable, stable_by_distance


@pytest.fixture(scope="module")
def library():
    return load(Data(hydrogens=True))


@pytest.fixture(scope="module")
def real(library):
    return library.molecules("test", 300, 0)


def made(atoms: list[int], bonds: list[tuple[int, int, int]], charges=None, hydrogens=True, positions=None) -> Molecule:
    n = len(atoms)
    matrix = torch.zeros(n, n, dtype=torch.long)
    for i, j, order in bonds:
        matrix[i, j] = matrix[j, i] = order
    place = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) if positions is None else positions
    return Molecule(place, torch.tensor(atoms), matrix, torch.tensor(charges or [0] * n), hydrogens=hydrogens)


WATER = made([8, 1, 1], [(0, 1, 1), (0, 2, 1)])


def folded(smiles: str) -> Molecule:
    found = conformer(("x", smiles))
    assert isinstance(found, tuple)
    return found[0]


# --------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("molecule", "reason"),
    [
        (made([8, 1], [(0, 1, 1)]), "unpaired electron"),  # hydroxyl: RDKit may not add the missing hydrogen
        (made([6, 1, 1, 1], [(0, k, 1) for k in (1, 2, 3)]), "unpaired electron"),
        (made([8, 1, 1, 1], [(0, k, 1) for k in (1, 2, 3)]), "valence"),
        (made([1, 8, 1], [(0, 1, 2), (1, 2, 2)]), "valence"),
        (made([6, 0], [(0, 1, 1)], hydrogens=False), "without an element"),
        (made([6, 6], [(0, 1, 4)], hydrogens=False), "neither single"),
        (made([], []), "no atoms"),
        (made([8, 1, 1], [(0, 1, 1), (0, 2, 1)], positions=torch.full((3, 3), torch.nan)), "no numbers"),
        (made([6, 6, 6], [(0, 1, 3), (1, 2, 3)], hydrogens=False), "valence"),
    ],
)
def test_wreckage_is_not_valid(molecule, reason):
    verdict = judge(molecule)
    assert not verdict.valid
    assert not verdict.connected
    assert reason in verdict.reason
    assert verdict.smiles == ""
    assert judge(molecule) is verdict


def test_fragments_are_valid_but_not_connected():
    two = made([8, 1, 1, 8, 1, 1], [(0, 1, 1), (0, 2, 1), (3, 4, 1), (3, 5, 1)])
    assert judge(two).valid
    assert not judge(two).connected
    assert judge(WATER).connected


def test_charges_make_valences_right_and_molecules_ions():
    ammonium = [(0, k, 1) for k in (1, 2, 3, 4)]
    assert judge(made([7, 1, 1, 1, 1], ammonium, [1, 0, 0, 0, 0])).connected
    assert not judge(made([7, 1, 1, 1, 1], ammonium, [1, 0, 0, 0, 0])).neutral
    assert not judge(made([7, 1, 1, 1, 1], ammonium)).valid
    assert judge(made([6, 7], [(0, 1, 1)], hydrogens=False)).smiles == "CN"


def test_one_molecule_has_one_smiles_whatever_its_kekule_structure_and_order():
    ring = [(i, (i + 1) % 6, 1 + i % 2) for i in range(6)]
    other = [(i, (i + 1) % 6, 2 - i % 2) for i in range(6)]
    found = {judge(made([6] * 6, bonds, hydrogens=False)).smiles for bonds in (ring, other)}
    assert found == {"c1ccccc1"}
    benzene = folded("c1ccccc1")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    mixed = Molecule(benzene.positions[order], benzene.atoms[order], benzene.bonds[order][:, order], benzene.charges)
    assert {judge(m).smiles for m in (benzene, mixed, without_hydrogens(benzene))} == found


def test_reasons_are_counted_without_their_atoms():
    bad = [made([8, 1, 1, 1], [(0, k, 1) for k in (1, 2, 3)]), made([1, 8, 1, 1], [(1, k, 1) for k in (0, 2, 3)])]
    counts = validity.reasons([*bad, WATER])
    assert counts == {"valence 3 on O": 2}
    assert judge(bad[1]).reason == "valence 3 on O (atom 1)"
    assert validity.formula(folded("CCO")) == "C2H6O"
    assert validity.formula(WATER) == "H2O"


# -------------------------------------------------------------------------------------------------------- stability


def test_stability_by_the_valences_of_the_data(library):
    table = library.valences
    assert stable(WATER, table).all()
    assert stable(made([6, 1, 1, 1], [(0, k, 1) for k in (1, 2, 3)]), table).tolist() == [False, True, True, True]
    assert stable(made([6], [], [7]), table).tolist() == [False]  # a charge never seen does not excuse a valence
    samples = [WATER, made([8, 1], [(0, 1, 1)])]
    numbers = metrics.stability(library, samples, samples)
    assert numbers["atom_stable"] == pytest.approx(4 / 5)
    assert numbers["molecule_stable"] == 0.5


def test_orders_by_distance_step_at_the_published_lengths():
    def order(a: int, b: int, length: float) -> int:
        return int(validity.orders_by_distance(np.array([[0.0, 0, 0], [length, 0, 0]]), np.array([a, b]))[0, 1])

    for a, b, lengths in ((6, 6, (1.64, 1.39, 1.23)), (6, 8, (1.53, 1.25, 1.16)), (7, 7, (1.55, 1.30, 1.13))):
        for k, length in enumerate(lengths):
            assert order(a, b, length + 1e-6) == k
            assert order(b, a, length - 1e-6) == k + 1
    assert [order(1, 6, x) for x in (1.18, 1.2)] == [1, 0]
    assert order(1, 1, 0.5) == 1


def test_real_molecules_have_the_documented_distance_stability(library, real):
    """99.4 % of atoms and 95.5 % of molecules of QM9 (4,000 of them); within three standard errors of 300."""
    numbers = metrics.stability(library, real, real)
    assert numbers["atom_stable"] == numbers["molecule_stable"] == 1
    assert numbers["edm_atom_stable"] == pytest.approx(0.994, abs=0.006)
    assert numbers["edm_molecule_stable"] == pytest.approx(0.955, abs=3 * math.sqrt(0.045 * 0.955 / 300))
    assert stable_by_distance(without_hydrogens(real[0])) is None
    assert stable_by_distance(made([16, 1, 1], [(0, 1, 1), (0, 2, 1)])) is None


# --------------------------------------------------------------------------------------------------------- validity


def test_validity_of_real_molecules_and_of_copies(library, real):
    numbers = metrics.validity(library, real, real)
    assert numbers["valid"] == numbers["connected"] == 1
    assert numbers["unique"] > 0.99
    assert numbers["novel"] > 0.95  # few of the held-out molecules differ from a training one by stereo only
    train = library.molecules("train", 50, 0)
    assert metrics.validity(library, train, real)["novel"] == 0
    again = metrics.validity(library, [real[0], real[0], real[1], made([8, 1], [(0, 1, 1)])], real)
    assert again["valid"] == again["connected"] == 0.75
    assert again["unique"] == pytest.approx(2 / 3)


def test_nothing_valid_gives_no_number_and_no_error(library, real):
    broken = [made([8, 1], [(0, 1, 1)], positions=torch.full((2, 3), torch.nan)), made([], [])]
    for name, metric in metrics.metrics(Metrics(processes=1, xtb=2, posebusters=2), library).items():
        numbers = metric(broken, real)
        assert all(isinstance(v, float) for v in numbers.values()), name
    assert metrics.validity(library, broken, real)["valid"] == 0
    assert math.isnan(metrics.validity(library, broken, real)["unique"])
    assert len(metrics.table(broken, library)) == 2
    assert all(isinstance(v, float) for v in metrics.shapes([], real).values())


def test_composition():
    numbers = metrics.composition([WATER], [made([8, 1, 1, 1], [(0, 1, 1)])])
    assert numbers["atoms"] == 3
    assert numbers["size_tv"] == 1
    assert numbers["element_tv"] == pytest.approx(1 / 12)
    assert numbers["order_tv"] == 0


# --------------------------------------------------------------------------------------------------------- geometry


def test_lengths_angles_and_torsions_of_known_shapes():
    places = torch.tensor([[1.0, 1.2, 0], [0, 1.2, 0], [0, 0, 0], [0.5, 0, math.sqrt(0.75)]])
    zigzag = made([6, 7, 6, 8], [(0, 1, 1), (1, 2, 2), (2, 3, 1)], hydrogens=False, positions=places)
    g = Geometry.of([zigzag, WATER, zigzag])
    np.testing.assert_allclose(g.bonds[(6, 2, 7)], [1.2, 1.2], rtol=1e-6)
    np.testing.assert_allclose(g.bonds[(6, 1, 7)], [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(g.angles[(6, 7, 6)], [90, 90], atol=1e-4)
    np.testing.assert_allclose(g.torsions[(6, 2, 7)], [60, 60], atol=1e-4)
    assert set(g.torsions) == {(6, 2, 7)}
    assert geometry.label((1, 1, 6)) == "C-H"
    assert geometry.label((6, 2, 8)) == "C=O"


def test_numbers_of_angles_and_torsions_are_those_of_the_graph(real):
    g = Geometry.of(real[:40])
    degree = np.bincount(g.ends.ravel(), minlength=len(g.atoms))
    assert sum(map(len, g.bonds.values())) == len(g.ends)
    assert sum(map(len, g.angles.values())) == (degree * (degree - 1) // 2).sum()
    rdkit = 0
    for m in real[:40]:
        mol = without_hydrogens(m).to_rdkit(sanitize=True)
        from rdkit import Chem

        rdkit += len(mol.GetSubstructMatches(Chem.MolFromSmarts("*~*~*~*"), uniquify=False)) // 2
    assert sum(map(len, g.torsions.values())) == rdkit


def test_geometry_is_blind_to_motion_and_mirrors_but_not_to_stretching(real):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]

    def moved(scale: float) -> list[Molecule]:
        return [Molecule(scale * m.positions @ turn + 5, m.atoms, m.bonds, m.charges) for m in real]

    same = metrics.shapes(moved(1.0), real)
    assert same["bond_w1"] < 1e-5
    assert same["angle_w1"] < 1e-2
    longer = metrics.shapes(moved(1.01), real)
    mean = np.concatenate(list(Geometry.of(real).bonds.values())).mean()
    assert longer["bond_w1"] == pytest.approx(0.01 * mean, rel=0.02)
    assert longer["angle_w1"] == pytest.approx(same["angle_w1"], abs=1e-2)
    assert longer["bond_off_worst"] == pytest.approx(0.0152, abs=0.001)  # the longest common bond is C-C


def test_two_halves_of_the_data_are_near(library):
    a, b = library.molecules("test")[:500], library.molecules("test")[500:]
    numbers = metrics.shapes(a, b)
    assert numbers["bond_w1"] < 0.004
    assert numbers["bond_off_worst"] < 0.01
    assert numbers["torsion_js"] < 0.03
    assert numbers["length_C-C"] == pytest.approx(1.52, abs=0.01)


def test_divergences_in_closed_form():
    assert geometry.total_variation([1, 1, 2], [1, 2, 2]) == pytest.approx(1 / 3)
    x, y = {(6, 1, 6): np.full(30, 1.5)}, {(6, 1, 6): np.full(50, 1.6), (6, 1, 7): np.full(9, 1.0)}
    assert geometry.wasserstein(x, y) == pytest.approx(0.1)
    assert geometry.shared(x, y) == {(6, 1, 6): 1.0}  # too few C-N bonds to say anything


# ---------------------------------------------------------------------------------------------------------- energies


def test_strain_of_rest_and_of_distortion():
    calm = folded("CCO")
    noise = torch.randn(len(calm), 3, generator=torch.Generator().manual_seed(0))
    rough = Molecule(calm.positions + 0.15 * noise, calm.atoms, calm.bonds, calm.charges)
    values = strain.many(strain.force_field, [calm, rough, made([8, 1], [(0, 1, 1)])], 9, 1)
    assert 0 <= values[0] < 0.5  # kcal/mol
    assert values[1] > 10
    assert values[2] is None
    heavy = strain.ready(without_hydrogens(calm))
    assert heavy.GetNumAtoms() == 9
    assert strain.force_field(heavy) < 1


def test_a_force_field_that_finds_no_way_down_ends_no_evaluation():
    class Stuck:
        def Minimize(self, maxIts):
            raise RuntimeError("Invariant Violation: bad direction in linearSearch")

    assert not strain._downhill(Stuck())


def test_what_was_computed_once_is_kept(monkeypatch):
    calls = []

    def task(mol):
        calls.append(mol.GetNumAtoms())
        return 1.0

    water, alcohol = folded("O"), folded("CO")
    assert strain.many(task, [water, alcohol], 9, 1) == [1.0, 1.0]
    assert strain.many(task, [alcohol, water], 1, 1) == [1.0]
    assert calls == [3, 6]


def test_superposition_forgets_motion_but_not_mirrors():
    x = np.random.default_rng(0).normal(size=(7, 3))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    assert strain.superposed(x, x @ turn + 3) == pytest.approx(0, abs=1e-6)
    assert strain.superposed(x, -x) > 0.1
    assert strain.superposed(x, x + np.array([[0.3, 0, 0]] * 7)) == pytest.approx(0, abs=1e-6)


def test_real_strain_has_the_documented_size(library, real):
    """Median 4.8 kcal/mol over QM9 (120 molecules); the spread of a median of 60 is about 1."""
    numbers = metrics.force_field(Metrics(strain=60, processes=1), real, real)
    assert 2.5 < numbers["mmff_strain"] < 7.5
    assert numbers["mmff_strain_95"] > numbers["mmff_strain"]


def test_xtb_relaxes_real_molecules_little(real):
    """Median 1.3 kcal/mol over QM9, mean change of bonds 0.009 angstrom."""
    pytest.importorskip("tblite")
    numbers = metrics.quantum(Metrics(xtb=8, processes=1), real, real)
    assert 0.5 < numbers["xtb_energy"] < 2.5
    assert 0.004 < numbers["xtb_bond_change"] < 0.015
    assert numbers["xtb_failed"] == 0


def test_a_package_that_lacks_what_it_needs_is_passed_over(tmp_path, monkeypatch, caplog):
    (tmp_path / "half_there.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    assert not strain.usable("half_there", "half_there")
    assert "surely_not_installed" in caplog.text
    assert not strain.usable("surely_not_installed", "surely_not_installed")
    assert strain.usable("json", "json.decoder")


def test_posebusters_passes_real_molecules(real):
    pytest.importorskip("posebusters")
    rough = [Molecule(m.positions * 1.5, m.atoms, m.bonds, m.charges) for m in real[:4]]
    numbers = metrics.posebusters(Metrics(posebusters=12, processes=1), [*real[:8], *rough], real)
    assert numbers["posebusters"] == pytest.approx(8 / 12, abs=1 / 12 + 1e-9)
    assert numbers["pb_bond_lengths"] <= 8 / 12


# ------------------------------------------------------------------------------------------------------- and the rest


def test_drug_likeness_of_known_drugs():
    """QED of aspirin is 0.55 (Bickerton et al. 2012), and it is easy to make."""
    qed, sa = metrics.drug_scores("CC(=O)Oc1ccccc1C(=O)O")
    assert qed == pytest.approx(0.55, abs=0.01)
    assert sa == pytest.approx(1.58, abs=0.05)


def test_rows_to_judge_by(library, real):
    rows = metrics.references(real[:20], library)
    assert list(rows) == ["held-out", "training set"]
    assert [len(row) for row in rows.values()] == [1000, 20]
    names = {m.name for m in library.molecules("train")}
    assert all(m.name in names for m in rows["training set"])
    assert not any(m.name in names for m in rows["held-out"])


def test_optional_measurements_are_skipped_cleanly(library, monkeypatch):
    monkeypatch.setattr(strain, "has_xtb", lambda: False)
    monkeypatch.setattr(strain, "has_posebusters", lambda: False)
    known = metrics.metrics(Metrics(strain=0, drug=0), library)
    assert list(known) == ["validity", "stability", "composition", "geometry"]


def test_table_has_a_row_a_sample(library, real):
    rows = metrics.table([*real[:3], made([8, 1], [(0, 1, 1)])], library, Metrics(processes=1))
    assert [row["connected"] for row in rows] == [True, True, True, False]
    assert rows[0]["smiles"] == judge(real[0]).smiles
    assert rows[0]["mmff_strain"] >= 0
    assert "unpaired" in rows[3]["reason"]
    assert all(row["stable"] for row in rows[:3])


def test_bootstrap_of_a_share_has_its_known_spread(library, real):
    samples = [*real[:30], *[made([8, 1], [(0, 1, 1)]) for _ in range(10)]]
    found = metrics.bootstrap(lambda s, r: metrics.validity(library, s, r), samples, real, times=300)
    value, spread = found["connected"]
    assert value == 0.75
    assert spread == pytest.approx(math.sqrt(0.75 * 0.25 / 40), rel=0.15)
