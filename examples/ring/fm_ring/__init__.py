"""Points on a circle: a small but complete domain for fm-science, to be replaced by your science. Lengths are
nanometres.

From top to bottom: the options, the data, the network, how points are compared, and the domain, whose seven required
methods combine all of it. The command line needs nothing else.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.data import Item, TrainingData
from fm_science.domain import Domain, option
from fm_science.errors import UserError
from fm_science.figures import COLOURS, draw, figure
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import Heun
from fm_science.spaces import Euclidean
from fm_science.state import Context, State, expand_like

Point = tuple[float, float]


@dataclass(frozen=True)
class Data:
    """The circle to learn."""

    points: int = option(256, "points on the circle", low=2)
    radius: float = option(2.0, "radius of the circle", unit="nm", low=0.0)
    batch: int = option(64, "points per batch", low=1)


@dataclass(frozen=True)
class Network:
    """A perceptron of the point and the time."""

    width: int = option(32, "width of the hidden layers", low=1)


@dataclass(frozen=True)
class Sample:
    """What to sample."""

    spread: float = option(0.0, "standard deviation of noise that is added to samples at the end", unit="nm", low=0.0)
    steps: int = option(20, "steps of the solver", low=1)


@dataclass(frozen=True)
class Options:
    """The groups of options."""

    data: Data = Data()
    network: Network = Network()
    sample: Sample = Sample()


class Circle(torch.utils.data.Dataset):
    """Points at even angles. An item is an unbatched state, here one site ``(1, 2)``, and its conditions by name;
    ``sizes`` says how many sites each item has, so that batches combine items of similar size."""

    def __init__(self, points: int, radius: float, shift: float) -> None:
        angles = 2 * math.pi * (torch.arange(points) + shift) / points
        self.x = radius * torch.stack([angles.cos(), angles.sin()], -1)[:, None]
        self.sizes = torch.ones(points, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Item:
        return self.x[index], {}


class Perceptron(nn.Module):
    """The velocity ``(B, 1, 2)`` at points ``(B, 1, 2)`` and times ``(B,)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = [nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*inner, nn.Linear(width, 2))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.layers(torch.cat([x, expand_like(t, x).expand_as(x[..., :1])], -1))


def radius(samples: Sequence[Point], reference: Sequence[Point]) -> dict[str, float]:
    """The mean distance from the centre, and how far it is from that of the reference."""
    mean = sum(math.hypot(*point) for point in samples) / len(samples)
    return {"radius": mean, "error": abs(mean - sum(math.hypot(*point) for point in reference) / len(reference))}


class Ring(Domain):
    """Points on a circle."""

    name = "ring"
    options: Options

    # the seven methods that every domain has

    def load_data(self) -> TrainingData:
        o = self.options.data
        return TrainingData(Circle(o.points, o.radius, 0.0), Circle(o.points, o.radius, 0.5), batch=o.batch)

    def build_flow(self, statistics: Mapping[str, Any]) -> Flow:
        """Path, prior, network, and how samples are drawn."""
        network = Perceptron(self.options.network.width)
        return Flow(Geodesic(Euclidean(2)), Normal(), network, Sampler(Heun(), self.options.sample.steps))

    def request(self, n: int, **sample: Any) -> Context:
        """``n`` points, on which there are no conditions."""
        return Context.full(n)

    def decode(self, state: State, context: Context) -> list[Point]:
        """Points as pairs of numbers."""
        state = state + self.options.sample.spread * torch.randn_like(state)
        return [(float(x), float(y)) for x, y in state[:, 0]]

    def write(self, samples: Sequence[Point], folder: Path, first: int = 0) -> list[Path]:
        """One file per point."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        files = []
        for number, point in enumerate(samples, start=first):
            files.append(Path(folder) / f"point_{number:04d}.csv")
            files[-1].write_text(",".join(map(str, point)) + "\n")
        return files

    def read(self, paths: Sequence[Path]) -> list[Point]:
        """Points from files or folders."""
        found = []
        for path in map(Path, paths):
            for file in sorted(path.glob("*.csv")) if path.is_dir() else [path]:
                try:
                    x, y = (float(word) for row in csv.reader(file.read_text().splitlines()) for word in row)
                except ValueError as error:
                    raise UserError(f"{file} is no point: expected two numbers") from error
                found.append((x, y))
        if not found:
            raise UserError(f"no points in {', '.join(map(str, paths))}")
        return found

    def build_metrics(self) -> Mapping[str, Metric]:
        return {"radius": radius}

    # what this domain adds

    def report(self, rows: Mapping[str, list[Point]], folder: Path) -> list[Path]:
        """The points of every row, side by side."""

        def points():
            drawn = figure(2.4 * len(rows), 2.6)
            for place, (name, found) in enumerate(rows.items(), 1):
                axis = drawn.add_subplot(1, len(rows), place)
                axis.scatter(*zip(*found, strict=True), s=6, color=COLOURS[(place - 1) % len(COLOURS)])
                axis.set(title=name, aspect="equal", xlabel="x (nm)", ylabel="y (nm)")
            return drawn

        return draw({"points": points}, folder)

    def trajectory(self, frames: Sequence[Sequence[Point]], folder: Path, first: int = 0) -> list[Path]:
        """One file per point, with its position after every step."""
        files = []
        for number, way in enumerate(zip(*frames, strict=True), start=first):
            files.append(Path(folder) / f"way_{number:04d}.txt")
            files[-1].write_text("\n".join(f"{x} {y}" for x, y in way) + "\n")
        return files
