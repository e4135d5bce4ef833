"""Many samples in bounded memory, each from its own seed.

Sample number i starts from noise that depends on (seed, i) alone: how many are integrated together, in which order and
on how many processes changes only rounding. (Solvers that draw random numbers in their steps, such as jumps between
classes, do so chunk by chunk: there the chunk size is part of the seed.)
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fm_science import ranks, solvers
from fm_science.data import collate
from fm_science.domain import Domain
from fm_science.errors import DivergedError, OptionError, UserError, nearest
from fm_science.flow import Flow
from fm_science.memory import spare
from fm_science.seeds import SEEDS, seeded
from fm_science.solvers import Solver
from fm_science.spaces.base import Space
from fm_science.state import Context, State, leaves, tree_map

Frames = list[list[Any]]


@dataclass(frozen=True)
class Variants:
    """Data of which samples are variants. Sample i starts from data point i, cyclically.

    Args:
        data: each data point as a batch of one, with its context (:meth:`~fm_science.domain.Domain.encode`).
        from_time: the time in [0, 1) to which they are moved back.
    """

    data: Sequence[tuple[State, Context]]
    from_time: float


@dataclass(frozen=True)
class Drawing:
    """What to draw.

    Args:
        n: how many samples.
        seed: the seed of all of them.
        batch: how many are integrated together.
        solver: the rule for a step; None: the domain's.
        steps: number of steps; None: the domain's.
        device: where to compute.
        first: the number of the first sample, so that several machines can share the work.
        variants: the data of which to make variants; None: samples start from noise.
    """

    n: int
    seed: int = 0
    batch: int = 16
    solver: Solver | None = None
    steps: int | None = None
    device: torch.device | str = "cpu"
    first: int = 0
    variants: Variants | None = None

    def chunks(self) -> Iterator[range]:
        """The numbers of the samples that are integrated together."""
        end = self.first + self.n
        for first in range(self.first, end, self.batch):
            yield range(first, min(first + self.batch, end))


def solver(name: str | None) -> Solver | None:
    """A solver by its name on the command line, such as rk4 or flow_map. Raises OptionError with the nearest name."""
    known = {cls.__name__.lower(): cls for cls in vars(solvers).values() if _ready(cls)}
    if name is None:
        return None
    plain = str(name).lower().replace("_", "")
    if plain not in known:
        raise OptionError(f"unknown solver {name!r}; {nearest(plain, known)}")
    return known[plain]()


def _ready(cls: Any) -> bool:
    """Whether this is a solver that needs no arguments."""
    if not inspect.isclass(cls) or not issubclass(cls, Solver) or inspect.isabstract(cls):
        return False
    needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    return not needed


def start(
    domain: Domain, flow: Flow, numbers: range, seed: int, variants: Variants | None = None
) -> tuple[State, Context]:  # fmt: skip
    """The initial states and the context of some samples, ``(B, ...)``; each from its own seed."""
    items, frozen = [], []
    for number in numbers:
        with seeded(_seed(seed, number)):
            if variants is not None:
                data, context = variants.data[number % len(variants.data)]
                noise = flow.add_noise(data, context, variants.from_time)
            else:
                context = domain.request(1, first=number) if domain.numbered else domain.request(1)
                noise = flow.noise(context)
        items.append((tree_map(lambda leaf: leaf[0], noise), {name: value[0] for name, value in context.cond.items()}))
        if context.free is not None:
            frozen.append(tuple(tree_map(lambda leaf: leaf[0], v) for v in (context.free, context.known)))
    x, context = collate(flow.path.space, items)
    return x, _frozen(context, flow.path.space, frozen) if frozen else context


def _frozen(context: Context, space: Space, parts: list[Any]) -> Context:
    """The context with the frozen sites of each sample, padded."""
    free = tree_map(_padded, *(free for free, _ in parts))
    return replace(context, free=free, known=_stacked(space, [known for _, known in parts]))


def _padded(*free: Tensor) -> Tensor:
    """Which sites may move, as a batch; padding may."""
    return pad_sequence(list(free), batch_first=True, padding_value=True) if free[0].ndim else torch.stack(free)


def _stacked(space: Space, known: list[Any]) -> State:
    """Known values as a batch, padded; a part without fixed sites has none."""
    if not isinstance(known[0], Mapping):
        return space.pad_batch(known)
    return {name: _stacked(space.parts[name], [values[name] for values in known]) for name in known[0]}


def draw(domain: Domain, flow: Flow, plan: Drawing, watch: bool = False) -> Iterator[tuple[int, list[Any], Frames]]:
    """Yield the number of the first sample of each chunk, the decoded samples, and with ``watch`` the
    decoded state at the start and after each step."""
    flow = flow.to(plan.device).eval()
    for numbers in plan.chunks():
        with spare("batch, or the samples,"):
            samples, frames = _chunk(domain, flow, plan, numbers, watch)
        yield numbers[0], samples, frames


def _chunk(domain: Domain, flow: Flow, plan: Drawing, numbers: range, watch: bool) -> tuple[list[Any], Frames]:
    """The decoded samples of these numbers, and with ``watch`` the decoded states of their trajectory."""
    times = flow.grid(plan.steps, 0.0 if plan.variants is None else plan.variants.from_time)
    x, context = start(domain, flow, numbers, plan.seed, plan.variants)
    x, context = tree_map(lambda leaf: leaf.to(plan.device), x), context.to(plan.device)
    frames = [domain.decode(x, context)] if watch else []
    with torch.no_grad(), seeded(_seed(plan.seed, -1 - numbers[0]), plan.device):
        for state in flow.trajectory(x, context, plan.solver, times):
            x = state
            if watch:
                frames.append(domain.decode(x, context))
        _check_finite(x, numbers)
        return (frames[-1] if watch else domain.decode(x, context)), frames


def draw_shared(
    domain: Domain, flow: Flow, plan: Drawing, watch: bool = False
) -> Iterator[tuple[int, list[Any], Frames]]:
    """As :func:`draw`, the work divided among the processes of the default group of ``torch.distributed``: with n
    processes, each draws every n-th chunk. The first process yields all chunks in order, the same as alone; the others
    yield nothing.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        yield from draw(domain, flow, plan, watch)
        return
    rank, world = distributed.get_rank(), distributed.get_world_size()
    chunks = list(plan.chunks())
    for k in range(0, len(chunks), world):
        mine = chunks[k + rank : k + rank + 1]
        found = [part for c in mine for part in draw(domain, flow, replace(plan, first=c[0], n=len(c)), watch)]
        gathered: list[Any] = [None] * world
        distributed.gather_object(found, gathered if rank == 0 else None)
        if rank == 0:
            yield from (part for parts in gathered for part in parts)


