"""Symmetric assemblies: groups, copies that stay copies from noise to data, and their files."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import OptionError
from fm_science.sampling import Drawing, draw
from fm_science_domains.protein import Protein, assembly
from fm_science_domains.protein.files import read

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.mark.parametrize(("name", "count"), [("C2", 2), ("c5", 5), ("D2", 4), ("D3", 6)])
def test_rotations_are_a_group(name, count):
    turns = assembly.rotations(name).double()
    assert len(turns) == count
    torch.testing.assert_close(turns[0], torch.eye(3, dtype=turns.dtype))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(count, dtype=turns.dtype), atol=1e-6, rtol=0)
    products = turns[:, None] @ turns[None]
    apart = (products[:, :, None] - turns).flatten(-2).abs().amax(-1)
    assert (apart.amin(-1) < 1e-6).all()
    distinct = (turns[:, None] - turns).abs().amax((-1, -2)) + torch.eye(count)
    assert distinct.min() > 0.1


@pytest.mark.parametrize("name", ["C1", "D1", "C13", "D7", "T", "I", "3"])
def test_other_groups_are_refused(name):
    with pytest.raises(OptionError, match="expected C2 to C12"):
        Protein(sample={"symmetry": name}, **TINY)


def test_a_motif_has_one_place(tmp_path):
    with pytest.raises(OptionError, match="do not go together"):
        Protein(sample={"symmetry": "C3", "motif": "a.pdb", "contig": "5/A1-3/5"}, **TINY)


def test_copying_is_a_projection():
    domain = Protein(sample={"symmetry": "D2", "length": 9, "structure": "open"}, **TINY)
    context = domain.request(2)
    assert context.mask.shape == (2, 36)
    once = assembly.symmetric(domain.flow().noise(context), context)
    again = assembly.symmetric(once, context)
    for name in once:
        torch.testing.assert_close(once[name], again[name])
    middle = once["translations"].mean(1)
    assert middle.abs().max() < 1e-5, "the copies of a dihedral group stand around the origin"


@pytest.mark.parametrize("options", [{"structure": "data"}, {"structure": "4L6E4L6E4L", "sheet": "1-2a"}])
def test_assemblies_are_symmetric_and_stand_in_one_file(tmp_path, options):
    domain = Protein(sample={"symmetry": "C3", "length": "20-30", "closure": "none", **options}, **TINY)
    flow = domain.flow()
    found = [chain for _, samples, _ in draw(domain, flow, Drawing(3, steps=3, batch=3)) for chain in samples]
    turns = assembly.rotations("C3")
    for chain in found:
        assert len(chain.mates) == 2
        for turn, mate in zip(turns[1:], chain.mates, strict=True):
            torch.testing.assert_close(mate, chain.coords @ turn.T)
        assert chain.structure is None or len(chain.structure) == len(chain)
        centre = torch.stack([chain.coords, *chain.mates])[:, :, 1].mean((0, 1))
        assert centre[:2].abs().max() < 1e-3
    for file in domain.write(found, tmp_path):
        if file.suffix in (".pdb", ".cif"):
            chains = read(file)
            number = int(file.stem[-4:])
            assert [chain.chain for chain in chains] == ["A", "B", "C"]
            torch.testing.assert_close(chains[2].coords, found[number].mates[1], atol=1e-3, rtol=0)


def test_chains_that_meet_are_measured():
    line = torch.zeros(10, 4, 3)
    line[:, :, 0] = 3.8 * torch.arange(10)[:, None]
    near, far = line + torch.tensor([0.0, 3.0, 0.0]), line + torch.tensor([0.0, 30.0, 0.0])
    assert assembly.interface(line, (far,)) == {"clashes_between": 0.0, "contacts_between": 0.0}
    assert assembly.interface(line, (near,)) == {"clashes_between": 1.0, "contacts_between": 1.0}
