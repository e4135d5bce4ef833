"""What is asked of a protein sampler: lengths, and secondary structures."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import OptionError
from fm_science.networks import Guided
from fm_science_domains.protein import build
from fm_science_domains.protein.blueprint import OPEN, stretched
from fm_science_domains.protein.data import Data, load
from fm_science_domains.protein.recipe import Sample, request

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.fixture(scope="module")
def chains():
    return load(Data(limit=200))[0]


def share(row, kind):
    return (row == kind).double().mean()


def test_structures_are_those_of_real_chains_of_like_length(chains):
    context = request(5, Sample(length="60-64"), chains)
    sizes = context.mask.sum(1)
    assert ((sizes >= 60) & (sizes <= 64)).all()
    for wanted, size in zip(context.cond["structure"], sizes.tolist(), strict=True):
        near = (chains.sizes - size).abs().argsort()[:20]  # the tenth that is nearest
        rows = [stretched(chains.structure(i), size) for i in near.tolist()]
        assert any(torch.equal(wanted[:size], row) for row in rows)
        assert (wanted[size:] == OPEN).all()


def test_shares_choose_among_real_chains(chains):
    sheets = request(20, Sample(length=60, helix=0.0, strand=0.5), chains).cond["structure"]
    bundles = request(20, Sample(length=60, helix=0.8, strand=0.0), chains).cond["structure"]
    assert share(sheets, 2) > 0.35 > 0.1 > share(sheets, 1)
    assert share(bundles, 1) > 0.6 > 0.05 > share(bundles, 2)


def test_lengths_that_no_chain_has_are_left_open(chains):
    assert (request(2, Sample(length=12), chains).cond["structure"] == OPEN).all()
    with pytest.raises(OptionError, match="no training chain is of like length"):
        request(2, Sample(length=400, helix=0.5, strand=0.0), chains)


def test_structures_can_be_given_or_left_open(chains):
    context = request(2, Sample(structure="2LH2EX-", length="60-100"), chains)
    assert context.cond["structure"].tolist() == [[0, 0, 1, 2, 2, OPEN, 0]] * 2
    assert context.mask.all()
    assert (request(2, Sample(structure="open"), chains).cond["structure"] == OPEN).all()


def test_keywords_override_the_options():
    domain = build(sample={"length": "40-45", "helix": 0.8, "strand": 0.0}, **TINY)
    assert domain.request(2, length=50).mask.shape == (2, 50)
    assert domain.request(1, helix=0.0, strand=0.5).mask.shape[1] in range(40, 46)
    with pytest.raises(OptionError, match="choose among"):
        domain.request(1, structure="8H4L8H")
    hairpin = build(**TINY).request(3, structure="2L6E2L6E")
    assert hairpin.cond["structure"].tolist() == [[0, 0, *[2] * 6, 0, 0, *[2] * 6]] * 3


@pytest.mark.parametrize("text", ["3L8Q", "HHHHH3", "", "HHH", "3 H", "0H4", "helix"])
def test_blueprints_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError, match="structure="):
        build(sample={"structure": text}, **TINY)


@pytest.mark.parametrize(("short", "long"), [(10, 15), (15, 10), (12, 12)])
def test_stretching_keeps_the_order_and_the_shares(short, long):
    kinds = torch.arange(short)
    row = stretched(kinds, long)
    assert len(row) == long
    assert (row.diff() >= 0).all()
    assert (row.bincount(minlength=short) - long / short).abs().max() < 1


@pytest.mark.parametrize("asked", [{"helix": 0.5}, {"strand": 0.2}, {"helix": 0.7, "strand": 0.6}])
def test_half_an_answer_is_refused(asked):
    with pytest.raises(OptionError, match="give both"):
        build(sample=asked, **TINY)


def test_two_answers_are_refused():
    with pytest.raises(OptionError, match="choose among"):
        build(sample={"helix": 0.5, "strand": 0.2, "structure": "8H4L8H"}, **TINY)


def test_guidance_wraps_the_network_only_when_it_is_asked_for():
    plain = build(**TINY)
    pressed = build(sample={"guidance": 2.0, "steps": 3, "length": 12}, **TINY)
    assert plain.sampler.wrap_network is None
    assert isinstance(pressed.sampler.wrap_network(pressed.network), Guided)
    flow, context = pressed.flow(), pressed.request(2)
    state = flow.sample(context, seed=0)
    assert all(bool(leaf.isfinite().all()) for leaf in state.values())
    eye = torch.eye(3).expand_as(state["rotations"])
    assert torch.allclose(state["rotations"] @ state["rotations"].mT, eye, atol=1e-4)
