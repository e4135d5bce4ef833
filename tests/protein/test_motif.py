"""Motifs: what a contig means, that held residues stay where they are, and how training shows the network some."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science.data import collate
from fm_science.errors import OptionError, UserError
from fm_science_domains.protein import build, chains, motif, names
from fm_science_domains.protein.blueprint import OPEN
from fm_science_domains.protein.drawn import decode
from fm_science_domains.protein.files import write_pdb
from fm_science_domains.protein.geometry import secondary
from fm_science_domains.protein.structure import ideal

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.fixture(scope="module")
def native():
    return chains.backbones(True)[3]


@pytest.fixture(scope="module")
def file(native, tmp_path_factory):
    """A held-out chain of 40 to 128 residues as a PDB file, far from the origin; the chain is A, numbered from 1."""
    moved = replace(native, coords=native.coords + torch.tensor([50.0, -20.0, 10.0]))
    return str(write_pdb(moved, tmp_path_factory.mktemp("motif") / "native.pdb"))


def test_a_contig_puts_new_and_held_residues_in_order(file):
    found = motif.read(file, "3-9/A11-14/2/A30/0-1")
    assert found.pieces == ((3, 9, False), (4, 4, True), (2, 2, False), (1, 1, True), (0, 1, False))
    rows = [found.draw() for _ in range(60)]
    assert {len(row) for row in rows} == set(range(10, 18))
    for row in rows:
        kept = row[row >= 0]
        assert kept.tolist() == [0, 1, 2, 3, 4]
        first = int((row == 0).nonzero())
        assert 3 <= first <= 9
        assert row[first + 4 : first + 6].tolist() == [-1, -1]


def test_held_residues_keep_place_letters_and_structure(file, native):
    domain = build(sample={"motif": file, "contig": "4/A11-20/3-6/A25-27/2"}, **TINY)
    context = domain.request(3)
    flow = domain.flow()
    found = domain.decode(flow.sample(context, seed=0, steps=4), context)
    there = [*range(10, 20), *range(24, 27)]
    wanted = ideal(native.coords)[there, :3] + torch.tensor([50.0, -20.0, 10.0])
    for chain, free, mask in zip(found, context.free, context.mask, strict=True):
        fixed = ~free[mask]
        torch.testing.assert_close(chain.coords[fixed, :3], wanted, atol=2e-3, rtol=0)
        letters = "".join(letter for letter, kept in zip(chain.sequence, fixed.tolist(), strict=True) if kept)
        assert letters == "".join(native.sequence[i] for i in there)
        assert {letter for letter, kept in zip(chain.sequence, fixed.tolist(), strict=True) if not kept} == {"G"}
    fixed = context.cond["structure"][0][~context.free[0]]
    assert fixed.tolist() == secondary(native.coords)[there].tolist()
    assert (context.cond["structure"][context.free] == OPEN).all()


def test_held_residues_know_where_they_came_from(file):
    domain = build(**TINY)
    context = domain.request(2, motif=file, contig="4/A11-14/2-6/A30-31/4")
    path = domain.path.bind(context, domain.prior)
    for chain, free in zip(decode(domain.prior.sample(path.space, context), context), context.free, strict=True):
        assert [label for label in chain.motif if label] == ["A11", "A12", "A13", "A14", "A30", "A31"]
        assert torch.equal(chain.fixed, ~free[: len(chain)])


def test_names_of_residues_as_numbers():
    labels = ("A1", "", "B-12C", "AAAA9999", "1:23A")
    assert names.unpacked(names.packed(labels)) == labels
    assert not names.packed(labels)[1].any()
    assert names.unpacked(names.packed(["ABCD1234@12"])) == ("ABCD1234@12",)


def test_a_motif_can_be_asked_for_by_keywords(file):
    context = build(**TINY).request(2, motif=file, contig="4/A11-20/4")
    assert (~context.free).sum(1).tolist() == [10, 10]


def test_new_residues_can_follow_a_blueprint(file):
    domain = build(sample={"motif": file, "contig": "6/A11-14/6", "structure": "6E4X6H"}, **TINY)
    kinds = domain.request(2).cond["structure"][:, [0, 5, 10, 15]]
    assert kinds.tolist() == [[2, 2, 1, 1]] * 2
    with pytest.raises(OptionError, match="the chains of the contig 16 to 17"):
        build(sample={"motif": file, "contig": "6/A11-14/6-7", "structure": "6E4X6H"}, **TINY)


@pytest.mark.parametrize(
    ("contig", "words"),
    [
        ("10/B3-5", "no chain B, but A"), ("10/A3-500", "no residue 500"), ("9-5/A3", "ends before"),
        ("5/A9-3", "ends before"), ("10/20", "fixed residues"), ("A3-9", "new ones"), ("5/nonsense", "neither"),
        ("", "neither"), ("5//A3", "neither"), ("5/A3-10/5/A3-10/5", "residue 3 again"),
        ("5/A3-10/5/A8-12/5", "residue 8 again"), ("A3-10/0 20-20", "one chain is made at a time"),
        ("10/1:3-5", r"no chain 1, but A"), ("10/:3-5", "no chain without a name, but A"),
    ],
)  # fmt: skip
def test_contigs_that_make_no_sense_are_refused(file, contig, words):
    with pytest.raises(OptionError, match=words):
        motif.read(file, contig)


@pytest.mark.parametrize("name", ["", "1", "A2", "x-1"])
def test_every_chain_can_be_named(native, tmp_path, name):
    from fm_science_domains.protein.files import write_cif

    file = str(write_cif(replace(native, chain=name or "A2"), tmp_path / "a.cif"))
    if not name:  # only PDB files have chains without a name
        file = str(tmp_path / "a.pdb")
        lines = write_pdb(native, file).read_text().splitlines()
        (tmp_path / "a.pdb").write_text("\n".join(line[:21] + " " + line[22:] for line in lines))
    assert motif.read(file, f"5/{name}:11-14/5").residues.sequence == native.sequence[10:14]
    with pytest.raises(OptionError, match=rf"but .*write {name}:1-5"):
        motif.read(file, "5/Z11-14/5")


def test_a_contig_and_a_length_agree_or_are_refused(file):
    domain = build(sample={"motif": file, "contig": "5-40/A11-20/3-60"}, **TINY)
    for wanted_length, sizes in ((50, {50}), ("60-62", {60, 61, 62}), (18, {18}), (110, {110})):
        assert {*domain.request(40, length=wanted_length).mask.sum(1).tolist()} <= sizes
    firsts = [int((~row).nonzero()[0]) for row in domain.request(60, length=70).free]
    assert len({*firsts}) > 10, "all divisions of the new residues come about"
    assert min(firsts) >= 5
    assert max(firsts) <= 40
    assert len({*domain.request(40).mask.sum(1).tolist()}) > 10
    for wanted_length in (17, 111):
        with pytest.raises(OptionError, match="chains of the contig have 18 to 110"):
            domain.request(2, length=wanted_length)
    with pytest.raises(OptionError, match="chains of the contig have 20 to 20"):
        build(sample={"motif": file, "contig": "5/A11-20/5", "length": 100}, **TINY)


def test_a_motif_is_not_held_across_a_break(native, tmp_path):
    there = [i for i in range(len(native)) if not 13 <= i < 17]
    whole = write_pdb(native, tmp_path / "whole.pdb").read_text().splitlines()
    kept = [line for line in whole if line[:4] != "ATOM" or int(line[22:26]) - 1 in there]
    (tmp_path / "gap.pdb").write_text("\n".join(kept) + "\n")
    with pytest.raises(OptionError, match="broken between 13 and 18"):
        motif.read(str(tmp_path / "gap.pdb"), "5/A10-20/5")
    pieces = motif.read(str(tmp_path / "gap.pdb"), "5/A10-13/4/A18-20/5").pieces
    assert [piece[:2] for piece in pieces] == [(5, 5), (4, 4), (4, 4), (3, 3), (5, 5)]
    with pytest.raises(UserError, match="is a folder"):
        motif.read(str(tmp_path), "5/A10-13/4")


def test_half_a_motif_and_missing_files_are_refused(file):
    with pytest.raises(OptionError, match="go together"):
        build(sample={"motif": file}, **TINY)
    with pytest.raises(OptionError, match="choose among"):
        build(sample={"motif": file, "contig": "5/A3-9/5", "helix": 0.5, "strand": 0.0}, **TINY)
    with pytest.raises(UserError, match="no such file"):
        build(sample={"motif": "nowhere.pdb", "contig": "5/A3-9/5"}, **TINY)


@pytest.mark.parametrize("sizes", [(40, 60, 5), (1, 2, 3)])
def test_stretches_leave_residues_to_learn(sizes):
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    for _ in range(200):
        fixed = motif.stretches(mask)
        assert not (fixed & ~mask).any()
        assert (fixed.sum(1) >= 1).all()
        assert (fixed.sum(1) <= (2 * motif.LONGEST * mask.sum(1)).clamp_min(2)).all()
        runs = (fixed.int().diff(dim=1, prepend=torch.zeros(len(mask), 1, dtype=torch.int)) == 1).sum(1)
        assert (runs <= 2).all()


def test_training_holds_stretches_around_their_own_centre():
    domain = build(coupling={"motifs": 1.0}, **TINY)
    x1, context = collate(domain.path.space, [domain.data.train[i] for i in range(6)])
    path = domain.path.bind(context, domain.prior)
    x0 = domain.prior.sample(path.space, context)
    x0, moved, seen = domain.objective.coupling.pair(path.space, x0, x1, context)
    fixed = ~seen.free & context.mask
    for name in ("translations", "rotations"):
        assert torch.equal(x0[name][fixed], moved[name][fixed])
    middle = (moved["translations"] * fixed[..., None]).sum(1) / fixed.sum(1, keepdim=True)
    assert middle.abs().max() < 1e-6
    gap = moved["translations"] - x1["translations"]
    assert all((gap[i][m] - gap[i][0]).abs().max() < 1e-6 for i, m in enumerate(context.mask))
    visible = seen.cond["structure"] == context.cond["structure"]
    assert visible[fixed].all()
    loss = domain.objective(domain.flow(), x1, context)
    assert all(value.isfinite().all() for value in loss.values())
    never = build(coupling={"motifs": 0.0}, **TINY).objective.coupling
    assert never.pair(path.space, x0, x1, context)[2] is context
