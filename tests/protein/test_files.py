"""Files survive a round trip, and every way a file can be wrong has an answer in one line."""

from __future__ import annotations

import gzip

import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.protein.chains import shipped
from fm_science_domains.protein.files import read_backbones, write_cif, write_pdb, write_trajectory
from fm_science_domains.protein.structure import Backbone

pytest.importorskip("Bio")


@pytest.fixture
def native() -> Backbone:
    chain = shipped()[40]
    return Backbone(torch.from_numpy(chain.coords) * 0.01, chain.sequence, chain.name)


def peptides(path) -> list:
    from Bio.PDB import MMCIFParser, PDBParser, PPBuilder

    parser = MMCIFParser(QUIET=True) if path.suffix == ".cif" else PDBParser(QUIET=True, PERMISSIVE=False)
    return PPBuilder().build_peptides(parser.get_structure("", path))


@pytest.mark.parametrize(("write", "suffix"), [(write_pdb, "pdb"), (write_cif, "cif")])
@pytest.mark.parametrize("named", [True, False])
def test_round_trip(tmp_path, native, write, suffix, named):
    chain = native if named else Backbone(native.coords)
    path = write(chain, tmp_path / "new" / f"one.{suffix}")
    (read,), dropped = read_backbones(path)
    assert dropped == []
    assert read.name == "one"
    assert read.sequence == (chain.sequence or "G" * len(chain))
    torch.testing.assert_close(read.coords, chain.coords, atol=1e-3, rtol=0)
    (peptide,) = peptides(path)
    assert peptide.get_sequence() == read.sequence


def test_pdb_columns(tmp_path, native):
    lines = write_pdb(native, tmp_path / "a.pdb").read_text().splitlines()
    assert {len(line) for line in lines if line.startswith("ATOM")} == {78}
    header, *lines = lines
    assert header.startswith("HEADER")
    assert lines[0][:30] == f"ATOM      1  N   {peptides(tmp_path / 'a.pdb')[0][0].get_resname()} A   1    "
    assert [lines[0][i : i + 8].strip() for i in (30, 38, 46)] == [f"{v:.3f}" for v in native.coords[0, 0].tolist()]
    assert [line[:6].strip() for line in lines[-2:]] == ["TER", "END"]


def test_gzip(tmp_path, native):
    path = write_cif(native, tmp_path / "a.cif")
    packed = tmp_path / "b.CIF.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    (read,), _ = read_backbones(packed)
    assert read.name == "b"


def test_trajectory_numbers_its_models(tmp_path, native):
    from Bio.PDB import PDBParser

    path = write_trajectory([Backbone(native.coords + k) for k in range(3)], tmp_path / "t.pdb")
    assert [line.split()[1] for line in path.read_text().splitlines() if line.startswith("MODEL")] == ["1", "2", "3"]
    assert len(PDBParser(QUIET=True).get_structure("", path)) == 3
    (first,), _ = read_backbones(path)
    torch.testing.assert_close(first.coords, native.coords, atol=1e-3, rtol=0)


