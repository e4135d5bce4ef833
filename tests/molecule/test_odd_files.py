"""Molecules in files as others write them: training and evaluation read the same, and say what they cannot know."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from fm_science.errors import UserError

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import AllChem

from fm_science_domains.molecule import drugs, files, sdf
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.files import Dropped
from fm_science_domains.molecule.validity import judge, stable


def folded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=7)
    return mol


def molblock(mol: Chem.Mol, scale: float = 1.0, tag: str = "3D", flat: bool = False, kekulize: bool = True) -> str:
    """A record of an SDF file."""
    mol = Chem.Mol(mol)
    places = mol.GetConformer().GetPositions() * scale
    places[:, 2] *= not flat
    mol.GetConformer().SetPositions(places)
    lines = Chem.MolToMolBlock(mol, kekulize=kekulize).splitlines()
    lines[1] = f"  program           {tag}"
    return "\n".join([*lines, "$$$$", ""])


def both(path: Path, text: str) -> tuple[list, list]:
    """What evaluation and training read from the same file."""
    path.write_text(text)
    return files.read([path]), list(sdf.read([path]))


def test_aromatic_bonds_without_a_kekule_form_are_not_valid(tmp_path):
    ring = Chem.RemoveHs(folded("c1c[nH]cn1"))
    for atom in ring.GetAtoms():
        atom.SetNoImplicit(False)
        atom.SetNumExplicitHs(0)
    (seen,), (left,) = both(tmp_path / "x.sdf", molblock(ring, kekulize=False))
    assert not judge(seen).valid
    assert "aromatic without a Kekulé structure" in judge(seen).reason
    assert isinstance(left, Dropped)
    (seen,), (kept,) = both(tmp_path / "x.sdf", molblock(folded("c1c[nH]cn1"), kekulize=False))
    assert judge(seen).smiles == kept[1] == "c1c[nH]cn1"


def without_charges(charged: Chem.Mol) -> Chem.Mol:
    """The same molecule, opposite charges of neighbours replaced by another bond, as N(=O)=O for a nitro group."""
    spelt = Chem.RWMol(charged)
    for bond in charged.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        if sorted(a.GetFormalCharge() for a in ends) == [-1, 1]:
            order = int(bond.GetBondTypeAsDouble()) + 1
            spelt.GetBondBetweenAtoms(*(a.GetIdx() for a in ends)).SetBondType(Chem.BondType.values[order])
            for end in ends:
                spelt.GetAtomWithIdx(end.GetIdx()).SetFormalCharge(0)
    for atom in spelt.GetAtoms():
        atom.SetNoImplicit(True)
    return spelt.GetMol()


@pytest.mark.parametrize("smiles", ["C[N+](=O)[O-]", "O=[N+]([O-])c1ccccc1", "CN=[N+]=[N-]", "C[N+](C)(C)[O-]"])
def test_neutral_spellings_of_charges_are_read_alike(tmp_path, smiles):
    (seen,), (kept,) = both(tmp_path / "x.sdf", molblock(without_charges(folded(smiles))))
    assert judge(seen).smiles == kept[1] == Chem.CanonSmiles(smiles)
    assert (seen.bonds == kept[0].bonds).all()
    assert seen.charges.abs().sum() == kept[0].charges.abs().sum() == 2


def test_a_set_of_neutral_nitro_groups_is_stable(tmp_path):
    words = ["C[N+](=O)[O-]", "CC[N+](=O)[O-]", "CCC[N+](=O)[O-]", "O=[N+]([O-])c1ccccc1"]
    (tmp_path / "x.sdf").write_text("".join(molblock(without_charges(folded(word))) for word in words))
    library = load(Data(source=str(tmp_path / "x.sdf"), hydrogens=True, cache=str(tmp_path / "kept"), processes=1))
    found = files.read([tmp_path / "x.sdf"], hydrogens=True)
    assert all(stable(m, library.valences).all() for m in found)
    assert {judge(m).smiles for m in found} == {Chem.CanonSmiles(word) for word in words}


@pytest.mark.parametrize("smiles", ["[2H]C([2H])([2H])O", "[13CH3]O", "C[18OH]"])
def test_isotopes_have_one_key(tmp_path, smiles):
    (seen,), (kept,) = both(tmp_path / "x.sdf", molblock(folded(smiles)))
    assert judge(seen).smiles == kept[1] == "CO"
    named = molblock(folded(smiles)).replace(" H   0", " D   0") if "2H" in smiles else molblock(folded(smiles))
    (seen,), (kept,) = both(tmp_path / "y.sdf", named)
    assert judge(seen).smiles == kept[1] == "CO"
    made = drugs.conformer(("x", smiles))
    assert not isinstance(made, Dropped)
    assert made[1] == "CO"


PLANAR = [(s, tag) for s in ("C=O", "c1ccccc1", "C=C", "N#CC#N") for tag in ("", "3D")]


@pytest.mark.parametrize(("smiles", "tag"), [*PLANAR, ("FC(F)=C(F)F", "3D"), ("N#N", "3D")])
def test_planar_molecules_are_no_drawings(tmp_path, smiles, tag):
    mol = folded(smiles)
    AllChem.UFFOptimizeMolecule(mol)
    (seen,), (kept,) = both(tmp_path / "x.sdf", molblock(mol, tag=tag, flat=True))
    assert judge(seen).smiles == kept[1] == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize("smiles", ["CCO", "C=O", "c1ccccc1", "CC(=O)NC"])
@pytest.mark.parametrize("hydrogens", [False, True])
@pytest.mark.parametrize(("tag", "length"), [("", 1.5), ("", 1.0), ("", 0.825), ("2D", 1.5)])
def test_drawings_are_left_out(tmp_path, smiles, hydrogens, tag, length):
    mol = Chem.MolFromSmiles(smiles)
    mol = Chem.AddHs(mol) if hydrogens else mol
    AllChem.Compute2DCoords(mol)
    text = molblock(mol, tag=tag, scale=length / 1.5)
    (tmp_path / "x.sdf").write_text(text + molblock(folded("CC")))
    (left, _) = sdf.read([tmp_path / "x.sdf"])
    assert isinstance(left, Dropped)
    assert "2D drawing" in left.reason
    assert len(files.read([tmp_path / "x.sdf"])) == 1


@pytest.mark.parametrize(
    ("scale", "words"), [(0.1, "nanometres"), (1.8897, "bohr"), (100, "picometres"), (10, "another unit"), (1, "")]
)
def test_lengths_in_another_unit_are_warned_of(tmp_path, caplog, scale, words):
    text = "".join(molblock(folded(s), scale) for s in ("CCO", "CC(=O)NC", "c1ccccc1"))
    seen, _ = both(tmp_path / "x.sdf", text)
    assert caplog.text.count(f"look like {words}") == (2 if words else 0)
    assert ("look like" in caplog.text) == bool(words)
    places = torch.tensor(folded("CCO").GetConformer().GetPositions() * scale).float()
    torch.testing.assert_close(seen[0].positions, places, atol=1e-4, rtol=1e-3)  # nothing is scaled unasked


def test_missing_hydrogens_are_named(tmp_path):
    mol = Chem.RWMol(folded("CCO"))
    for atom in reversed([a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 1]):
        if mol.GetAtomWithIdx(atom).GetNeighbors()[0].GetAtomicNum() == 6:
            mol.RemoveAtom(atom)
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(False)
    (seen,), (kept,) = both(tmp_path / "x.sdf", molblock(mol))
    assert "hydrogens are missing" in judge(seen).reason
    assert kept[1] == "CCO"


# ----------------------------------------------------------------------------------------------------------------- XYZ


def xyz(mol: Chem.Mol, comment: str = "", tail: str = "") -> str:
    rows = zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True)
    body = [f"{a.GetSymbol()} {x:.5f} {y:.5f} {z:.5f}{tail}" for a, (x, y, z) in rows]
    return "\n".join([str(mol.GetNumAtoms()), comment, *body, ""])


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [("CCO", 0), ("c1ccccc1", 0), ("C#N", 0), ("CC(=O)NC", 0), ("C[NH3+]", 1), ("CC(=O)[O-]", -1), ("O=C=O", 0)],
)
def test_bonds_of_xyz_files_are_perceived(tmp_path, smiles, charge):
    mol = folded(smiles)
    AllChem.UFFOptimizeMolecule(mol)
    text = xyz(mol, f"charge={charge}" if charge else "a comment", "  -0.1")
    (seen,), (kept,) = both(tmp_path / "x.xyz", text)
    assert judge(seen).smiles == kept[1] == Chem.CanonSmiles(smiles)
    assert int(seen.charges.sum()) == charge
    assert seen.name == "x"
    assert len(files.read([tmp_path])) == 1


def test_frames_are_molecules_and_bad_ones_are_listed(tmp_path):
    radical = xyz(folded("CC")).splitlines()
    radical = "\n".join([str(int(radical[0]) - 1), *radical[1:-1], ""])
    qm9 = xyz(folded("CO"), "gdb 1  0.1").replace("0.00000", "0.0*^0") + "1.0 2.0 3.0\nCO CO\nInChI=1S InChI=1S\n"
    text = xyz(folded("CCO")) + "\n" + radical + qm9 + xyz(folded("C"))
    found: list[Dropped] = []
    (tmp_path / "x.xyz").write_text(text)
    assert [judge(m).smiles for m in files.read([tmp_path / "x.xyz"], dropped=found)] == ["CCO", "CO", "C"]
    assert [(d.part, "bonds cannot be perceived" in d.reason) for d in found] == [("x:2", True)]
    with gzip.open(tmp_path / "y.xyz.gz", "wt") as stream:
        stream.write(text)
    library = load(Data(source=str(tmp_path / "y.xyz.gz"), hydrogens=True, cache=str(tmp_path / "kept"), processes=1))
    assert {m.name for p in ("train", "validation", "test") for m in library.molecules(p)} == {"y:1", "y:3", "y:4"}
    assert [d.part for d in library.drops] == ["y:2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), ("3\n\nC 0 0 0\n", "ends early"), ("C 0 0 0\n", "not with its number of atoms"),
     ("1\n\nC 0 0\n", "expected a symbol"), ("1\n\nXx 0 0 0\n", "'Xx' is no element"),
     ("1\n\nC 0 0 0\nC 0 0 1\n", "frame 2 begins with")],
)  # fmt: skip
def test_files_that_are_no_xyz(tmp_path, text, words):
    (tmp_path / "x.xyz").write_text(text)
    with pytest.raises(UserError, match=words):
        files.read([tmp_path / "x.xyz"])


def test_films_beside_samples_are_not_read(tmp_path):
    (tmp_path / "a.sdf").write_text(molblock(folded("CCO")))
    (tmp_path / "trajectories").mkdir()
    (tmp_path / "trajectories" / "a.xyz").write_text(xyz(folded("CC")))
    assert len(files.read([tmp_path])) == 1


# ----------------------------------------------------------------------------------------------------------- any file


def test_one_bad_file_does_not_stop_a_folder(tmp_path):
    (tmp_path / "set").mkdir()
    for k, smiles in enumerate(["CCO", "CCN", "CCC"]):
        (tmp_path / "set" / f"good{k}.sdf").write_text(molblock(folded(smiles)))
    (tmp_path / "set" / "bad.sdf.gz").write_bytes(gzip.compress(molblock(folded("CC")).encode())[:60])
    (tmp_path / "set" / "empty.sdf").write_text("")
    found: list[Dropped] = []
    assert len(files.read([tmp_path / "set"], dropped=found)) == 3
    assert [Path(d.file).name for d in found] == ["bad.sdf.gz", "empty.sdf"]
    library = load(Data(source=str(tmp_path / "set"), cache=str(tmp_path / "kept"), processes=1))
    assert [Path(d.file).name for d in library.drops] == ["bad.sdf.gz", "empty.sdf"]
    for name in ("bad.sdf.gz", "empty.sdf"):
        for read in (files.read, lambda paths: load(Data(source=str(paths[0]), cache=str(tmp_path / "other")))):
            with pytest.raises(UserError, match=f"cannot read .*{name}"):
                read([tmp_path / "set" / name])


def test_marks_and_line_ends(tmp_path):
    text = molblock(folded("CCO"))
    for name, raw in {
        "bom": b"\xef\xbb\xbf" + text.encode(), "crlf": text.replace("\n", "\r\n").encode(),
        "packed": gzip.compress(text.encode()),
    }.items():  # fmt: skip
        (tmp_path / f"{name}.sdf").write_bytes(raw)
        (seen,) = files.read([tmp_path / f"{name}.sdf"])
        assert (judge(seen).smiles, seen.name) == ("CCO", f"{name}:1")
