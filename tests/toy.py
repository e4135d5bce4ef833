"""A domain for tests: points on a circle in the plane, quick to train and with a law that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fm_science.couplings import Independent
from fm_science.data import TrainingData
from fm_science.domain import Domain, group, option
from fm_science.flow import Sampler
from fm_science.networks import TimeEmbedding
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import Heun
from fm_science.spaces import Euclidean
from fm_science.state import Context


@dataclass(frozen=True)
class DataOptions:
    """The circle."""

    n: int = option(256, "training points", low=8)
    radius: float = option(3.0, "radius of the circle", "metres", low=0)
    batch: int = option(32, "points a batch", low=1)


@dataclass(frozen=True)
class NetworkOptions:
    """A small multilayer perceptron."""

    width: int = option(32, "hidden units", low=1)


OPTIONS = {"data": DataOptions, "network": NetworkOptions}


class Circle:
    def __init__(self, n: int, radius: float, seed: int) -> None:
        angle = 6.283 * torch.rand(n, generator=torch.Generator().manual_seed(seed))
        self.points = radius * torch.stack([angle.cos(), angle.sin()], -1)
        self.sizes = torch.ones(n, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.points[i][None], {}


class MLP(nn.Module):
    def __init__(self, width: int, two_times: bool = False) -> None:
        super().__init__()
        self.two_times = two_times
        self.time = TimeEmbedding(16, 10.0, two_times)
        self.net = nn.Sequential(
            nn.Linear(2 + self.time.features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.net(torch.cat([x, self.time(t, context.t_end)[:, None]], -1))


def radius(samples: list[Tensor], reference: list[Tensor]) -> dict[str, float]:
    return {"radius": float(torch.stack(list(samples)).norm(dim=-1).mean())}


def build(data: object = None, network: object = None) -> Domain:
    d, n = group(DataOptions, data, "data"), group(NetworkOptions, network, "network")
    train, validation = Circle(d.n, d.radius, 1), Circle(64, d.radius, 2)

    def write(samples: list[Tensor], folder: Path, first: int = 0) -> list[Path]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        files = [Path(folder) / f"{first + i:04d}.txt" for i in range(len(samples))]
        for file, sample in zip(files, samples, strict=True):
            file.write_text(repr(sample.tolist()))
        return files

    return Domain(
        name="toy",
        path=Geodesic(Euclidean(2)),
        prior=Normal(),
        network=MLP(n.width),
        data=TrainingData(train, validation, batch=d.batch),
        objective=FlowMatching(coupling=Independent()),
        request=lambda n: Context.full(n),
        decode=lambda x, context: list(x[:, 0]),
        read=lambda paths: [torch.tensor(eval(Path(p).read_text())) for p in paths],
        write=write,
        metrics={"radius": radius},
        report=lambda rows, folder: [],
        references=lambda samples: {"held-out": list(validation.points)},
        sampler=Sampler(Heun(), 20),
        options=OPTIONS,
    )
