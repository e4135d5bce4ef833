"""The one training loop of the benchmarks, and the small network that most of them train.

Lightning takes seconds to start, as long as some of these trainings last, and a comparison needs the same steps on both
sides. So every benchmark that trains within its own process calls :func:`train`; those that train a domain for minutes
or hours call ``fm-science train``.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from fm_science.flow import Flow
from fm_science.networks import TimeEmbedding
from fm_science.state import Context, State


class Perceptron(nn.Module):
    """A multilayer perceptron of all coordinates of a state and the time.

    Args:
        dim: coordinates of a state, one-hot classes included.
        width, layers: of the hidden layers.
        time: how the network sees the time; ``None``: the plain number.
        activation: SELU is what Tong et al. (2024) use in the plane.
        tangent: event of a tangent, where it differs from a point's (rotations: 3 in place of 3 x 3).
    """

    def __init__(
        self, dim: int = 2, width: int = 64, layers: int = 3, time: TimeEmbedding | None = None,
        activation: type[nn.Module] = nn.SiLU, tangent: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.time, self.tangent = time, tangent
        self.two_times = time is not None and time.two_times
        sizes = [dim + (1 if time is None else time.features), *[width] * layers]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), activation())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, math.prod(tangent) if tangent else dim))

    def forward(self, x: State, t: Tensor, context: Context | None = None) -> State:
        """Points ``(B, 1, *event)`` or ``(B, dim)``, or a dict of them, and times ``(B,)`` to tangents."""
        leaves = x if isinstance(x, dict) else {"": x}
        until = context.t_end if context is not None and self.two_times else None
        points = torch.cat([v.flatten(1) for v in leaves.values()], 1)
        times = t[:, None] if self.time is None else self.time(t, until)
        out = self.net(torch.cat([points, times.to(points)], 1))
        if not isinstance(x, dict):
            return out.reshape(len(out), 1, *self.tangent) if self.tangent else out.reshape(x.shape)
        parts = out.split([v[0].numel() for v in leaves.values()], 1)
        return {name: part.reshape(v.shape) for (name, v), part in zip(leaves.items(), parts, strict=True)}


def network(seed: int, dim: int = 2, width: int = 64, waves: int = 0) -> Perceptron:
    """A network whose first weights depend on the seed alone: three SELU layers that see the plain time, or SiLU layers
    that see ``waves`` sines and cosines of it."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        time, activation = (TimeEmbedding(waves, 100.0), nn.SiLU) if waves else (None, nn.SELU)
        return Perceptron(dim, width, 3, time, activation)


@dataclass
class Budget:
    """So many training steps or seconds of processor time, whichever is used up first. Iterating counts the steps."""

    steps: float = math.inf
    seconds: float = math.inf
    start: float = field(default=math.nan, init=False)

    def __iter__(self) -> Iterator[int]:
        self.start = time.process_time()
        return itertools.takewhile(lambda step: self.used(step) < 1, itertools.count())

    def used(self, step: int) -> float:
        """The share that is used up before this step."""
        return max(step / self.steps, self.spent / self.seconds)

    @property
    def spent(self) -> float:
        """Seconds of processor time since the first step."""
        return 0.0 if math.isnan(self.start) else time.process_time() - self.start


def adam(module: nn.Module, lr: float = 2e-3, slow: float = 0.99) -> torch.optim.Adam:
    """Adam with the given rate of its second moments."""
    return torch.optim.Adam(module.parameters(), lr, betas=(0.9, slow))


def cosine(optimizer: Optimizer, budget: Budget, floor: float = 0.01, warm_up: int = 0) -> LambdaLR:
    """The learning rate falls along half a cosine to ``floor`` of itself while the budget is used up, after a linear
    rise over ``warm_up`` steps."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
        return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * budget.used(step))))

    return LambdaLR(optimizer, factor)


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The mean over a batch of the sum of named losses ``(B,)``, as the trainer of the library minimises it."""
    return torch.stack([loss.mean() for loss in losses.values()]).sum()


def descend(loss: Tensor, optimizer: Optimizer, clip: float = math.inf) -> None:
    """One step of the optimizer, with a gradient of norm ``clip`` at most."""
    optimizer.zero_grad()
    loss.backward()
    if clip < math.inf:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()


def train(
    module: nn.Module, loss: Callable[[int], Tensor], optimizer: Optimizer, pace: LRScheduler, budget: Budget,
    clip: float = math.inf, decay: float = 0.0,
) -> int:  # fmt: skip
    """Train a module in place; how many steps that took.

    Args:
        module: is left in evaluation mode.
        loss: ``step -> ()``, on that step's batch.
        optimizer, pace: pace sets the learning rate.
        budget: when to stop.
        clip: largest norm of the gradient.
        decay: of the running mean of the weights, which replaces them in the end; 0: the last weights stay.
    """
    weights = list(module.parameters())
    means, steps = [w.detach().clone() for w in weights if decay], 0
    for step in budget:
        descend(loss(step), optimizer, clip)
        pace.step()
        steps += 1
        for mean, weight in zip(means, weights, strict=False):
            mean.lerp_(weight.detach(), 1 - min(decay, (1 + step) / (10 + step)))
    for mean, weight in zip(means, weights, strict=False):
        weight.data.copy_(mean)
    module.eval()
    return steps


Loss = Callable[[Flow, Tensor, Tensor | None], Tensor]


def matching(objective: Callable[..., dict[str, Tensor]]) -> Loss:
    """The mean of an objective of the engine: ``(flow, x1, x0) -> ()``."""
    return lambda flow, x1, x0: total(objective(flow, x1, Context.full(len(x1)), x0))


def fitted(
    flow: Flow, loss: Loss, data: Tensor, steps: int, batch: int, seed: int, lr: float = 1e-3,
    ends: Tensor | None = None,
) -> Flow:  # fmt: skip
    """A flow trained on points, with averaged weights; step k sees the same data, noise and times for the same seed.

    Args:
        flow: its network is trained in place.
        loss: see :func:`matching`.
        data: ``(n, 1, dim)``.
        ends: noise that belongs to the data, ``(n, 1, dim)``, where there is some.
    """
    order = torch.Generator().manual_seed(seed)

    def batch_loss(step: int) -> Tensor:
        torch.manual_seed(seed * 1_000_003 + step)
        index = torch.randint(len(data), (batch,), generator=order)
        return loss(flow, data[index], None if ends is None else ends[index])

    budget, optimizer = Budget(steps), adam(flow, lr, 0.999)
    with torch.random.fork_rng([]):
        train(flow, batch_loss, optimizer, cosine(optimizer, budget, 0.02), budget, decay=0.995)
    return flow
