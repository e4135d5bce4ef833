"""What is asked of a protein sampler: lengths, and shares of helix and strand."""

from __future__ import annotations

import pytest
import torch

from fm_science.errors import OptionError
from fm_science.networks import Guided
from fm_science_domains.protein import build
from fm_science_domains.protein.data import Data, load
from fm_science_domains.protein.recipe import Sample, contents, request

TINY = {"data": {"limit": 40, "max_length": 60}, "network": {"width": 16, "pair": 16, "blocks": 2, "triangle": 0}}


@pytest.fixture(scope="module")
def chains():
    return load(Data(limit=200))[0]


def test_contents_are_those_of_real_chains_of_like_length(chains):
    torch.manual_seed(0)
    context = request(5, Sample(length="60-64"), chains)
    real = torch.stack([chains.content(i) for i in range(len(chains))])
    for wanted, sites in zip(context.cond["content"], context.mask.sum(1), strict=True):
        same = (real == wanted).all(1)
        assert same.any()
        assert (chains.sizes[same] - sites).abs().min() <= 15  # the tenth that is nearest, of 200 chains of 40 to 128
    assert ((context.mask.sum(1) >= 60) & (context.mask.sum(1) <= 64)).all()


def test_contents_can_be_given_or_left_open(chains):
    assert request(2, Sample(helix=0.1, strand=0.5), chains).cond["content"].tolist() == [
        pytest.approx([0.1, 0.5]), pytest.approx([0.1, 0.5]),
    ]  # fmt: skip
    assert request(2, Sample(content="open"), chains).cond["content"].isnan().all()


@pytest.mark.parametrize("asked", [{"helix": 0.5}, {"strand": 0.2}, {"helix": 0.7, "strand": 0.6}])
def test_half_an_answer_is_refused(asked):
    with pytest.raises(OptionError, match="give both"):
        contents(Sample(**asked))
    with pytest.raises(OptionError, match="give both"):
        build(sample=asked, **TINY)


def test_guidance_wraps_the_network_only_when_it_is_asked_for():
    plain = build(**TINY)
    pressed = build(sample={"guidance": 2.0, "steps": 3, "length": 12}, **TINY)
    assert plain.sampler.wrap is None
    assert isinstance(pressed.sampler.wrap(pressed.network), Guided)
    flow, context = pressed.flow(), pressed.request(2)
    state = flow.sample(context, seed=0)
    assert all(bool(leaf.isfinite().all()) for leaf in state.values())
    eye = torch.eye(3).expand_as(state["rotations"])
    assert torch.allclose(state["rotations"] @ state["rotations"].mT, eye, atol=1e-4)
