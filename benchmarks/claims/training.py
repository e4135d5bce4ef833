"""One small network and one training loop for all claims: same first weights, data, noise and times for a seed."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.flow import Flow
from fm_science.networks import TimeEmbedding
from fm_science.state import Context


class Perceptron(nn.Module):
    """A multilayer perceptron of the coordinates and the time: three hidden layers with SELU, as Tong et al. (2024) use
    in the plane, or SiLU layers that see sines of the time.

    Args:
        dim: coordinates.
        width, layers: of the hidden layers.
        waves: features of the time; 0: the plain number.
    """

    def __init__(self, dim: int = 2, width: int = 64, layers: int = 3, waves: int = 0) -> None:
        super().__init__()
        self.time = TimeEmbedding(waves, 100.0) if waves else None
        sizes = [dim + (waves or 1), *[width] * layers]
        act = nn.SiLU if waves else nn.SELU
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), act())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        """``x`` ``(B, 1, dim)`` and ``t`` ``(B,)`` to the shape of ``x``."""
        told = t[:, None] if self.time is None else self.time(t)
        return self.net(torch.cat([x.flatten(1), told.to(x)], 1)).reshape(x.shape)


def network(seed: int, **shape: Any) -> Perceptron:
    """A network whose first weights depend on the seed alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Perceptron(**shape)


Loss = Callable[[Flow, Tensor, Tensor | None], Tensor]


def train(
    flow: Flow, loss: Loss, data: Tensor, steps: int, batch: int, seed: int, lr: float = 1e-3,
    ends: Tensor | None = None,
) -> Flow:  # fmt: skip
    """Train with Adam, a cosine decay and an average of the weights, which is returned.

    Args:
        flow: its network is trained in place.
        loss: ``(flow, x1, x0) -> ()``.
        data: ``(n, 1, dim)``.
        steps, batch, seed, lr: of the training; step k sees the same data, noise and times for the same seed.
        ends: noise that belongs to the data, ``(n, 1, dim)``, where there is some.
    """
    optimizer = torch.optim.Adam(flow.parameters(), lr)
    pace = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * k / steps))
    )
    average = copy.deepcopy(flow)
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        for k in range(steps):
            torch.manual_seed(seed * 1_000_003 + k)
            index = torch.randint(len(data), (batch,), generator=order)
            value = loss(flow, data[index], None if ends is None else ends[index])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            pace.step()
            keep = min(0.995, (1 + k) / (10 + k))
            weights = zip(average.parameters(), flow.parameters(), strict=True)
            for a, b in weights:
                a.data.lerp_(b.data, 1 - keep)
    average.independent = flow.independent
    return average.eval()


def matching(objective: Any) -> Loss:
    """The mean of an objective of the engine."""

    def loss(flow: Flow, x1: Tensor, x0: Tensor | None) -> Tensor:
        found = objective(flow, x1, Context.full(len(x1)), x0)
        return torch.stack([v.mean() for v in found.values()]).sum()

    return loss
