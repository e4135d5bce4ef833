"""Optimal transport solved where batches are made: what is left of the speed of training with independent noise.

The step is made to cost as much as the transport, the hardest case in which a single worker can keep up. Both sides
load their data with one worker, and each process computes with one thread. Wall times need two free cores; the row in
CPU time, that of the busier of the two processes, says what they would be there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.duel import Duel
from benchmarks.rivals import Field
from fm_science.couplings import Coupling, Independent, PrefetchedCoupling, Transport
from fm_science.data import TrainingData, train_loader
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Euclidean
from fm_science.state import Context

WARM = 4  #: steps before the clock starts: more than a loader fetches in advance


class Points:
    """Normal vectors around eight centres, one site each."""

    def __init__(self, n: int, dim: int) -> None:
        centres = 2 * torch.randn(8, dim)
        self.points = (0.5 * torch.randn(n, dim) + centres[torch.randint(8, (n,))])[:, None]
        self.sizes = torch.ones(n, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.points[index], {}


def transport_in_worker(runs: int, batch: int = 1024, dim: int = 64, steps: int = 10) -> list[Duel]:
    """Throughput with exact transport in the data worker, and with the same transport in the training step, each beside
    independent noise."""
    torch.manual_seed(0)
    data = TrainingData(Points(16 * batch, dim), Points(1, dim), batch=batch, workers=1)
    solve, depth = _balanced(data.train, batch, dim)
    name = f"steps of {solve:.0f} ms (MLP {depth}x512), OT {batch} in {dim}-d"
    ours, theirs = [], []
    for _ in range(runs):
        theirs.append(_pace(data, dim, depth, Independent(), steps))
        ours.append(_pace(data, dim, depth, PrefetchedCoupling(Transport()), steps))
    (wall, busy), (free_wall, free_busy) = (tuple(zip(*side, strict=True)) for side in (ours, theirs))
    return [
        Duel(f"{name}, in a worker: CPU", "independent noise", 1 / 0.9, busy, free_busy),
        Duel(f"{name}, in a worker: wall", "independent noise", 1 / 0.9, wall, free_wall),
    ]


def _balanced(points: Any, batch: int, dim: int) -> tuple[float, int]:
    """What the transport costs in ms on average over batches, as pace is kept on average, and the depth of a perceptron
    whose training step costs as much."""
    context, space = Context.full(batch), Euclidean(dim)
    coupling, bound = Transport(), space.bind(context)

    def drawn() -> Tensor:
        return points.points[torch.randperm(len(points))[:batch]]

    solve = _mean(lambda: coupling.pair(bound, Normal().sample(space, context), drawn(), context))
    x1 = drawn()
    shallow, deep = (_mean(_stepper(dim, depth, Independent(), x1, context)) for depth in (2, 6))
    return solve, max(1, round(2 + 4 * (solve - shallow) / (deep - shallow)))


def _mean(work: Callable[[], object], n: int = 16) -> float:
    """The mean CPU time in ms of a call."""
    work()
    start = time.process_time()
    for _ in range(n):
        work()
    return 1e3 * (time.process_time() - start) / n


def _trainer(dim: int, depth: int, coupling: Coupling) -> Callable[..., None]:
    flow = Flow(Geodesic(Euclidean(dim)), Normal(), Field(dim, 512, depth))
    objective, optimizer = FlowMatching(coupling), torch.optim.Adam(flow.parameters(), 1e-4)

    def train(x1: Tensor, context: Context, *x0: Tensor) -> None:
        loss = objective(flow, x1, context, *x0)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


def _stepper(dim: int, depth: int, coupling: Coupling, x1: Tensor, context: Context) -> Callable[[], None]:
    train = _trainer(dim, depth, coupling)
    return lambda: train(x1, context)


def _pace(data: TrainingData, dim: int, depth: int, coupling: Coupling, steps: int) -> tuple[float, float]:
    """The wall time of a step in ms, and the CPU time of the busier process, once the loader runs steadily."""
    train, batches = _trainer(dim, depth, coupling), _batches(data, Euclidean(dim), coupling)
    for batch in itertools.islice(batches, WARM):
        train(*batch)
    start = (time.perf_counter(), time.process_time(), _workers())
    for batch in itertools.islice(batches, steps):
        train(*batch)
    end = (time.perf_counter(), time.process_time(), _workers())
    wall, main, worker = (1e3 * (b - a) / steps for a, b in zip(start, end, strict=True))
    return wall, max(main, worker)


def _workers() -> float:
    """The CPU time in seconds that the living data workers have used."""
    import psutil

    spent = [child.cpu_times() for child in psutil.Process().children()]
    return sum(t.user + t.system for t in spent)


def _batches(data: TrainingData, space: Any, coupling: Coupling) -> Iterator[Any]:
    prepare = coupling.preparation(space, Normal()) if isinstance(coupling, PrefetchedCoupling) else None
    return iter(train_loader(data, space, 0, lambda: 0, 0, 1, prepare))
