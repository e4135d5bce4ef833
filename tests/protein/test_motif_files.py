"""What held residues bring along into the files of new chains: side chains, names and numbers, and marks."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fm_science.errors import OptionError
from fm_science_domains.protein import Protein, chains, motif, numbering
from fm_science_domains.protein.files import read_numbered, write_cif, write_pdb
from fm_science_domains.protein.side_chains import ATOMS, MOST
from fm_science_domains.protein.structure import frames

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}
SHIFT = torch.tensor([5.0, -2.0, 1.0])


@pytest.fixture(scope="module")
def native():
    """A held-out chain B numbered from 101, with made-up side chains, at known places in the frames of its residues."""
    chain = chains.backbones(True)[3]
    local = 1.5 + torch.rand(len(chain), MOST, 3, generator=torch.Generator().manual_seed(0))
    rotations, places = frames(*chain.coords[:, :3].unbind(1))
    sides = (rotations @ local.mT).mT + places[:, None]
    numbers = tuple(str(101 + i) for i in range(len(chain)))
    return replace(chain, chain="B", numbers=numbers, sides=sides)


@pytest.fixture(scope="module")
def files(native, tmp_path_factory):
    """The chain as PDB, and a shifted copy of it, chain C numbered from 1, as mmCIF."""
    folder = tmp_path_factory.mktemp("motif")
    moved = replace(native, coords=native.coords + SHIFT, sides=native.sides + SHIFT, chain="C", numbers=())
    return [str(write_pdb(native, folder / "a.pdb")), str(write_cif(moved, folder / "b.cif"))]


def test_side_chains_are_read_as_they_were_written(files, native):
    for file, name, shift in ((files[0], "B", 0), (files[1], "C", SHIFT)):
        found = read_numbered(file)[name][0]
        there = torch.tensor([[k < len(ATOMS.get(letter, ())) for k in range(MOST)] for letter in native.sequence])
        assert torch.equal(found.sides.isfinite().all(-1), there)
        torch.testing.assert_close(found.sides[there], (native.sides + shift)[there], atol=1e-3, rtol=0)


def drawn(domain, folder: Path, n: int = 2):
    context = domain.request(n)
    samples = domain.decode(domain.flow().sample(context, seed=0, steps=3), context)
    return samples, domain.write(samples, folder)


def test_held_residues_keep_their_side_chains_in_place(files, native, tmp_path):
    domain = Protein(sample={"motif": files[0], "contig": "4/B111-114/3/B120-121/4"}, **TINY)
    samples, written = drawn(domain, tmp_path)
    fixed, there = samples[0].fixed, [10, 11, 12, 13, 19, 20]
    for suffix in (".pdb", ".cif"):
        (chain, _), *_ = read_numbered(next(f for f in written if f.suffix == suffix)).values()
        wanted = torch.stack([native.sides[i] for i in there])
        missing = torch.tensor([[k >= len(ATOMS[native.sequence[i]]) for k in range(MOST)] for i in there])
        wanted = wanted.masked_fill(missing[..., None], torch.nan)
        torch.testing.assert_close(chain.sides[fixed], wanted, atol=1e-3, rtol=0, equal_nan=True)
        assert chain.sides[~fixed].isnan().all()
    marked = [line for line in (tmp_path / "sample_0000.pdb").read_text().splitlines() if line[60:66] == "  1.00"]
    assert {int(line[22:26]) - 1 for line in marked} == {*fixed.nonzero().flatten().tolist()}


def test_a_table_has_a_row_for_each_held_residue(files, native, tmp_path):
    domain = Protein(sample={"motif": files[0], "contig": "4/B111-114/4", "numbering": "kept"}, **TINY)
    samples, written = drawn(domain, tmp_path)
    domain.write(samples[:1], tmp_path, first=2)
    assert tmp_path / "motif.csv" in written
    rows = list(csv.DictReader((tmp_path / "motif.csv").open()))
    assert [row["sample"] for row in rows[::4]] == ["sample_0000", "sample_0001", "sample_0002"]
    assert [row["residue"] for row in rows[:4]] == ["111", "112", "113", "114"]
    assert {row["chain"] for row in rows} == {"B"}
    assert "".join(row["amino_acid"] for row in rows[:4]) == native.sequence[10:14]
    assert [row["from"] for row in rows[:4]] == ["B111", "B112", "B113", "B114"]


def test_names_and_numbers_are_kept_where_they_are_asked_for(files, tmp_path):
    sample = {"motif": files[0], "contig": "3/B111-114/2-5/B120-121/4", "numbering": "kept"}
    samples, written = drawn(Protein(sample=sample, **TINY), tmp_path, 3)
    for chain, file in zip(samples, (f for f in written if f.suffix == ".pdb" and f.parent == tmp_path), strict=True):
        ((name, (_, found)),) = read_numbered(file).items()
        assert name == "B"
        assert found[:7] == [str(k) for k in range(108, 115)]
        assert found[-6:] == [str(k) for k in range(120, 126)]
        assert [number for number, label in zip(found, chain.motif, strict=True) if label] == [
            "111", "112", "113", "114", "120", "121",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("contig", "words"),
    [
        ("3/B111-114/2-6/B120-121/4", "6 new residues do not fit between B114 and B120"),
        ("3/B120-121/5/B111-114", "comes after"), ("1200/B111-114/3", "numbers would leave"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_kept_are_refused(files, contig, words):
    with pytest.raises(OptionError, match=words):
        Protein(sample={"motif": files[0], "contig": contig, "numbering": "kept"}, **TINY)


def test_numbers_of_other_files_are_refused_where_they_say_too_little():
    with pytest.raises(OptionError, match="insertion codes"):
        numbering.check([(3, 3, False), (1, 1, True)], "A", ["52A"])
    assert numbering.continued(torch.tensor([-1, -1, 0, -1, 1, -1]), ["1", "5"]) == ["-1", "0", "1", "2", "5", "6"]


def test_a_motif_can_be_of_several_files(files, native, tmp_path):
    sample = {"motif": files, "contig": "4/B111-113/5/C11-13@2/4"}
    samples, _ = drawn(Protein(sample=sample, **TINY), tmp_path)
    for chain in samples:
        assert [label for label in chain.motif if label] == ["B111@1", "B112@1", "B113@1", "C11@2", "C12@2", "C13@2"]
        first, second = chain.coords[chain.fixed][:, 1].split(3)
        torch.testing.assert_close(second - first, SHIFT.expand(3, 3), atol=2e-3, rtol=0)
    wrong = {"5/C11-13@3/5": "which has 2", "5/C11-13/5": "no chain C, but B", "5/B111@x/5": "which has 2"}
    for contig, words in wrong.items():
        with pytest.raises(OptionError, match=words):
            motif.read(files, contig)
    with pytest.raises(OptionError, match="of several chains"):
        Protein(sample={**sample, "numbering": "kept"}, **TINY)
