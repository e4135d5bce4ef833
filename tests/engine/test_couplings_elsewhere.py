"""Couplings away from the training step: over all processes of a run, and in the processes that load data."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import pytest
import torch

from fm_science.couplings import (
    GatherRanks,
    Independent,
    Paired,
    PrefetchedCoupling,
    Semidiscrete,
    Sinkhorn,
    Transport,
    Unbalanced,
)
from fm_science.data import TrainingData, train_loader
from fm_science.flow import Flow
from fm_science.likelihood import elbo
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.predictions import Posterior
from fm_science.priors import Classes, Normal, ProductPrior, Uniform
from fm_science.sampling import Drawing, draw
from fm_science.spaces import Categorical, Centered, Euclidean, frames
from fm_science.state import Context, leaves, take, tree_map
from fm_science.symmetries import Permutations, Rotations
from fm_science.training import Optimizer, Trainer, fit
from tests import toy


def cut(state, rows, sites=None):
    return tree_map(lambda v: v[rows] if sites is None else v[rows, :sites], state)


@pytest.mark.parametrize(
    "coupling", [Transport, lambda **k: Transport(plan=Sinkhorn(0.1), **k), lambda **k: Transport(Rotations(), **k)]
)
def test_processes_that_gather_pair_as_one_process_would(coupling):
    torch.manual_seed(0)
    sizes = torch.tensor([4, 4, 4, 4, 4, 3, 3])  # the second process has a batch of its own length and padding
    context = Context(torch.arange(4) < sizes[:, None])
    space = Centered().bind(context)
    x0, x1 = space.project(torch.randn(7, 4, 3)), space.project(torch.randn(7, 4, 3))
    parts = []
    for rows, longest in ((slice(0, 5), 4), (slice(5, 7), 3)):
        mine = Context(context.mask[rows, :longest])
        parts.append((cut(x0, rows, longest), cut(x1, rows, longest), mine, 17))
    torch.manual_seed(17)
    whole = coupling().pair(space, x0, x1, context)[0]
    got = []
    for rank, (a, b, mine, _) in enumerate(parts):
        hook = lambda batch, rank=rank: (parts, rank)  # noqa: E731
        paired, data, after = coupling(gather=hook).pair(Centered().bind(mine), a, b, mine)
        assert data is b
        assert after is mine
        assert paired.shape == b.shape
        got.append(paired)
    assert torch.allclose(got[0], whole[:5], atol=1e-5)
    assert torch.allclose(got[1], whole[5:, :3], atol=1e-5)
    alone = GatherRanks()((x0, x1, context, 1))
    assert len(alone[0]) == 1
    assert alone[1] == 0


def test_weights_find_their_way_back_to_their_rank():
    torch.manual_seed(0)
    x0, x1, context = torch.randn(6, 1, 2), torch.randn(6, 1, 2), Context.full(6)
    parts = [(x0[r], x1[r], Context.full(3), 5) for r in (slice(0, 3), slice(3, 6))]
    torch.manual_seed(5)
    whole = Transport(plan=Unbalanced(0.1)).pair(Euclidean(2).bind(context), x0, x1, context)[2].cond["weight"]
    hook = lambda batch: (parts, 1)  # noqa: E731
    mine = Transport(plan=Unbalanced(0.1), gather=hook).pair(Euclidean(2).bind(parts[1][2]), *parts[1][:3])[2]
    assert torch.allclose(mine.cond["weight"], whole[3:])


def _process(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(rank)
    x0, x1, context = torch.randn(16, 1, 2), torch.randn(16, 1, 2), Context.full(16)
    paired, _, _ = Transport(gather=GatherRanks()).pair(Euclidean(2).bind(context), x0, x1, context)
    torch.save((x0, x1, paired), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_real_processes_solve_one_problem(tmp_path):
    torch.multiprocessing.spawn(_process, args=(29571, str(tmp_path)), nprocs=2)
    x0, x1, paired = (torch.cat(v) for v in zip(*(torch.load(tmp_path / f"{r}.pt") for r in (0, 1)), strict=True))
    context = Context.full(32)
    assert torch.equal(paired, Transport().pair(Euclidean(2).bind(context), x0, x1, context)[0])


class Chains:
    """A data set of frames of two sizes."""

    sizes = torch.tensor([3, 4] * 8)

    def __len__(self):
        return 16

    def __getitem__(self, i):
        n = int(self.sizes[i])
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(n, 3, generator=generator)
        return {"translations": x - x.mean(0), "rotations": torch.eye(3).expand(n, 3, 3)}, {"number": torch.tensor(i)}


def batches(coupling, workers, poses=(), start=0, count=4):
    prior = ProductPrior(translations=Normal(), rotations=Uniform())
    data = TrainingData(Chains(), Chains(), batch=8, workers=workers)
    prepare = coupling.preparation(frames(), prior, poses)
    loader = iter(train_loader(data, frames(), 7, lambda: start, 0, 1, prepare))
    return [next(loader) for _ in range(count)]


def same(a, b):
    return all(torch.equal(u, v) for u, v in zip(leaves(a), leaves(b), strict=True))


def test_workers_pair_the_same_wherever_they_run_and_whenever_they_start():
    coupling = PrefetchedCoupling(Transport(Rotations(), ignore=("number",)))
    torch.manual_seed(1)
    here = batches(coupling, 0)
    torch.manual_seed(2)
    for other in (batches(coupling, 2), [None, *batches(coupling, 0, start=1, count=3)]):
        for a, b in zip(here, other, strict=True):
            assert b is None or (same(a[0], b[0]) and same(a[2], b[2]) and torch.equal(a[1].mask, b[1].mask))
    assert not same(here[0][2], here[1][2])


def test_what_a_worker_pairs_is_a_transport_of_data_in_random_poses():
    pairs = PrefetchedCoupling(Transport(Rotations(), ignore=("number",)))
    x1, context, x0 = batches(pairs, 0, (Rotations(),), count=1)[0]
    space = frames().bind(context)
    again = Transport(Rotations(), ignore=("number",)).pair(space, x0, x1, context)[0]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(leaves(again), leaves(x0), strict=True))
    assert not torch.allclose(x1["rotations"][0, 0], torch.eye(3), atol=1e-2)


def test_noise_that_was_paired_early_is_not_paired_again():
    calls = []

    class Counting(Transport):
        def pair(self, *args):
            calls.append(1)
            return super().pair(*args)

    flow, x1, context = toy.build().flow(), torch.randn(8, 1, 2), Context.full(8)
    objective = FlowMatching(coupling=PrefetchedCoupling(Counting()))
    objective(flow, x1, context, torch.randn(8, 1, 2))
    assert not calls
    objective(flow, x1, context)
    assert len(calls) == 1
    FlowMatching(coupling=Counting())(flow, x1, context, torch.randn(8, 1, 2))
    assert len(calls) == 2, "other couplings pair noise that comes along"


def test_training_with_worker_pairs_is_the_same_for_any_number_of_workers(tmp_path):
    weights = []
    for workers in (0, 1):
        torch.manual_seed(0)
        domain = toy.build()
        objective = replace(domain.objective, coupling=PrefetchedCoupling(Transport()))
        domain = replace(domain, objective=objective, data=replace(domain.data, workers=workers))
        trainer = Trainer(max_steps=3, validate_every=3, progress=False, accelerator="cpu")
        flow = fit(domain, trainer, Optimizer(), tmp_path / str(workers), 3)
        weights.append(torch.cat([p.detach().flatten() for p in flow.parameters()]))
    assert torch.equal(*weights)


def test_in_workers_declares_what_its_coupling_does_and_refuses_to_gather():
    assert PrefetchedCoupling(Independent()).independent
    assert not PrefetchedCoupling(Transport()).independent
    assert PrefetchedCoupling(Transport()).pre_paired
    assert Paired().pre_paired
    assert not Transport().pre_paired
    with pytest.raises(ValueError, match="process group"):
        PrefetchedCoupling(Transport(gather=GatherRanks()))
    work = PrefetchedCoupling(Transport(Permutations())).preparation(Centered(), Normal())
    x1 = torch.randn(3, 4, 3)
    x1 = x1 - x1.mean(1, keepdim=True)
    state = torch.get_rng_state()
    first, second = work(x1, Context.full(3, 4), 5), pickle.loads(pickle.dumps(work))(x1, Context.full(3, 4), 5)
    assert torch.equal(first[2], second[2])
    assert not torch.equal(first[2], work(x1, Context.full(3, 4), 6)[2])
    assert torch.equal(take(first[0], torch.arange(3)), x1)
    assert torch.equal(state, torch.get_rng_state())


def gathered():
    x, context = torch.randn(3, 1, 2), Context.full(3)
    parts = [(x, x, context, 5)] * 2
    Transport(gather=lambda batch: (parts, 0)).pair(Euclidean(2), x, x, context)


def in_a_worker():
    PrefetchedCoupling(Independent()).preparation(Euclidean(2), Normal())(torch.randn(3, 1, 2), Context.full(3), 5)


def fitted():
    data = Semidiscrete(torch.randn(2, 1, 2), Context.full(2))
    data.fit(Euclidean(2), Normal(), iterations=2, batch=4, probes=8, tolerance=1.0)


def bounded():
    kinds = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), lambda x, t, c: x)
    elbo(kinds, torch.eye(2)[:, None], Context.full(2), draws=1, seed=5)


def sampled():
    list(draw(toy.build(), toy.build().flow(), Drawing(2, seed=5, steps=1)))
    toy.build().flow().sample(Context.full(2), steps=1, seed=5)


@pytest.mark.parametrize("work", [gathered, in_a_worker, fitted, bounded, sampled])
def test_seeds_reach_the_generators_that_are_restored_and_no_others(work, monkeypatch):
    """What pairs alike on every process must not give their accelerators the same noise from there on."""
    seeds = []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, seeds.append)
    work()
    assert not seeds
