"""Which strands lie side by side: read from real chains, written as words, and handed to a network."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import OptionError
from fm_science_domains.protein import blueprint as blueprints
from fm_science_domains.protein import chains
from fm_science_domains.protein.geometry import OPEN, STRAND, secondary
from fm_science_domains.protein.sheets import (
    ANTIPARALLEL,
    PARALLEL,
    UNPAIRED,
    UNSTATED,
    bridges,
    condition,
    numbers,
    pairs,
    parse,
    stacked,
    strands,
    unstated,
    written,
)


def blueprint(text):
    return blueprints.parse(text).kinds


@pytest.fixture(scope="module")
def natives():
    return chains.backbones(True)[::3]


def test_strands_are_numbered_along_the_chain():
    kinds = blueprint("2E3L3E1H1EX")
    assert strands(kinds) == [(0, 2), (5, 8), (9, 10)]
    assert numbers(kinds).tolist() == [1, 1, 0, 0, 0, 2, 2, 2, 0, 3, 0]
    assert strands(blueprint("5L5H")) == []


def test_residues_that_are_bridged_are_the_strands_of_dssp(natives):
    """A strand is, by definition, what bridges join and no helix claims."""
    for chain in natives:
        bridged = (bridges(chain.coords) > 0).any(1)
        kinds = secondary(chain.coords)
        assert torch.equal(bridged & (kinds != 1), kinds == STRAND)


def test_bridged_residues_are_neighbours_in_space_and_run_as_they_are_said_to(natives):
    near, right = [], []
    for chain in natives:
        found, ca = bridges(chain.coords), chain.ca
        assert torch.equal(found, found.T)
        way = torch.nn.functional.pad(ca[2:] - ca[:-2], (0, 0, 1, 1))
        i, j = found.nonzero(as_tuple=True)
        near.append(torch.linalg.vector_norm(ca[i] - ca[j], dim=-1))
        right.append((way @ way.T > 0)[i, j] == (found[i, j] == PARALLEL))
    near, right = torch.cat(near), torch.cat(right)
    assert len(near) > 2000
    assert ((near > 4.0) & (near < 5.8)).double().mean() > 0.98  # 4.4 and 5.5 anti-parallel, 4.8 parallel
    assert right.double().mean() > 0.98


def test_the_condition_says_of_each_pair_of_residues_what_is_known():
    kinds = blueprint("2E1L2EX1E")
    found = condition(kinds, torch.tensor([[1, 2, ANTIPARALLEL], [1, 3, PARALLEL]]))
    a, p, n, o = ANTIPARALLEL, PARALLEL, UNPAIRED, UNSTATED
    assert found.dtype == torch.int8
    assert found.tolist() == [
        [n, n, n, a, a, o, p],
        [n, n, n, a, a, o, p],
        [n, n, n, n, n, o, n],
        [a, a, n, n, n, o, n],
        [a, a, n, n, n, o, n],
        [o, o, o, o, o, o, o],
        [p, p, n, n, n, o, n],
    ]


def test_every_strand_that_is_bridged_to_another_has_a_partner(natives):
    for chain in natives:
        kinds = secondary(chain.coords)
        found = pairs(chain.coords, kinds)
        wanted = condition(kinds, found)
        assert torch.equal(wanted, wanted.T)
        paired = (wanted >= PARALLEL).any(1)
        bridged = (bridges(chain.coords)[kinds == STRAND][:, kinds == STRAND] > 0).any(1)
        assert not paired[kinds != STRAND].any()
        assert paired[kinds == STRAND][bridged].all()
        assert (found[:, 0] < found[:, 1]).all()


def test_words_and_pairs_are_the_same(natives):
    for chain in natives:
        kinds = secondary(chain.coords)
        found = pairs(chain.coords, kinds)
        if len(found):
            assert torch.equal(parse(written(found), kinds), found)
    assert parse("3-1p, 1-2a", blueprint("2E1L2E1L2E")).tolist() == [[1, 3, PARALLEL], [1, 2, ANTIPARALLEL]]


@pytest.mark.parametrize(
    ("text", "why"),
    [("1-2", "is none"), ("1-2x", "is none"), ("", "is none"), ("1-2a,", "is none"), ("0-1a", "2 strands"),
     ("1-3a", "2 strands"), ("2-2a", "2 strands"), ("1-2a,2-1p", "twice")],
)  # fmt: skip
def test_sheets_that_make_no_sense_are_refused(text, why):
    with pytest.raises(OptionError, match=f"sheet=.*{why}"):
        parse(text, blueprint("4L5E4L5E4L"))


def test_padding_states_nothing():
    short, long = condition(blueprint("2E2L"), torch.zeros(0, 3, dtype=torch.long)), unstated(6)
    both = stacked([short, long])
    assert both.shape == (2, 6, 6)
    assert torch.equal(both[0, :4, :4], short)
    assert both[0].sum() == short.sum()
    assert (condition(torch.full((5,), OPEN), torch.zeros(0, 3, dtype=torch.long)) == UNSTATED).all()
