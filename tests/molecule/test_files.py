"""Files: what is written is read again, broken molecules too, and files of others are judged as they are."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import UserError

pytest.importorskip("rdkit")

from rdkit import Chem

from fm_science_domains.molecule import files
from fm_science_domains.molecule.data import Data, load
from fm_science_domains.molecule.molecule import Molecule
from fm_science_domains.molecule.validity import judge


@pytest.fixture(scope="module", params=[True, False], ids=["explicit", "heavy"])
def library(request):
    return load(Data(hydrogens=request.param, limit=500))


@pytest.fixture(scope="module")
def samples(library) -> list[Molecule]:
    """Real molecules, ions among them, and wreckage: an undecided atom, wrong valences, no coordinates."""
    pack = library.test.pack
    charged = [pack[int(i)] for i in range(len(pack)) if bool(pack[int(i)].charges.any())][:2]
    real = [*library.molecules("test", 6, 1), *charged]
    first = real[0]
    odd = first.atoms.clone()
    odd[0] = 0
    return [
        *real,
        Molecule(first.positions, odd, first.bonds, first.charges, hydrogens=first.hydrogens),
        Molecule(first.positions, first.atoms, first.bonds.clamp(max=1) * 3, first.charges, hydrogens=first.hydrogens),
        Molecule(first.positions * torch.nan, first.atoms, first.bonds, first.charges, hydrogens=first.hydrogens),
    ]


def test_there_and_back(samples, library, tmp_path):
    written = files.write(samples, tmp_path)
    assert [f.name for f in written] == ["samples.sdf", "samples.smi"]
    back = files.read(written, hydrogens=library.vocabulary.hydrogens)
    assert [m.name for m in back] == [f"sample_{i:04d}" for i in range(len(samples))]
    for x, y in zip(samples, back, strict=True):
        assert (x.atoms == y.atoms).all()
        assert (x.bonds == y.bonds).all()
        assert (x.charges == y.charges).all()
        assert x.hydrogens == y.hydrogens
        torch.testing.assert_close(y.positions, x.positions, atol=1e-4, rtol=0, equal_nan=True)
        assert judge(x).smiles == judge(y).smiles
        assert judge(x).valid == judge(y).valid
        assert y.properties == pytest.approx(x.properties, rel=1e-6)
    lines = written[1].read_text().splitlines()
    assert lines[0] == f"{judge(samples[0]).smiles} sample_0000"
    assert len(lines) == sum(judge(m).valid for m in samples)


def test_later_samples_are_added_and_first_ones_begin_anew(samples, tmp_path):
    files.write(samples[:3], tmp_path)
    files.write(samples[3:5], tmp_path, first=3)
    assert [m.name for m in files.read(tmp_path)] == [f"sample_{i:04d}" for i in range(5)]
    files.write(samples[:2], tmp_path)
    assert len(files.read([tmp_path])) == 2


def test_samples_of_validation_are_not_counted(samples, tmp_path):
    for place in ("samples", "samples/step-000010"):
        files.write(samples, tmp_path / place)
    assert len(files.read(tmp_path / "samples")) == 2 * len(samples)
    (tmp_path / "samples/sampling.yaml").touch()
    for path in (tmp_path / "samples", tmp_path, tmp_path / "samples/step-000010"):
        assert len(files.read(path)) == len(samples)


def test_rdkit_reads_what_we_write(samples, tmp_path):
    files.write(samples, tmp_path)
    for mol, ours in zip(Chem.SDMolSupplier(str(tmp_path / "samples.sdf"), removeHs=False), samples, strict=True):
        if judge(ours).valid:
            assert Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False) == judge(ours).smiles
            assert mol.GetProp("SMILES") == judge(ours).smiles
            assert mol.GetProp("valid") == "1"
            assert mol.GetConformer().Is3D()


def test_hydrogens_are_never_added_behind_our_back(tmp_path):
    """Methyl is no methane: a molecule that lacks a hydrogen stays broken on its way through a file."""
    bonds = torch.zeros(4, 4, dtype=torch.long)
    bonds[0, 1:] = bonds[1:, 0] = 1
    methyl = Molecule(torch.randn(4, 3), torch.tensor([6, 1, 1, 1]), bonds, torch.zeros(4, dtype=torch.long))
    files.write([methyl], tmp_path)
    assert not judge(files.read(tmp_path)[0]).valid


def test_files_of_others(tmp_path):
    mol = Chem.AddHs(Chem.MolFromSmiles("c1ccccc1[N+](=O)[O-]"))
    from rdkit.Chem import AllChem

    AllChem.EmbedMolecule(mol, randomSeed=1)
    with Chem.SDWriter(str(tmp_path / "x.sdf")) as writer:
        writer.SetKekulize(False)
        writer.write(mol)
    found = files.read(tmp_path / "x.sdf")[0]
    assert found.hydrogens
    assert judge(found).smiles == "O=[N+]([O-])c1ccccc1"
    assert found.bonds.max() == 2
    with pytest.raises(UserError, match=r"say data\.hydrogens=true"):
        files.read(tmp_path, hydrogens=False)
    with Chem.SDWriter(str(tmp_path / "x.sdf")) as writer:
        writer.write(Chem.RemoveHs(mol))
    assert not files.read(tmp_path)[0].hydrogens
    with pytest.raises(UserError, match=r"say data\.hydrogens=false"):
        files.read(tmp_path, hydrogens=True)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        files.read(tmp_path / "none.sdf")
    (tmp_path / "x.smi").write_text("CC\n")
    with pytest.raises(UserError, match="no SDF file"):
        files.read([tmp_path / "x.smi"])
    (tmp_path / "x.sdf").write_text("nonsense\n$$$$\n")
    with pytest.raises(UserError, match="no molecule in"):
        files.read([tmp_path / "x.sdf"])
    (tmp_path / "x.sdf.gz").write_bytes(b"not zipped")
    with pytest.raises(UserError, match="cannot read"):
        files.read([tmp_path / "x.sdf.gz"])


def test_too_large_for_the_format():
    n = 1000
    big = Molecule(torch.zeros(n, 3), torch.full((n,), 6), torch.zeros(n, n).long(), torch.zeros(n).long())
    with pytest.raises(UserError, match="at most 999"):
        files.mol_block(big)


def test_trajectories_are_films(samples, tmp_path):
    frames = [[m, n] for m, n in zip(samples[:4], samples[4:8], strict=True)]
    made = files.trajectory(frames, tmp_path, first=2)
    assert [f.name for f in made] == ["sample_0002.xyz", "sample_0003.xyz"]
    lines = made[0].read_text().splitlines()
    for k in range(4):
        n = int(lines[0])
        assert n == len(samples[k])
        assert lines[1] == f"step {k}"
        assert all(len(line.split()) == 4 for line in lines[2 : 2 + n])
        lines = lines[2 + n :]
    assert not lines
    assert files.frame(samples[8]).splitlines()[2].startswith("X ")


def test_what_was_left_out_is_recorded(tmp_path):
    library = load(Data(max_atoms=5))
    (file,) = files.drops(library, tmp_path)
    assert file.read_text().splitlines()[0] == "file,part,reason"
    assert len(file.read_text().splitlines()) == len(library.drops) + 1
    assert files.drops(load(Data()), tmp_path) == []
