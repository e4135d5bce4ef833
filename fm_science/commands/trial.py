"""A small domain for trying an installation: points on a circle, fast to train, and the same step written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.data import TrainingData
from fm_science.domain import Domain
from fm_science.errors import UserError
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.spaces import Euclidean
from fm_science.state import Context
from fm_science.training import Optimizer, Trainer, fit

WIDTH, BATCH = 256, 512


class Perceptron(nn.Module):
    """A velocity in the plane from a point and a time."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        """``x`` (B, 1, 2) and ``t`` (B,) to (B, 1, 2)."""
        return self.net(torch.cat([x, t[:, None, None].expand(*x.shape[:2], 1)], -1))


class Circle:
    """Points on the unit circle, each one site."""

    def __init__(self, n: int, seed: int) -> None:
        angle = 6.2832 * torch.rand(n, 1, generator=torch.Generator().manual_seed(seed))
        self.points = torch.stack([angle.cos(), angle.sin()], -1)
        self.sizes = torch.ones(n, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.points[index], {}


def by_engine() -> Callable[[], None]:
    """A training step of the engine."""
    domain = circle(WIDTH)
    flow, objective = domain.flow(), domain.objective
    optimizer = torch.optim.AdamW(flow.parameters())
    x1, context = Circle(BATCH, 0).points, Context.full(BATCH)

    def step() -> None:
        loss = torch.stack([value.mean() for value in objective(flow, x1, context).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def by_hand() -> Callable[[], None]:
    """The same step, written in plain PyTorch."""
    network = Perceptron()
    optimizer = torch.optim.AdamW(network.parameters())
    x1 = Circle(BATCH, 0).points

    def step() -> None:
        t, x0 = torch.rand(BATCH), torch.randn_like(x1)
        x = x0 + t[:, None, None] * (x1 - x0)
        loss = (network(x, t) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def circle(width: int) -> Domain:
    """The domain. Raises UserError if files are requested, since it has none."""

    def files(*_: Any, **__: Any) -> list[Any]:
        raise UserError("the trial domain has no files")

    made: Any = Domain
    return made(  # a record of parts
        name="trial", path=Geodesic(Euclidean(2)), prior=Normal(), network=Perceptron(width),
        data=TrainingData(Circle(64, 1), Circle(16, 2), batch=16), objective=FlowMatching(),
        request=lambda n: Context.full(n), decode=lambda x, context: list(x[:, 0]), read=files, write=files, metrics={},
        report=files, references=lambda samples: {},
    )  # fmt: skip


def trained(folder: Path, steps: int, resume: bool = False) -> dict[str, Tensor]:
    """The weights after a number of steps in a run folder, with a learning rate that does not depend on that number."""
    options = Trainer(
        max_steps=steps, validate_every=1000, validation_samples=0, accelerator="cpu", devices=1, threads=0,
        progress=False,
    )  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        flow = fit(circle(8), options, Optimizer(warmup=0, final=1.0), folder, seed=0, resume=resume)
    return {name: value.detach().clone() for name, value in flow.state_dict().items()}