def test_a_folder_counts_twins_once_and_sorts_by_name(tmp_path, native):
    for name in ("b.pdb", "a.pdb", "a.cif"):
        (write_cif if name.endswith("cif") else write_pdb)(native, tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a structure")
    kept, dropped = read_backbones(tmp_path)
    assert [b.name for b in kept] == ["a", "b"]
    assert ["same name as a.cif" in d.reason for d in dropped] == [True]
    write_pdb(native, tmp_path / "inner" / "c.pdb")
    assert len(read_backbones(tmp_path)[0]) == 3
    (tmp_path / "sampling.yaml").touch()
    assert len(read_backbones(tmp_path)[0]) == 2, "of a folder of samples, the samples alone"


def atom(serial, name, residue, chain, number, xyz, group="ATOM", alt=" ", insertion=" ", occupancy=1.0):
    return (
        f"{group:<6s}{serial:5d}  {name:<3s}{alt}{residue:3s} {chain}{number:4d}{insertion}   "
        f"{xyz[0]:8.3f}{xyz[1]:8.3f}{xyz[2]:8.3f}{occupancy:6.2f}  0.00          {name[0]:>2s}"
    )


def lines_of(native, chain="A", start=0, stop=6, shift=0.0):
    return [
        atom(1, name, "ALA", chain, 1 + i, (native.coords[i, k] + shift).tolist())
        for i in range(start, stop)
        for k, name in enumerate(("N", "CA", "C", "O"))
    ]


def save(path, lines):
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return path


def test_chains_become_backbones_and_water_does_not(tmp_path, native):
    water = atom(1, "O", "HOH", "A", 301, (50, 50, 50), group="HETATM")
    ligand = [atom(1, n, "GLU", "A", 302, (60 + k, 50, 50), "HETATM") for k, n in enumerate(("N", "CA", "C", "O"))]
    lines = [*lines_of(native), *lines_of(native, "B", 0, 5, 30.0), water, *ligand]
    kept, dropped = read_backbones(save(tmp_path / "two.pdb", lines))
    assert [(b.name, len(b)) for b in kept] == [("two_A", 6), ("two_B", 5)]
    assert dropped == []


def test_selenomethionine_insertion_codes_and_alternative_locations(tmp_path, native):
    lines = lines_of(native)
    lines[4:8] = [line.replace("ATOM  ", "HETATM").replace("ALA", "MSE") for line in lines[4:8]]
    lines[8:12] = [line[:22] + "   2A" + line[27:] for line in lines[8:12]]
    far = (native.coords[3, 1] + 0.5).tolist()
    lines[13:14] = [
        atom(1, "CA", "ALA", "A", 4, far, alt="A", occupancy=0.4),
        atom(1, "CA", "ALA", "A", 4, native.coords[3, 1].tolist(), alt="B", occupancy=0.6),
    ]
    (read,), _ = read_backbones(save(tmp_path / "x.pdb", lines))
    assert read.sequence == "AMAAAA"
    torch.testing.assert_close(read.coords, native.coords[:6], atol=1e-3, rtol=0)


def test_every_dropped_chain_has_its_reason(tmp_path, native):
    no_ca = lines_of(native, "C", 0, 6, -60.0)
    lines = [
        *lines_of(native),
        *lines_of(native, "B", 0, 3, 30.0), *lines_of(native, "B", 4, 8, 30.0),
        *no_ca[:5], *no_ca[6:],
        *lines_of(native, "D", 0, 3, 60.0),
    ]  # fmt: skip
    path = save(tmp_path / "x.pdb", lines)
    kept, dropped = read_backbones(path, min_length=4)
    assert [b.name for b in kept] == ["x_A"]
    reasons = {d.part: d.reason for d in dropped}
    assert "chain break between 3 and 5" in reasons["B"]
    assert "ALA 2 has no CA" in reasons["C"]
    assert "3 residues, wanted 4 to any" in reasons["D"]
    kept, _ = read_backbones(path, min_length=4, max_bond=None)
    assert [b.name for b in kept] == ["x_A", "x_B"]


def test_a_missing_oxygen_is_rebuilt(tmp_path, native):
    lines = [line for line in lines_of(native) if line[13:15] != "O "]
    (read,), _ = read_backbones(save(tmp_path / "x.pdb", lines))
    assert torch.linalg.vector_norm(read.coords[:-1, 3] - native.coords[:5, 3], dim=-1).max() < 0.3


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pdb", b""), ("a.cif", b""), ("a.pdb", b"hello\n"), ("a.cif", b"hello\n"), ("a.pdb.gz", b"no gzip"),
     ("a.cif", b"data_x\nloop_\n_atom_site.id\n1\n"), ("a.pdb", bytes(range(256)) * 9)],
)  # fmt: skip
def test_broken_files_are_the_users_to_mend(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="no usable protein chain") as caught:
        read_backbones(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == content


def test_wrong_paths(tmp_path):
    with pytest.raises(UserError, match="no structure files in the folder"):
        read_backbones(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_backbones(tmp_path / "nothing.pdb")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no structure file"):
        read_backbones([tmp_path / "a.txt"])


def test_what_does_not_fit_is_not_written(tmp_path, native):
    with pytest.raises(UserError, match="columns"):
        write_pdb(Backbone(native.coords - 2000), tmp_path / "a.pdb")
    with pytest.raises(UserError, match="finite"):
        write_cif(Backbone(native.coords * torch.nan), tmp_path / "a.cif")
    write_cif(Backbone(native.coords - 2000), tmp_path / "a.cif")
