"""Events on a sphere: earthquakes, fires, strandings, stars, from a table of latitudes and longitudes.

A flow carries uniform points along great circles to the events of a user's file. It draws new events, and its density
is exact: the likelihood of test events, in nats with respect to area on the unit sphere, stands beside that of a kernel
density, so that one sees what was learned. The package uses the public interface of fm-science alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fm_science as fm
from fm_science import Context, Flow, State, TrainingData, option

from . import files, maps, network, objective
from .data import Data, Places, Sets, events, load, to_degrees, vectors, write_summary
from .files import Event
from .kernel import UNIFORM, KernelDensity, choose
from .metrics import Metrics, distances

CHUNK = 2048  # events whose densities are found at once


@dataclass(frozen=True)
class Sample:
    """What is drawn."""

    steps: int = option(50, "steps of the solver", low=1)


@dataclass(frozen=True)
class Options:
    """The groups of options."""

    data: Data = Data()
    network: network.Options = network.Options()
    objective: objective.Options = objective.Options()
    sample: Sample = Sample()
    metrics: Metrics = Metrics()


class Earth(fm.Domain):
    """Events on a sphere. Sampling needs nothing of the data: a run is whole without them."""

    name = "earth"
    options: Options
    sample_batch = 1000
    evaluation_samples = 1000

    def check_options(self) -> None:
        """Raises UserError for ``network.scales`` that are no numbers."""
        _ = self.options.network.frequencies

    def load_data(self) -> TrainingData:
        o = self.options.data
        sets = load(o)
        return TrainingData(Places(sets.train), Places(sets.validation), o.batch, source=sets)

    @property
    def sets(self) -> Sets:
        """Training, validation and test events."""
        return self.data.source

    @cached_property
    def kernel(self) -> KernelDensity:
        """The kernel density of the training events, chosen on the validation events."""
        return choose(self.sets.train, self.sets.validation)

    def build_flow(self, statistics: Mapping[str, Any]) -> Flow:
        sampler = fm.Sampler(fm.RK4(), self.options.sample.steps)
        return Flow(fm.Geodesic(fm.Sphere(2)), fm.Uniform(), network.field(self.options.network), sampler)

    def build_objective(self, statistics: Mapping[str, Any]) -> fm.Objective:
        return objective.objective(self.options.objective)

    def request(self, n: int, **sample: Any) -> Context:
        return Context.full(n)

    def decode(self, state: State, context: Context) -> list[Event]:
        return events(state[:, 0])

    def read(self, paths: Sequence[Any]) -> list[Event]:
        return files.read(paths)

    def write(self, samples: Sequence[Event], folder: Path, first: int = 0) -> list[Path]:
        return files.write(samples, folder, first)

    def write_provenance(self, folder: Path) -> list[Path]:
        """What was read, printed and written as ``events.txt``."""
        return write_summary(self.sets, folder)

    # -------------------------------------------------------------------------------------------------------- judging

    def build_metrics(self) -> Mapping[str, fm.Metric]:
        return {"distances": lambda samples, reference: distances(samples, reference, self.options.metrics)}

    def references(self, samples: Sequence[Event]) -> dict[str, list[Event]]:
        """The test events; as many training events; and as many draws of the kernel density as there are samples."""
        sets, generator = self.sets, torch.Generator().manual_seed(0)
        return {
            "test events": events(sets.test),
            "training events": events(sets.train[: len(sets.test)]),
            "kernel density": events(self.kernel.sample(max(2, len(samples)), generator)),
        }

    def report(self, rows: Mapping[str, list[Event]], folder: Path) -> list[Path]:
        return maps.maps(rows, folder)

    def evaluate_flow(self, flow: Flow, folder: Path | None = None) -> dict[str, float]:
        """Mean log-likelihoods of the test events in nats (area of the unit sphere) under the flow, the kernel density
        and the uniform law; with a folder, each event's in ``likelihoods.csv``, and a map of both densities."""
        o, sets, kernel = self.options.metrics, self.sets, self.kernel
        test, rival = log_prob(flow, sets.test, o.steps), kernel.log_prob(sets.test)
        gain = test - rival
        numbers = {
            "test log-likelihood, flow (nats)": float(test.mean()),
            "test log-likelihood, kernel density (nats)": float(rival.mean()),
            "test log-likelihood, uniform law (nats)": UNIFORM,
            "flow above kernel density (nats)": float(gain.mean()),
            "standard error of that (nats)": float(gain.std()) / math.sqrt(len(gain)),
            "validation log-likelihood, flow (nats)": float(log_prob(flow, sets.validation, o.steps).mean()),
            "concentration of the kernels": kernel.concentration,
            "share of test events at places of training events": sets.repeated,
        }
        if kernel.edge:
            print("the kernel density chose the sharpest bumps there are: events repeat; see data.distinct=true")
        if folder is not None:
            _write_likelihoods(sets.test, test, rival, Path(folder) / "likelihoods.csv")
            if o.map_degrees:
                fields = {"flow": lambda x: log_prob(flow, x, min(o.steps, 40)), "kernel density": kernel.log_prob}
                maps.density(fields, o.map_degrees, events(sets.test), Path(folder))
        return numbers


@torch.no_grad()
def log_prob(flow: Flow, x: Tensor, steps: int) -> Tensor:
    """The exact log-density ``(n,)`` of unit vectors ``(n, 3)`` under a flow, in nats with respect to area on the unit
    sphere, in double precision; ``steps`` shrink towards the data, where the law is finest."""
    device = next(flow.parameters()).device
    grid = 1 - torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2
    found = [
        flow.log_prob(part[:, None].to(device, flow.dtype), Context.full(len(part)).to(device), fm.RK4(), grid)
        for part in x.split(CHUNK)
    ]
    return torch.cat(found).double().cpu()


def _write_likelihoods(x: Tensor, flow: Tensor, kernel: Tensor, file: Path) -> None:
    """One line an event: its place in degrees, and its log-density in nats under both laws."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["lat", "lon", "flow_nats", "kernel_density_nats"])
        rows = torch.cat([to_degrees(x), flow[:, None], kernel[:, None]], 1).tolist()
        writer.writerows([f"{value:.6f}" for value in row] for row in rows)


__all__ = ["Earth", "Event", "log_prob", "vectors"]
