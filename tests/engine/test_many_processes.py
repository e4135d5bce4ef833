"""Several processes train, validate and sample as one: real processes that meet through gloo on this machine.

Whatever is random is fixed here by the datum itself (its noise and its time are functions of its coordinates), so that
one process with the global batch and two with half of it each must make the same numbers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fm_science.couplings import GatherRanks, Transport
from fm_science.couplings.ranks import gatherer
from fm_science.data import StepBatches, TrainingData, validation_loader
from fm_science.errors import OptionError
from fm_science.sampling import Drawing, draw, draw_shared
from fm_science.spaces import Euclidean
from fm_science.state import Context
from fm_science.training import Optimizer, Trainer, fit
from fm_science.training.callbacks import read_metrics
from fm_science.training.module import over_ranks
from tests import toy

Work = Callable[..., None]


def _process(rank: int, world: int, port: int, work: Work, folder: str, group: bool) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
                   "WORLD_SIZE": str(world), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}  # fmt: skip
    torch.set_num_threads(1)
    if group:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    work(rank, world, Path(folder))
    if group:
        torch.distributed.destroy_process_group()


def together(work: Work, folder: Path, world: int = 2, group: bool = True) -> None:
    """``work(rank, world, folder)`` in ``world`` processes; raises what the first of them to fail raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, args=(world, port, work, str(folder), group), nprocs=world)


# --------------------------------------------------------------------------------- one batch, whoever holds its parts


def _noise(x1: torch.Tensor) -> torch.Tensor:
    return torch.sin(37 * x1) + torch.cos(53 * x1.flip(-1))


def _primitives(rank: int, world: int, folder: Path) -> None:
    """Transport over all, the mean of a ragged batch with its gradient, and shared sampling."""
    generator = torch.Generator().manual_seed(rank)
    x0, x1 = (torch.randn(16, 1, 2, generator=generator) for _ in range(2))
    space, context = Euclidean(2).bind(Context.full(16)), Context.full(16)
    paired = Transport(gather=gatherer("all")).pair(space, x0, x1, context)[0]
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    mine = x1[: 5 + 6 * rank, 0]  # batches of 5 and 11
    mean = (mine @ weight).square().mean()
    seen, share = over_ranks({"loss": mean.detach()}, len(mine))
    (mean * share).backward()
    torch.distributed.all_reduce(weight.grad)
    drawn = [(first, torch.stack(samples)) for first, samples, _ in _samples(rank, world)]
    found = {"x0": x0, "x1": x1, "paired": paired, "loss": seen["loss"], "gradient": weight.grad / world,
             "mine": mine, "drawn": drawn}  # fmt: skip
    torch.save(found, folder / f"{rank}-{world}.pt")


PLAN = Drawing(n=7, seed=3, batch=2, steps=3, first=1)


def _samples(rank: int, world: int) -> Any:
    torch.manual_seed(0)
    domain = toy.build(network={"width": 8})
    return draw_shared(domain, domain.flow(), PLAN)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("two")
    together(_primitives, folder)
    return [torch.load(folder / f"{rank}-2.pt") for rank in range(2)]


def test_transport_over_all_processes_is_that_of_one(two: list[dict[str, Any]]) -> None:
    x0, x1, paired = (torch.cat([found[name] for found in two]) for name in ("x0", "x1", "paired"))
    context = Context.full(32)
    assert torch.equal(paired, Transport().pair(Euclidean(2).bind(context), x0, x1, context)[0])


def test_parts_of_unequal_size_have_the_loss_and_the_gradient_of_the_whole(two: list[dict[str, Any]]) -> None:
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    whole = (torch.cat([found["mine"] for found in two]) @ weight).square().mean()
    whole.backward()
    for found in two:
        assert torch.allclose(found["loss"], whole, rtol=1e-6)
        assert torch.allclose(found["gradient"], weight.grad, rtol=1e-6)


def check_samples(found: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    domain = toy.build(network={"width": 8})
    alone = [(first, torch.stack(samples)) for first, samples, _ in draw(domain, domain.flow(), PLAN)]
    assert [first for first, _ in found[0]["drawn"]] == [first for first, _ in alone] == [1, 3, 5, 7]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found[0]["drawn"], alone, strict=True))
    assert all(not other["drawn"] for other in found[1:]), "the first process alone gets them"


