"""Variants of a fold: what a chain becomes as a state, and what its variants keep of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science.errors import OptionError
from fm_science.sampling import Drawing, Variants, draw
from fm_science_domains.protein import Protein, chains
from fm_science_domains.protein.files import read, write_pdb
from fm_science_domains.protein.geometry import OPEN, secondary
from fm_science_domains.protein.structure import ideal

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}
FAR = torch.tensor([50.0, -20.0, 10.0])


@pytest.fixture(scope="module")
def natives():
    """Two held-out chains far from the origin, of other names and numbers than new ones have."""
    first, second = chains.backbones(True)[3:5]
    numbers = tuple(str(100 + i) if i != 7 else "106A" for i in range(len(first)))
    return [
        replace(first, coords=first.coords + FAR, chain="B", numbers=numbers),
        replace(second, coords=second.coords - FAR, chain="C"),
    ]


def test_decoding_gives_back_what_was_encoded(natives):
    domain = Protein(sample={"closure": "none"}, **TINY)
    state, context = domain.encode(natives)
    for found, native in zip(domain.decode(state, context), natives, strict=True):
        torch.testing.assert_close(found.coords, ideal(native.coords), atol=1e-4, rtol=0)
        assert found.chain == native.chain
        assert found.numbers == (native.numbers or tuple(map(str, range(1, len(native) + 1))))
    assert context.cond["structure"][0][context.mask[0]].tolist() == secondary(natives[0].coords).tolist()


def test_variants_are_drawn_in_turn_and_their_files_keep_chain_and_numbers(natives, tmp_path):
    domain = Protein(**TINY)
    data = [domain.encode([native]) for native in natives]
    plan = Drawing(3, steps=4, batch=2, variants=Variants(data, 0.9))
    found = [chain for _, samples, _ in draw(domain, domain.flow(), plan) for chain in samples]
    assert [len(chain) for chain in found] == [len(natives[i]) for i in (0, 1, 0)]
    files = domain.write(found, tmp_path)
    back = read([file for file in files if file.suffix == ".pdb" and file.parent == tmp_path])
    assert [chain.chain for chain in back] == ["B", "C", "B"]
    assert back[0].numbers == natives[0].numbers
    again = [chain for _, samples, _ in draw(domain, domain.flow(), replace(plan, n=1, first=2)) for chain in samples]
    torch.testing.assert_close(again[0].coords, found[2].coords, atol=1e-2, rtol=0)


def test_a_variant_is_told_the_structure_that_is_asked_for(natives):
    length = len(natives[0])
    kinds = Protein(sample={"structure": "open"}, **TINY).encode(natives)[1].cond["structure"]
    assert (kinds[0, :length] == OPEN).all()
    blueprint = Protein(sample={"structure": f"10H{length - 10}L"}, **TINY)
    assert blueprint.encode(natives[:1])[1].cond["structure"].sum() == 10
    with pytest.raises(OptionError, match="of which variants are made, has"):
        blueprint.encode(natives[1:])
    with pytest.raises(OptionError, match="leave out"):
        Protein(sample={"helix": 0.5, "strand": 0.1}, **TINY).encode(natives)


def test_a_chain_with_a_gap_keeps_its_gap(natives, tmp_path):
    there = [i for i in range(len(natives[1])) if not 20 <= i < 25]
    numbers = tuple(str(i + 1) for i in there)
    broken = replace(natives[1], coords=natives[1].coords[there], sequence=None, numbers=numbers)
    file = write_pdb(broken, tmp_path / "g.pdb")
    domain = Protein(**TINY)
    residue = domain.encode(domain.read([file]))[1].cond["residue"][0]
    assert residue.tolist() == there
