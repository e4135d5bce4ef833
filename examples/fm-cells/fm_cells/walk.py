"""Walks of cells from a snapshot to any later time.

The flow of the engine runs over its clock, 0 at the first snapshot and 1 at the last. What is drawn belongs to one
time: it starts from cells of the snapshot before, and ends there. So in sampling the context says from where to where
the clock goes ("start" and "until"), and the network is asked on that stretch of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from fm_science import Context, Flow, Heun, Network, Prior, Snapshots, Space, State


@dataclass(frozen=True, eq=False)
class Culture(Prior):
    """Snapshots, of which cells may count as they grow. In training, and where no growth is given, all count alike. In
    sampling a cell that starts at s counts g^r, where r is the share of the interval that is walked.

    Args:
        snapshots: to draw from.
        growth: of the cells of each snapshot but the last, until the next; ``None``: all grow equally.
    """

    snapshots: Snapshots
    growth: Sequence[Tensor] | None = field(default=None, repr=False)

    def sample(self, space: Space, context: Context) -> State:
        if self.growth is None or "until" not in context.cond:
            return self.snapshots.sample(space, context)
        clock = torch.tensor(self.snapshots.clock_times, dtype=torch.float64)
        device = context.mask.device
        rows = []
        for start, until in zip(context.cond["start"].tolist(), context.cond["until"].tolist(), strict=True):
            k = min(int((clock - start).abs().argmin()), len(clock) - 2)
            share = (until - start) / float(clock[k + 1] - clock[k])
            chosen = torch.multinomial(self.growth[k].double().clamp_min(1e-12) ** share, 1)
            rows.append(self.snapshots.states[k][chosen])
        return space.bind(context).project(torch.cat(rows).to(device))


class Stretch(Network):
    """The network on a part of the clock: at time t of a walk it is asked at start + (until - start) t, and its
    velocity counts (until - start) times. Contexts that name no such part are passed on.

    Args:
        network: the velocity on the whole clock.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        """A state ``(B, 1, d)`` and times ``(B,)`` to the velocity."""
        if "until" not in context.cond:
            return self.network(x, t, context)
        start = context.cond["start"].to(t)
        length = context.cond["until"].to(t) - start
        return length[:, None, None] * self.network(x, start + length * t, context)


def before(clock: Sequence[float], until: float) -> int:
    """The number of the last snapshot before a time on the clock; 0 for the first itself."""
    return max((k for k, time in enumerate(clock[:-1]) if time < until), default=0)


def request(snapshots: Snapshots, n: int, time: float) -> Context:
    """What to draw: ``n`` cells of a time between the first snapshot and the last."""
    clock, until = snapshots.clock_times, snapshots.clock(time)
    k = before(clock, until)
    named = {"time": clock[k + 1], "start": clock[k], "until": until, "day": time}
    return Context.full(n, **{name: torch.full((n,), value, dtype=torch.float64) for name, value in named.items()})


@torch.no_grad()
def carried(flow: Flow, x: Tensor, clock: Sequence[float], steps: int = 20) -> list[Tensor]:
    """Cells ``(n, d)`` at each of these times of the clock, beginning with where they are at the first; ``steps`` of
    Heun's method in each interval."""
    device = next(flow.parameters(), x).device
    state = x[:, None].to(device, flow.dtype)
    context = Context.full(len(x)).to(device)
    found = [state]
    for start, end in pairwise(clock):
        state = flow.transport(state, context, Heun(), torch.linspace(start, end, steps + 1, dtype=torch.float64))
        found.append(state)
    return [cells[:, 0].cpu().double() for cells in found]
