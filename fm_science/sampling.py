"""Many samples in bounded memory, each from a seed of its own.

Sample number i starts from noise that depends on (seed, i) alone: how many are carried at once, in which order and on
how many processes changes nothing but rounding. (Solvers that draw random numbers on the way, such as jumps between
classes, do so chunk by chunk: there the chunk size is part of the seed.)
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fm_science import solvers
from fm_science.data import collate
from fm_science.domain import Domain
from fm_science.errors import DivergedError, OptionError, nearest
from fm_science.flow import Flow
from fm_science.memory import spare
from fm_science.seeds import SEEDS, seeded
from fm_science.solvers import Solver
from fm_science.spaces.base import Space
from fm_science.state import Context, State, leaves, tree_map

Frames = list[list[Any]]


@dataclass(frozen=True)
class Drawing:
    """What to draw.

    Args:
        n: how many samples.
        seed: the seed of all of them.
        batch: how many are carried at once.
        solver: the rule for a step; None: the domain's.
        steps: number of steps; None: the domain's.
        device: where to compute.
        first: the number of the first sample, so that several machines can share the work.
    """

    n: int
    seed: int = 0
    batch: int = 16
    solver: Solver | None = None
    steps: int | None = None
    device: torch.device | str = "cpu"
    first: int = 0

    def chunks(self) -> Iterator[range]:
        """The numbers of the samples that are carried together."""
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


def start(domain: Domain, flow: Flow, numbers: range, seed: int) -> tuple[State, Context]:
    """The noise of some samples and what to make of it, ``(B, ...)``; each from its own seed."""
    items, frozen = [], []
    for number in numbers:
        with seeded(_seed(seed, number)):
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
    """Known values as a batch, padded; a part that holds nothing has none."""
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
    """The decoded samples of these numbers, and with ``watch`` the decoded states on their way."""
    x, context = start(domain, flow, numbers, plan.seed)
    x, context = tree_map(lambda leaf: leaf.to(plan.device), x), context.to(plan.device)
    frames = [domain.decode(x, context)] if watch else []
    with torch.no_grad(), seeded(_seed(plan.seed, -1 - numbers[0]), plan.device):
        for state in flow.trajectory(x, context, plan.solver, plan.steps):
            x = state
            if watch:
                frames.append(domain.decode(x, context))
        _check_finite(x, numbers)
        return (frames[-1] if watch else domain.decode(x, context)), frames


def _check_finite(x: State, numbers: range) -> None:
    """Raise DivergedError, with the number of the sample, where one is not finite."""
    for leaf in leaves(x):
        rows = (~leaf.isfinite().flatten(1).all(1)).nonzero()
        if len(rows):
            raise DivergedError(
                f"sample {numbers[int(rows[0])]} is not finite, nor are {len(rows) - 1} others of {len(numbers)}: the "
                "training has diverged, or the solver needs more steps"
            )


def _seed(seed: int, number: int) -> int:
    """A seed of its own for each number."""
    return (seed * 1_000_003 + number) % SEEDS
