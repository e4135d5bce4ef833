"""What the benchmarks of molecules rest on: a judge that sees molecules alone, and rows to read it by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import molecule_properties as properties
from fm_science.data import collate
from fm_science_domains.molecule import build
from fm_science_domains.molecule.data import Data, load


@pytest.fixture(scope="module")
def bench() -> properties.Bench:
    domain = build(data={"limit": 300})
    counts = {k: part.space.classes for k, part in domain.path.parts.items() if k != "positions"}
    return properties.Bench(domain.path.space, counts, ("gap", "mu"))


def test_the_judge_learns_from_molecules_that_the_generator_has_not_seen() -> None:
    options = Data(limit=300)
    full, rest = properties.unseen(options)
    seen = set(load(options).train.pack.names.tolist())
    assert len(seen) == 300
    assert not seen & set(rest.pack.names.tolist())
    assert len(rest) == len(full.train) - 300
    assert properties.unseen(Data())[1].pack.names.tolist() == full.validation.pack.names.tolist()


def test_the_judge_does_not_see_pose_or_order(bench: properties.Bench) -> None:
    torch.manual_seed(0)
    data = load(Data(limit=300)).train
    items = [bench.points(data)[i] for i in range(4)]
    judge = properties.Judge(properties.Kinds.of(bench.counts, 1.0, False, {}), {"gap": (7.0, 1.0), "mu": (2.0, 1.0)})
    judge = judge.double()
    state, context = collate(bench.space, items)
    state = {k: v.double() for k, v in state.items()}
    q = torch.linalg.qr(torch.randn(3, 3).double())[0]
    turned = {**state, "positions": state["positions"] @ (q * torch.linalg.det(q))}
    n = context.mask.shape[1]
    order = torch.randperm(n)
    moved = {k: v[:, order][:, :, order] if k == "bonds" else v[:, order] for k, v in state.items()}
    there = judge(state, context)
    assert torch.allclose(there, judge(turned, context), atol=1e-9)
    assert torch.allclose(there, judge(moved, properties.Context(context.mask[:, order])), atol=1e-9)
    assert there.shape == (4, 2)


def test_rows_to_read_errors_by() -> None:
    rows, kinds = np.arange(60.0).reshape(30, 2), np.repeat([0, 1, 2], 10)
    mixed = properties.shuffled(rows, kinds)
    for kind in range(3):
        assert sorted(mixed[kinds == kind, 0]) == sorted(rows[kinds == kind, 0])
    assert (mixed[:, 1] == mixed[:, 0] + 1).all()
    (first, spread), (second, _) = properties.error(rows, rows + np.array([1.0, -2.0]))
    assert (first, second) == (1.0, 2.0)
    assert spread == 0
    assert np.isnan(properties.error(rows[:0], rows[:0])[0][0])


def test_molecules_become_batches_in_their_order(bench: properties.Bench) -> None:
    data = load(Data(limit=300)).train
    molecules = list(data.pack)[:7]
    made = list(bench.batches(data, molecules, size=3))
    assert [context.size for _, context in made] == [3, 3, 1]
    assert torch.cat([context.mask.sum(1) for _, context in made]).tolist() == [len(m) for m in molecules]
    assert bench.told(molecules).shape == (7, 2)
