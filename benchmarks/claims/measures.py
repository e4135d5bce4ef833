"""What the claims measure: distances of laws, evaluations, straightness, numerical error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.solvers import Adaptive, Euler
from fm_science.state import Context


def wasserstein(x: Tensor, y: Tensor) -> float:
    """The Wasserstein-2 distance of two sets of points of one size, by exact transport, with the root."""
    import ot

    cost = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).square().numpy()
    return math.sqrt(max(0.0, float(ot.emd2([], [], cost, numItermax=1_000_000))))


class Counted:
    """A network that counts its evaluations."""

    def __init__(self, network: Any) -> None:
        self.network, self.count = network, 0

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        self.count += 1
        return self.network(x, t, context)


def counted(flow: Flow) -> tuple[Flow, Counted]:
    """The same flow with a network that counts."""
    network = Counted(flow.network)
    return Flow(flow.path, flow.prior, network, flow.sampler), network


def until(flow: Flow, last: float = 1 - 1e-3) -> Tensor:
    """The times of an adaptive walk: to the end, or to ``last`` and then a landing where the end is singular."""
    return torch.tensor([0.0, last, 1.0] if flow.path.singular else [0.0, 1.0], dtype=torch.float64)


@torch.no_grad()
def adaptive(flow: Flow, x0: Tensor, tolerance: float, times: Tensor | None = None) -> tuple[Tensor, int]:
    """Where noise goes by dopri5 at a tolerance, and the evaluations that took."""
    walk, network = counted(flow)
    solver = Adaptive(tolerance, tolerance)
    x = walk.transport(x0, Context.full(len(x0)), solver, until(flow) if times is None else times)
    return x, network.count


@torch.no_grad()
def fixed(flow: Flow, x0: Tensor, solver: Any, steps: int | Tensor) -> tuple[Tensor, int]:
    """Where noise goes by so many steps, and the evaluations that took."""
    walk, network = counted(flow)
    return walk.transport(x0, Context.full(len(x0)), solver, steps), network.count


@dataclass(frozen=True)
class Way:
    """How samples travel: mean path energy (the integral of |v|²), mean length over mean displacement, and the mean
    square distance of the velocity from the straight line between both ends."""

    energy: float
    length: float
    bend: float


@torch.no_grad()
def way(flow: Flow, x0: Tensor, steps: int = 100) -> Way:
    """The ways of samples by Euler steps from noise ``x0``."""
    states = [x0, *flow.trajectory(x0, Context.full(len(x0)), Euler(), steps)]
    moves = torch.stack(states).flatten(2).diff(dim=0)  # (steps, B, D)
    straight = (states[-1] - x0).flatten(1)
    bend = (moves * steps - straight).square().sum(-1).mean()
    length = moves.norm(dim=-1).sum(0).mean() / straight.norm(dim=-1).mean()
    return Way(float(moves.square().sum(-1).sum(0).mean() * steps), float(length), float(bend))


def errors(x: Tensor, y: Tensor) -> Tensor:
    """The error of each sample, ``(B,)``: root mean square difference of a coordinate. Judge by their median: near the
    border of two basins a small error sends a sample elsewhere, and a few such would outweigh all others."""
    return (x - y).flatten(1).square().mean(1).sqrt()
