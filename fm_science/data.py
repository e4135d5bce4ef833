"""Data for training steps: padded batches whose order depends on a seed and the step's number alone.

A data point is an unbatched state with its conditions. Batches combine data of similar size, so that there is little
padding. The k-th batch is a function of (seed, k): a run that stops and resumes gets exactly the batches it would have
had, and the order does not depend on how many processes share the work.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from fm_science.errors import OptionError, UserError
from fm_science.seeds import SEEDS
from fm_science.spaces.base import Space
from fm_science.state import Context, State

Item = tuple[State, Mapping[str, Tensor]]

JITTER = 0.75  #: how far sizes are shuffled before they are split into batches, in batches


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of all random numbers in one training step of one process."""
    return ((seed * 1_000_003 + step) * 4_099 + rank) % SEEDS


class Dataset(Protocol):
    """A map-style data set of items; ``sizes`` ``(len,)`` is the number of sites of each."""

    sizes: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item: ...


@dataclass(frozen=True)
class TrainingData:
    """What a domain trains on.

    Args:
        train: the training set.
        validation: the held-out set.
        batch: items per batch.
        budget: with a positive value, at most this many padded pairs of sites (items times squared size) per batch.
        workers: processes that prepare batches; 0: none.
        source: all that the domain has read, for its own use in evaluation.
        digest: the SHA-256 of the data, where a prepared file tells it; kept in the run.

    Raises:
        OptionError: for more workers than a machine can start.
    """

    train: Dataset
    validation: Dataset
    batch: int = 32
    budget: int = 0
    workers: int = 0
    source: Any = None
    digest: str = ""

    def __post_init__(self) -> None:
        most = max(64, 4 * (os.cpu_count() or 1))
        if not 0 <= self.workers <= most:
            raise OptionError(f"data.workers={self.workers}: expected a number of processes from 0 to {most}")


def collate(space: Space, items: Sequence[Item]) -> tuple[State, Context]:
    """A padded batch and its context. Conditions of equal shape are stacked, others padded with zeros along the axes
    that differ: sites, or both ends of edges."""
    points, conditions = zip(*items, strict=True)
    counts = torch.tensor([space.num_sites(p) for p in points])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    cond = {name: _padded([c[name] for c in conditions]) for name in conditions[0]}
    return space.pad_batch(points), Context(mask, cond)


def _padded(values: Sequence[Tensor]) -> Tensor:
    if len({v.shape for v in values}) == 1:
        return torch.stack(list(values))
    sizes = [max(v.shape[axis] for v in values) for axis in range(values[0].ndim)]
    padded = values[0].new_zeros(len(values), *sizes)
    for row, v in zip(padded, values, strict=True):
        row[tuple(slice(size) for size in v.shape)] = v
    return padded


class StepBatches(Sampler[list[int]]):
    """An endless sampler whose k-th batch depends on (seed, k) only.

    Args:
        sizes: ``(n,)`` number of sites of each data point.
        batch: data points per batch and process.
        budget: maximum of padded site pairs per batch and process, but at least one data point; 0: no limit.
        seed: of the order.
        start: the number of the first batch, read when iteration begins (a trainer's global step).
        rank: which process this is, of ``world``.

    Raises:
        UserError: when iteration begins and there are no data.
    """

    def __init__(
        self, sizes: Tensor, batch: int, budget: int = 0, seed: int = 0, start: Callable[[], int] = lambda: 0,
        rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.sizes, self.batch, self.budget, self.seed = sizes, batch, budget, seed
        self.start, self.rank, self.world = start, rank, world

    def plan(self, epoch: int) -> list[list[int]]:
        """The global batches of one pass over the data: similar sizes together, in random order.

        Neighbours in size are exchanged at random, so that a batch has other members in each pass. Every data point is
        used. A batch has one for each process even if the budget allows less, and where there are too few data at the
        end of a pool some are used twice.
        """
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % SEEDS)
        order = torch.randperm(len(self.sizes), generator=generator)
        whole = self.batch * self.world
        batches: list[list[int]] = []
        for pool in order.split(32 * whole):
            pool = pool[self.sizes[pool].argsort(stable=True)]
            places = torch.arange(len(pool)) + JITTER * whole * torch.rand(len(pool), generator=generator)
            batches += self._cut(pool[places.argsort()].tolist())
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]

    def _cut(self, pool: list[int]) -> list[list[int]]:
        """Batches of neighbours, each of at least one data point per process."""
        whole, budget = self.batch * self.world, self.budget * self.world
        batches: list[list[int]] = [[]]
        largest = 0
        for index, size in zip(pool, self.sizes[pool].tolist(), strict=True):
            last, largest = batches[-1], max(largest, size)
            full = len(last) == whole or (budget and (len(last) + 1) * largest**2 > budget)
            if full and len(last) >= self.world:
                batches.append([index])
                largest = size
            else:
                last.append(index)
        if len(batches[-1]) < self.world:
            batches[-1] = (pool[-self.world :] * self.world)[-self.world :]
        return [batch for batch in batches if batch]

    def __iter__(self) -> Iterator[list[int]]:
        if not len(self.sizes):
            raise UserError("the training set is empty: there is nothing to learn from. Check the options of the data.")
        k = self.start()
        for epoch in itertools.count():
            plan = self.plan(epoch)
            for batch in plan[k:]:
                yield batch[self.rank :: self.world]
            k = max(0, k - len(plan))