@contextmanager
def meeting() -> Iterator[None]:
    """Inside, the processes that torchrun started together are one group, and divide the work of :func:`draw_shared`. A
    single process is no group. Raises UserError under srun, which gives no address for communication."""
    distributed = torch.distributed
    if not ranks.launched() or distributed.is_initialized():
        yield
        return
    if not os.environ.get("MASTER_ADDR"):
        raise UserError("several processes of srun do not share one drawing: start them by torchrun, or give each its "
                        "part with first= and out=")  # fmt: skip
    distributed.init_process_group("gloo", rank=ranks.rank(), world_size=ranks.world())
    try:
        yield
    finally:
        distributed.destroy_process_group()


def from_first(value: int) -> int:
    """The value of ``value`` in the first process of the group."""
    shared = [value]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(shared)
    return shared[0]


def _check_finite(x: State, numbers: range) -> None:
    """Raise DivergedError, with the number of the sample, if one is not finite."""
    for leaf in leaves(x):
        rows = (~leaf.isfinite().flatten(1).all(1)).nonzero()
        if len(rows):
            raise DivergedError(
                f"sample {numbers[int(rows[0])]} is not finite, nor are {len(rows) - 1} others of {len(numbers)}: the "
                "training has diverged, or the solver needs more steps"
            )


def _seed(seed: int, number: int) -> int:
    """A separate seed for each number."""
    return (seed * 1_000_003 + number) % SEEDS
