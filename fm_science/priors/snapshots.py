"""Snapshots: samples of one law at several times, as cells of a culture on each of four days.

They are the data of a flow through several marginals. Between two neighbouring snapshots the earlier one is the noise
and the later one the data: so the prior of such a flow is :class:`Snapshots`, which draws from the one before the time
that each sample of the context belongs to, and its path is :class:`~fm_science.Piecewise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from fm_science.priors.base import Data, Prior
from fm_science.spaces.base import Space
from fm_science.state import Context, State, batch_size, take, tree_map

TIME = "time"  #: the condition that says at which snapshot a datum was seen, on the clock


@dataclass(frozen=True, eq=False)
class Snapshots(Prior):
    """Samples at K times, without pairs. As a prior it draws, for a datum of snapshot k, a state of snapshot k - 1, and
    where the context has no condition "time" a state of the first one. It has no density.

    Args:
        states: a batch of states a time, at least two, all with the same number of sites.
        times: when they were taken, increasing, in any unit. The clock of the flow runs from 0 at the first to 1 at the
            last; :meth:`clock` tells it.

    Raises ValueError where the times do not increase, or there is not one for each snapshot.
    """

    states: Sequence[State] = field(repr=False)
    times: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.states) != len(self.times) or len(self.times) < 2:
            given = f"{len(self.states)} snapshots at {len(self.times)} times"
            raise ValueError(f"{given}: expected two or more, a time each.")
        if any(later <= earlier for earlier, later in pairwise(self.times)):
            raise ValueError(f"times={tuple(self.times)}: the times of snapshots must increase.")

    def clock(self, time: float) -> float:
        """A time in the unit of ``times`` on the clock of the flow: 0 at the first snapshot, 1 at the last."""
        return (time - self.times[0]) / (self.times[-1] - self.times[0])

    @property
    def clock_times(self) -> tuple[float, ...]:
        """The times of the snapshots on the clock, from 0 to 1."""
        return tuple(self.clock(time) for time in self.times)

    def draw(self, n: int, sites: int = 1) -> tuple[State, Context]:
        """A batch to train on: ``n`` states of ``sites`` sites each from the snapshots after the first, with their
        "time" ``(n,)`` in the context. An interval counts as its length, so that all of the clock is seen evenly."""
        clock = torch.tensor(self.clock_times, dtype=torch.float64)
        piece = torch.multinomial(clock.diff(), n, replacement=True)
        drawn = [_drawn(self.states[k + 1], int((piece == k).sum())) for k in range(len(clock) - 1)]
        order = piece.argsort(stable=True).argsort(stable=True)
        x1 = take(tree_map(lambda *parts: torch.cat(parts), *drawn), order)
        return x1, Context.full(n, sites, **{TIME: clock[piece + 1].to(torch.get_default_dtype())})

    def sample(self, space: Space, context: Context) -> State:
        piece = pieces(self.clock_times, context)
        space = space.bind(context)
        found = Data(self.states[0]).sample(space, context)
        for k in piece.unique().tolist():
            rows = (piece == k).nonzero().squeeze(1)
            if k and len(rows):
                part = Data(self.states[k]).sample(space, context.take(rows))
                found = tree_map(lambda x, y, rows=rows: x.index_copy(0, rows, y.to(x)), found, part)
        return found


def pieces(clock_times: Sequence[float], context: Context) -> Tensor:
    """The number of the interval that ends at the "time" of each sample, ``(B,)``; 0 where the context has none."""
    time = context.cond.get(TIME)
    if time is None:
        return torch.zeros(context.size, dtype=torch.long, device=context.mask.device)
    ends = torch.tensor(clock_times[1:], dtype=time.dtype, device=time.device)
    return (time[:, None] - ends).abs().argmin(1)


def _drawn(states: State, n: int) -> State:
    return take(states, torch.randint(batch_size(states), (n,)))
