"""Batches: a function of (seed, k), similar sizes together, shared fairly among processes."""

from __future__ import annotations

import itertools

import torch

from fm_science.data import StepBatches, collate
from fm_science.spaces import SO3, Centered, Euclidean, Product

SIZES = torch.randint(5, 50, (300,), generator=torch.Generator().manual_seed(0))


def first(batches, n):
    return list(itertools.islice(iter(batches), n))


def test_every_datum_is_seen_once_in_a_pass_and_batches_obey_their_bounds():
    batches = StepBatches(SIZES, 16, budget=16 * 30**2)
    plan = batches.plan(0)
    assert sorted(i for b in plan for i in b) == list(range(300))
    assert max(len(b) for b in plan) == 16
    assert all(len(b) * int(SIZES[b].max()) ** 2 <= 16 * 30**2 for b in plan if len(b) > 1)


def test_a_resumed_order_continues_the_first_across_passes():
    whole = first(StepBatches(SIZES, 16, seed=4), 60)
    for k in (1, 18, 19, 40):
        assert first(StepBatches(SIZES, 16, seed=4, start=lambda k=k: k), 60 - k) == whole[k:]


def test_processes_share_the_global_batches():
    alone = first(StepBatches(SIZES, 16, seed=1), 20)
    shares = [first(StepBatches(SIZES, 8, seed=1, rank=r, world=2), 20) for r in (0, 1)]
    assert [sorted(a) for a in alone] == [sorted(x + y) for x, y in zip(*shares, strict=True)]


def test_collate_pads_states_with_the_origin_and_conditions_with_zeros():
    space = Product(x=Centered(), r=SO3(), g=Euclidean(2, on="graph"))
    items = [
        ({"x": torch.randn(n, 3), "r": torch.eye(3).repeat(n, 1, 1), "g": torch.ones(2)},
         {"residue": torch.arange(n), "label": torch.tensor(n)})
        for n in (2, 4)
    ]  # fmt: skip
    x, context = collate(space, items)
    assert x["x"].shape == (2, 4, 3)
    assert torch.equal(x["r"][0, 3], torch.eye(3))
    assert context.mask.sum(1).tolist() == [2, 4]
    assert context.cond["residue"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert context.cond["label"].tolist() == [2, 4]
