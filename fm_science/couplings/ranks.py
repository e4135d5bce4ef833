"""One transport over all processes of a training run.

Pairs from the batch of one process alone are worse than pairs from all batches together. So each process sees all of
noise and data, solves the same problem, and keeps what belongs to its own data. Batches may differ in size and in
padding; they travel through the processor's memory, where the problem is solved anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.errors import OptionError
from fm_science.spaces import Space
from fm_science.state import Context, State, tree_map


@dataclass(frozen=True)
class GatherRanks:
    """The batches of all processes of the default group of ``torch.distributed``, and the own rank. Without a process
    group there is one batch."""

    def __call__(self, batch: Any) -> tuple[Sequence[Any], int]:
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return [batch], 0
        batches: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(batches, tuple(_on_cpu(b) for b in batch))
        return batches, distributed.get_rank()


RANKS = ("own", "all")  #: what the option ``coupling.ranks`` may be


def gatherer(ranks: str, in_workers: bool = False) -> GatherRanks | None:
    """What a :class:`~fm_science.couplings.Transport` gathers with where the option ``coupling.ranks`` says ``all``.
    Raises OptionError where pairs are made ``in_workers``, which belong to no process group."""
    if ranks == "all" and in_workers:
        raise OptionError("coupling.ranks=all needs coupling.in_workers=false: data workers know no other processes")
    return GatherRanks() if ranks == "all" else None


def _on_cpu(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return value.to("cpu") if isinstance(value, Context) else tree_map(lambda x: x.cpu(), value)


def join(space: Space, batches: Sequence[tuple[State, State, Context]]) -> tuple[State, State, Context]:
    """One batch from many: noise, data and context, padded to the longest sample of all."""
    noise, data, contexts = zip(*batches, strict=True)
    parts: dict[str, Any] = {}
    for name in ("free", "known"):
        values = [getattr(c, name) for c in contexts]
        parts[name] = None if values[0] is None else tree_map(_cat, *values)
    cond = {k: _cat(*(c.cond[k] for c in contexts)) for k in contexts[0].cond}
    whole = Context(_cat(*(c.mask for c in contexts)), cond, **parts)
    x0, x1 = tree_map(_cat, *noise), tree_map(_cat, *data)
    if len({c.mask.shape[1] for c in contexts}) > 1:  # new padding holds the space's origin, not zero
        bound = space.bind(whole)
        x0, x1 = bound.project(x0), bound.project(x1)
    return x0, x1, whole


def _cat(*tensors: Tensor) -> Tensor:
    """Along the batch, with zeros where a tensor is shorter than another along other axes."""
    shape = [max(sizes) for sizes in zip(*(t.shape[1:] for t in tensors), strict=True)]
    out = [t.new_zeros(len(t), *shape) for t in tensors]
    for whole, t in zip(out, tensors, strict=True):
        whole[tuple(slice(n) for n in t.shape)] = t
    return torch.cat(out)


def own(x: State, like: State) -> State:
    """``x`` without the padding that ``like`` does not have, on its device."""
    return tree_map(lambda a, b: a[tuple(slice(n) for n in b.shape)].to(b), x, like)
