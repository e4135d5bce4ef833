"""Batches: a function of (seed, k), similar sizes together, shared fairly among processes."""

from __future__ import annotations

import itertools

import pytest
import torch

from fm_science.data import StepBatches, collate, step_seed
from fm_science.errors import UserError
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
         {"residue": torch.arange(n), "label": torch.tensor(n), "bonds": torch.ones(n, n)})
        for n in (2, 4)
    ]  # fmt: skip
    x, context = collate(space, items)
    assert x["x"].shape == (2, 4, 3)
    assert torch.equal(x["r"][0, 3], torch.eye(3))
    assert context.mask.sum(1).tolist() == [2, 4]
    assert context.cond["residue"].tolist() == [[0, 1, 0, 0], [0, 1, 2, 3]]
    assert context.cond["label"].tolist() == [2, 4]
    assert context.cond["bonds"].sum((1, 2)).tolist() == [4, 16]
    assert context.cond["bonds"][0, :2, :2].all()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize(("sizes", "budget"), [
    (torch.tensor([10] * 40 + [100] * 5), 5000), (SIZES, 16 * 30**2), (SIZES[:37], 0), (SIZES[:1], 0), (SIZES[:5], 1),
])  # fmt: skip
def test_no_datum_is_left_out_whatever_its_size_and_the_number_of_processes(sizes, budget, world):
    batches = StepBatches(sizes, 8, budget, world=world)
    plan = batches.plan(0)
    assert {i for b in plan for i in b} == set(range(len(sizes)))
    assert all(world <= len(b) <= 8 * world for b in plan)
    assert all(len(b) * int(sizes[b].max()) ** 2 <= budget * world for b in plan if budget and len(b) > world)
    twice = sum(map(len, plan)) - len(sizes)
    assert twice < world, "only what fills the last batch is repeated"
    assert plan == StepBatches(sizes, 8, budget, world=world).plan(0)


def test_a_small_data_set_is_repeated_until_each_process_has_a_datum():
    for rank in (0, 1):
        assert first(StepBatches(torch.tensor([5]), 4, rank=rank, world=2), 3) == [[0], [0], [0]]


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="the training set is empty"):
        first(StepBatches(torch.zeros(0, dtype=torch.long), 4), 1)


def padding(batches, sizes):
    return sum(len(b) * int(sizes[b].max()) for b in batches)


@pytest.mark.parametrize("sizes", [
    torch.arange(300) + 50,
    60 + (400 * torch.rand(300, generator=torch.Generator().manual_seed(0)) ** 2).long(),
    (18 + 3 * torch.randn(300, generator=torch.Generator().manual_seed(0))).round().clamp(3, 29).long(),
], ids=["all different", "proteins", "molecules"])  # fmt: skip
def test_a_batch_has_other_members_in_each_pass_and_little_more_padding(sizes):
    batches = StepBatches(sizes, 16)
    a, b = ({frozenset(batch) for batch in batches.plan(epoch)} for epoch in (0, 1))
    assert len(a & b) <= 1
    least = padding(sizes.argsort().split(16), sizes)
    assert sum(padding(batches.plan(epoch), sizes) for epoch in range(10)) < 1.04 * 10 * least


def test_seeds_of_steps_are_seeds_that_torch_takes():
    for seed in (0, 5_000_000_000, 2**64 - 1):
        torch.Generator().manual_seed(step_seed(seed, 10**7, 3))
        assert StepBatches(SIZES, 16, seed=seed).plan(3) != StepBatches(SIZES, 16, seed=seed).plan(4)
