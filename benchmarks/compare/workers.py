"""Optimal transport solved where batches are made: what is left of the speed of training with independent noise.

The step is made to cost as much as the transport, the hardest case in which a single worker can keep up. Both sides
load their data with one worker, and each process computes with one thread. Wall times need two free cores; the row in
CPU time, that of the busier of the two processes, says what they would be there.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.compare.duel import Duel, elapsed
from benchmarks.compare.rivals import stepper
from benchmarks.training import Perceptron
from fm_science.couplings import Coupling, Independent, PrefetchedCoupling, Transport
from fm_science.data import TrainingData, train_loader
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
    """Throughput with exact transport in the data worker beside independent noise."""
    torch.manual_seed(0)
    points = Points(16 * batch, dim)
    data = TrainingData(points, Points(1, dim), batch=batch, workers=1)
    solve, depth = _balanced(points, batch, dim)
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


def _balanced(points: Points, batch: int, dim: int) -> tuple[float, int]:
    """What the transport costs in ms on average over batches, as pace is kept on average, and the depth of a perceptron
    whose training step costs as much."""
    context, space = Context.full(batch), Euclidean(dim)
    coupling, bound = Transport(), space.bind(context)

    def drawn() -> Tensor:
        return points.points[torch.randperm(len(points))[:batch]]

    def mean(work: Callable[[], object]) -> float:
        work()
        return 1e3 * elapsed(work, 16, time.process_time) / 16

    solve = mean(lambda: coupling.pair(bound, Normal().sample(space, context), drawn(), context))
    steps, x1 = [stepper(Perceptron(dim, 512, depth), dim) for depth in (2, 6)], drawn()
    shallow, deep = (mean(lambda step=step: step(x1, context)) for step in steps)
    return solve, max(1, round(2 + 4 * (solve - shallow) / (deep - shallow)))


def _pace(data: TrainingData, dim: int, depth: int, coupling: Coupling, steps: int) -> tuple[float, float]:
    """The wall time of a step in ms, and the CPU time of the busier process, once the loader runs steadily."""
    train, space = stepper(Perceptron(dim, 512, depth), dim, coupling), Euclidean(dim)
    prepare = coupling.preparation(space, Normal()) if isinstance(coupling, PrefetchedCoupling) else None
    batches = iter(train_loader(data, space, 0, lambda: 0, 0, 1, prepare))
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