def test_two_processes_draw_the_samples_of_one(two: list[dict[str, Any]]) -> None:
    check_samples(two)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 3])
def test_any_number_of_processes_draws_the_samples_of_one(tmp_path: Path, world: int) -> None:
    together(_primitives, tmp_path, world)
    check_samples([torch.load(tmp_path / f"{rank}-{world}.pt") for rank in range(world)])


def test_one_process_asks_nobody() -> None:
    means = {"loss": torch.tensor(3.0)}
    assert over_ranks(means, 5) == (means, 1.0)
    assert gatherer("own") is None
    assert isinstance(gatherer("all"), GatherRanks)
    with pytest.raises(OptionError, match="in_workers=false"):
        gatherer("all", in_workers=True)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_batches_and_their_order_do_not_depend_on_the_number_of_processes(world: int) -> None:
    """A batch of 42 data, whole or in parts: the same data in the same step (but for a last batch of fewer data than
    processes, which is filled up)."""
    sizes = torch.randint(5, 50, (336,), generator=torch.Generator().manual_seed(0))
    whole = StepBatches(sizes, 42, seed=4).plan(2)
    parts = [StepBatches(sizes, 42 // world, seed=4, rank=rank, world=world).plan(2) for rank in range(world)]
    assert all(part == whole for part in parts)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_held_out_batches_are_shared_and_keep_their_numbers(world: int) -> None:
    domain = toy.build()
    data = TrainingData(domain.data.train, domain.data.validation, batch=10)
    alone = {k: x for k, x, _ in validation_loader(data, domain.path.space)}
    shares = [list(validation_loader(data, domain.path.space, 256, rank, world)) for rank in range(world)]
    found = {k: x for share in shares for k, x, _ in share}
    assert sum(map(len, shares)) == len(alone) == 7
    assert found.keys() == alone.keys()
    assert all(torch.equal(found[k], alone[k]) for k in alone)
    many = [list(validation_loader(data, domain.path.space, 256, rank, 8)) for rank in range(8)]
    assert all(len(share) == 7 for share in many), "fewer batches than processes: each has all of them"


# --------------------------------------------------------------------------------------------------- whole trainings


def _domain(batch: int) -> Any:
    """The circle, with noise and times that belong to the data."""
    from dataclasses import replace

    torch.manual_seed(0)
    domain = toy.build(data={"batch": batch, "n": 60}, network={"width": 8})

    def objective(flow: Any, x1: torch.Tensor, context: Context, x0: Any = None) -> dict[str, torch.Tensor]:
        x0, t = _noise(x1), 0.05 + 0.9 * torch.sin(91 * x1.sum((1, 2))).square()
        path = flow.path.bind(context)
        xt = path.sample(x0, x1, t)
        return {"flow": path.loss(flow.network(xt, t, context), x0, x1, xt, t)}

    return replace(domain, objective=objective)


def _train(world: int, folder: Path) -> None:
    options = Trainer(
        max_steps=6, accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", log_every=1,
        validate_every=3, validation_data=50, validation_samples=0, checkpoint_every=6, progress=False, threads=0,
    )  # fmt: skip
    fit(_domain(24 // world), options, Optimizer(lr=1e-2, warmup=1), folder, seed=5)


def _train_here(rank: int, world: int, folder: Path) -> None:
    _train(world, folder / "run")


def test_two_processes_train_and_validate_as_one_with_the_same_global_batch(tmp_path: Path) -> None:
    _train(1, tmp_path / "one")
    together(_train_here, tmp_path, group=False)
    a, b = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "run"))
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for one, two in zip(a, b, strict=True):
        for name in one:
            if name != "seconds" and "time" not in name:
                assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-6), name
    weights = [torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("one", "run")]
    for name, weight in weights[0]["state_dict"].items():
        torch.testing.assert_close(weights[1]["state_dict"][name], weight, rtol=1e-5, atol=1e-6)


def _failing(rank: int, world: int, folder: Path) -> None:
    if rank == 1:
        raise ValueError("the second process has no data")
    torch.distributed.barrier()


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="the second process has no data"):
        together(_failing, tmp_path)

