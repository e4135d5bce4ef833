"""What is asked of a protein sampler: lengths, and secondary structures."""

from __future__ import annotations

import pytest
import torch

from fm_science.data import collate
from fm_science.errors import OptionError
from fm_science.networks import Guided, drop_condition
from fm_science_domains.protein import build, sheets
from fm_science_domains.protein.blueprint import fitted, parse
from fm_science_domains.protein.data import Data, load
from fm_science_domains.protein.geometry import COIL, OPEN
from fm_science_domains.protein.recipe import Sample, request

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.fixture(scope="module")
def chains():
    return load(Data(limit=200))[0]


def share(row, kind):
    return (row == kind).double().mean()


def elements(kinds):
    """The helices and strands of a chain in order, each with its length."""
    values, counts = torch.unique_consecutive(kinds, return_counts=True)
    return [pair for pair in zip(values.tolist(), counts.tolist(), strict=True) if pair[0] not in (COIL, OPEN)]


def test_structures_are_those_of_real_chains_of_like_length(chains):
    """Helices and strands keep their lengths and their partners; loops give way."""
    context = request(5, Sample(length="60-64"), chains)
    sizes = context.mask.sum(1).tolist()
    assert all(60 <= size <= 64 for size in sizes)
    for row, sheet, size in zip(context.cond["structure"], context.cond["sheet"], sizes, strict=True):
        apart = (chains.sizes - size).abs()
        near = (apart <= apart.sort().values[19]).nonzero()[:, 0].tolist()  # the tenth that is nearest
        kept = [i for i in near if elements(chains.structure(i)) == elements(row[:size])]
        assert kept
        wanted = [sheets.condition(row[:size], chains.folded(i)[1]) for i in kept]
        assert any(torch.equal(sheet[:size, :size], found) for found in wanted)
        assert (row[size:] == OPEN).all()
        assert (sheet[size:] == sheets.UNSTATED).all()


def test_the_nearest_lengths_are_followed():
    everything = load(Data())[0]
    for _ in range(20):
        row = request(1, Sample(length=80), everything).cond["structure"][0]
        same = (everything.sizes - 80).abs() <= 2
        assert any(elements(everything.structure(i)) == elements(row) for i in same.nonzero()[:, 0].tolist())


def test_shares_choose_among_real_chains(chains):
    sheets = request(20, Sample(length=60, helix=0.0, strand=0.5), chains).cond["structure"]
    bundles = request(20, Sample(length=60, helix=0.8, strand=0.0), chains).cond["structure"]
    assert share(sheets, 2) > 0.35 > 0.1 > share(sheets, 1)
    assert share(bundles, 1) > 0.6 > 0.05 > share(bundles, 2)


def test_lengths_that_no_chain_has_are_left_open(chains):
    assert (request(2, Sample(length=12), chains).cond["structure"] == OPEN).all()
    with pytest.raises(OptionError, match="no training chain has a similar length"):
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


@pytest.mark.parametrize("text", ["3L6E4L6E5L12H3L", "12H2L8E", "20H", "4X5E4X5E", "3LEHE3L"])
def test_fitting_changes_loops_and_keeps_helices_and_strands(text):
    kinds = parse(text).kinds
    fixed = sum(count for _, count in elements(kinds))
    inner = 2 * (len(elements(kinds)) - 1)
    for length in range(fixed + inner, len(kinds) + 15):
        row = fitted(kinds, length)
        assert len(row) == length
        assert elements(row) == elements(kinds)
    assert torch.equal(fitted(kinds, len(kinds)), kinds)


def test_fitting_trims_the_longest_when_loops_have_nothing_left():
    kinds = parse("2L4E2L12H2L5E").kinds
    assert elements(fitted(kinds, 20)) == [(2, 4), (1, 7), (2, 5)]
    assert [kind for kind, _ in elements(fitted(kinds, 8))] == [2, 1, 2]


def test_ends_and_long_loops_take_most_of_what_is_added():
    torch.manual_seed(0)
    kinds = parse("2L6E2L6E8L12H").kinds
    row = torch.stack([fitted(kinds, 46) for _ in range(200)])
    counts = torch.stack([torch.unique_consecutive(r, return_counts=True)[1][[0, 2, 4]] for r in row]).double().mean(0)
    assert counts[2] > counts[0] > counts[1] >= 2


def test_sheets_are_asked_for_beside_a_blueprint():
    domain = build(**TINY)
    context = domain.request(2, structure="3E2L3E2L3E", sheet="1-2a,1-3p")
    sheet = context.cond["sheet"]
    assert sheet.shape == (2, 13, 13)
    assert sheet.dtype == torch.int8
    assert (sheet[:, :3, 5:8] == sheets.ANTIPARALLEL).all()
    assert (sheet[:, :3, 10:] == sheets.PARALLEL).all()
    assert (sheet[:, 5:8, 10:] == sheets.UNPAIRED).all()
    assert (domain.request(2, structure="3E2L3E2L3E").cond["sheet"] == sheets.UNSTATED).all()
    assert (domain.request(2, sheet="open").cond["sheet"] == sheets.UNSTATED).all()
    with pytest.raises(OptionError, match="3 strands of the blueprint"):
        domain.request(2, structure="3E2L3E2L3E", sheet="1-4a")
    with pytest.raises(OptionError, match="give one, such as"):
        build(sample={"sheet": "1-2a"}, **TINY)


def test_sheets_of_half_of_the_chains_are_hidden_in_training():
    domain = build(**TINY)
    _, context = collate(domain.path.space, [domain.data.train[i] for i in range(3)])
    assert domain.objective.condition_dropout == {"structure": 0.2, "sheet": 0.5}
    assert (drop_condition(context, "sheet").cond["sheet"] <= sheets.UNSTATED).all()


@pytest.mark.parametrize("wanted", [{"helix": 0.5}, {"strand": 0.2}, {"helix": 0.7, "strand": 0.6}])
def test_half_an_answer_is_refused(wanted):
    with pytest.raises(OptionError, match="give both"):
        build(sample=wanted, **TINY)


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