class _Numbered(Sampler[list[tuple[int, int]]]):
    """The batches of ``order``, each index with the number of its batch: ``(k, index)``."""

    def __init__(self, order: StepBatches) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for k, batch in enumerate(self.order, self.order.start()):
            yield [(k, index) for index in batch]


@dataclass(frozen=True)
class _Tagged:
    """A data set whose items include the number of their batch."""

    data: Dataset

    def __getitem__(self, tag: tuple[int, int]) -> tuple[int, Item]:
        return tag[0], self.data[tag[1]]


Prepare = Callable[[State, Context, int], Any]  # (x1, context, seed) -> input of a training step


def _prepared(space: Space, prepare: Prepare, seed: int, rank: int, items: Sequence[tuple[int, Item]]) -> Any:
    """A padded batch after ``prepare``, whose randomness depends on (seed, k, rank) only."""
    number = step_seed(seed, items[0][0], rank)
    return prepare(*collate(space, [item for _, item in items]), (2 * number + 1) % SEEDS)


def train_loader(
    data: TrainingData, space: Space, seed: int, start: Callable[[], int], rank: int, world: int,
    prepare: Prepare | None = None,
) -> DataLoader:  # fmt: skip
    """The endless loader of training batches ``(x1, context)``. With ``prepare`` it is applied to each batch, in the
    process that loaded the batch."""
    order = StepBatches(data.train.sizes, data.batch, data.budget, seed, start, rank, world)
    gather = partial(collate, space) if prepare is None else partial(_prepared, space, prepare, seed, rank)
    return DataLoader(
        data.train if prepare is None else _Tagged(data.train),  # type: ignore[arg-type]
        batch_sampler=order if prepare is None else _Numbered(order),
        collate_fn=gather, num_workers=data.workers, persistent_workers=data.workers > 0,
    )  # fmt: skip


def validation_loader(data: TrainingData, space: Space, most: int = 256, rank: int = 0, world: int = 1) -> DataLoader:
    """Batches ``(k, x1, context)`` of up to ``most`` held-out data, always the same ones in the same order; ``k`` is
    the number of the batch. Processes share them, unless there are fewer batches than processes: then each has all."""
    chosen = torch.randperm(len(data.validation), generator=torch.Generator().manual_seed(0))[:most].sort().values
    plan = StepBatches(data.validation.sizes[chosen], data.batch, data.budget).plan(0)
    batches = [[(k, int(chosen[i])) for i in batch] for k, batch in enumerate(plan)]
    mine = batches[rank::world] if len(batches) >= world else batches
    gather = partial(_numbered, space)
    return DataLoader(_Tagged(data.validation), batch_sampler=mine, collate_fn=gather)  # type: ignore[arg-type]


def _numbered(space: Space, items: Sequence[tuple[int, Item]]) -> tuple[int, State, Context]:
    """A padded batch after its number."""
    return items[0][0], *collate(space, [item for _, item in items])
