"""States and contexts: walking dicts, and what a context says about sites."""

from __future__ import annotations

import pytest
import torch

from fm_science.state import Context, add, batch_size, expand_like, leaves, scale, take, tree_map

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": torch.ones(2, 3, 4)}}


def test_arithmetic_reaches_every_leaf_and_keeps_the_names():
    twice = add(STATE, STATE)
    assert torch.equal(twice["b"]["c"], 2 * STATE["b"]["c"])
    each = scale(torch.tensor([1.0, 3.0]), STATE)
    assert torch.equal(each["a"][1], 3 * STATE["a"][1])
    assert torch.equal(each["a"][0], STATE["a"][0])
    assert batch_size(STATE) == 2
    assert len(leaves(STATE)) == 2
    assert take(STATE, torch.tensor([1]))["a"].shape == (1, 3)
    assert tree_map(lambda x: x.shape, STATE)["b"]["c"] == (2, 3, 4)


def test_lift_puts_a_number_a_sample_beside_any_shape():
    assert expand_like(torch.ones(2), torch.ones(2, 3, 4)).shape == (2, 1, 1)
    assert expand_like(0.5, torch.ones(2, 3)) == 0.5


def test_sites_of_edges_leave_out_padding_and_the_diagonal():
    context = Context(torch.tensor([[True, True, False]]))
    expected = torch.tensor([[[0, 1, 0], [1, 0, 0], [0, 0, 0]]], dtype=torch.bool)
    assert torch.equal(context.sites("edges"), expected)
    assert context.sites("graph").tolist() == [True]


def test_an_edge_is_frozen_when_both_its_ends_are():
    free = torch.tensor([[True, False, False]])
    context = Context(torch.ones(1, 3, dtype=torch.bool), free=free, known=torch.zeros(1, 3))
    assert context.frozen("edges")[0].tolist() == [[False, False, False], [False, True, True], [False, True, True]]
    assert context.frozen("graph") is None


def test_frozen_sites_without_values_are_refused():
    with pytest.raises(ValueError, match="known"):
        Context(torch.ones(1, 2, dtype=torch.bool), free=torch.ones(1, 2, dtype=torch.bool))


def test_a_context_moves_and_is_cut_as_a_whole():
    context = Context.full(3, 2, label=torch.arange(3))
    part = context.to("cpu").take(torch.tensor([2]))
    assert part.cond["label"].tolist() == [2]
    assert part.size == 1


def test_parts_of_a_context_need_values_only_where_they_have_frozen_sites():
    free = {"a": torch.tensor([[True, False]])}
    context = Context(torch.ones(1, 2, dtype=torch.bool), free=free, known={"a": torch.ones(1, 2, 3)})
    assert torch.equal(context.part("a").frozen("nodes"), ~free["a"])
    assert context.part("b").frozen("nodes") is None
    everywhere = Context(context.mask, free=free["a"], known=context.known).part("b")
    assert everywhere.frozen("graph") is None  # such a site freezes by a tensor of its own only
    for on in ("nodes", "edges"):
        with pytest.raises(ValueError, match="known"):
            everywhere.frozen(on)
