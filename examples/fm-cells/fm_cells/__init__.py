"""Snapshots of cells over time: what happens between them, who grows, and who becomes what.

Cells are destroyed when they are measured, so each time has other cells, without pairs. One flow goes through all the
snapshots (Tong et al. 2024): it carries cells from any time to any later one. An unbalanced coupling says which cells
grow, and the flow says where early cells end. Leaving one time out shows what the flow knows. The package uses the
public interface of fm-science alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

import fm_science as fm
from fm_science import Context, Flow, State, TrainingData, UserError, option

from . import fates, files, growth, judge, pictures
from .data import Cells as Items
from .data import Data, Scale, Sets, cells, kept_scale, load, snapshots, write_summary
from .files import Cell
from .judge import Metrics
from .walk import Culture, Stretch, carried, request


@dataclass(frozen=True)
class Network:
    """A perceptron on the coordinates and waves of them."""

    width: int = option(128, "hidden features", low=1)
    layers: int = option(3, "hidden layers", low=1)
    waves: float = option(0.3, "spread of the numbers of waves, per unit of the scaled coordinates; 0: none", low=0)


@dataclass(frozen=True)
class Objective:
    """Flow matching in each interval, of cells that are paired at least cost."""

    plan: str = option("exact", "how cells are paired", choices=("exact", "entropic", "unbalanced"))
    reg: float = option(0.05, "weight of the entropy of plans and of growth, in mean squared distances", low=1e-4)
    keep: float = option(1.0, "weight that holds early cells to equal growth, in mean squared distances", low=1e-4)


@dataclass(frozen=True)
class Sample:
    """What is drawn."""

    time: float | None = option(None, "when; none: the time that was left out, else the last one")
    steps: int = option(20, "steps of the solver from the snapshot before", low=1)


@dataclass(frozen=True)
class Options:
    """The groups of options."""

    data: Data = Data()
    network: Network = Network()
    objective: Objective = Objective()
    sample: Sample = Sample()
    metrics: Metrics = Metrics()


class Cells(fm.Domain):
    """Snapshots of cells. A run keeps the cells that it learned from, since samples start from them."""

    name = "cells"
    options: Options
    sample_batch = 500
    evaluation_samples = 400
    metric_meanings: Mapping[str, str] = MappingProxyType({
        "w2": "2-Wasserstein distance to the reference by exact transport, scaled coordinates; lower is better",
        "sliced_w2": "the same of projections on 128 random lines; lower is better",
        "means": "distance between the means, scaled coordinates; lower is better",
    })  # fmt: skip

    def load_data(self) -> TrainingData:
        o = self.options.data
        sets = load(o, None if self.given is None else kept_scale(self.given))
        clock = [(time - sets.times[0]) / (sets.times[-1] - sets.times[0]) for time in sets.times]
        return TrainingData(Items(sets.train, clock), Items(sets.held_out, clock), o.batch, source=sets)

    def fit_statistics(self, data: TrainingData) -> Mapping[str, Any]:
        """The scale, the cells to learn from, and their growth."""
        sets, o = data.source, self.options.objective
        torch.manual_seed(self.options.data.split)  # the generator of the program is put back afterwards
        grown = [growth.growth(a.x, b.x, o.reg, o.keep) for a, b in zip(sets.train, sets.train[1:], strict=False)]
        scale: Scale = sets.scale
        return {
            "times": sets.times, "counts": [len(shot.x) for shot in sets.train],
            "cells": torch.cat([shot.x for shot in sets.train]).float()[:, None], "growth": torch.cat(grown),
            "centre": scale.centre, "axes": scale.axes, "spread": scale.spread.clone(), "columns": list(scale.columns),
            "left_out": self.options.data.leave_out,
        }  # fmt: skip

    @property
    def sets(self) -> Sets:
        """The snapshots that were read."""
        return self.data.source

    @property
    def scale(self) -> Scale:
        """From the coordinates of the file to those of the flow."""
        return kept_scale(self.statistics)

    @property
    def snapshots(self) -> fm.Snapshots:
        """The cells that are learned from."""
        return snapshots(self.statistics["cells"], self.statistics["counts"], self.statistics["times"])

    @property
    def grown(self) -> list[torch.Tensor]:
        """The growth of the cells of each snapshot but the last."""
        return list(self.statistics["growth"].split(self.statistics["counts"][:-1]))

    def time(self, wanted: float | None) -> float:
        """When samples are drawn. Raises UserError for a time before the first snapshot or after the last."""
        times, left = self.statistics["times"], self.statistics["left_out"]
        time = next((t for t in (wanted, left) if t is not None), times[-1])
        if not times[0] <= time <= times[-1]:
            raise UserError(f"time={time:g}: expected a time from {times[0]:g}, the first snapshot, to {times[-1]:g}, "
                            "the last; a flow does not know what follows")  # fmt: skip
        return float(time)

    def build_flow(self, statistics: Mapping[str, Any]) -> Flow:
        o = self.options
        shots = snapshots(statistics["cells"], statistics["counts"], statistics["times"])
        grown = statistics["growth"].split(statistics["counts"][:-1]) if o.objective.plan == "unbalanced" else None
        space = fm.Euclidean(len(statistics["columns"]))
        scales = (o.network.waves,) if o.network.waves else ()
        return Flow(
            fm.Piecewise(fm.Geodesic(space), shots.clock_times), Culture(shots, grown),
            fm.PointField(space, o.network.width, o.network.layers, scales=scales),
            fm.Sampler(fm.Heun(), o.sample.steps, wrap_network=Stretch),
        )  # fmt: skip

    def build_objective(self, statistics: Mapping[str, Any]) -> fm.Objective:
        o = self.options.objective
        plans = {
            "exact": fm.ExactPlan(),
            "entropic": fm.Sinkhorn(o.reg),
            "unbalanced": fm.Unbalanced(o.reg, keep_data=float("inf"), keep_noise=o.keep),
        }
        return fm.FlowMatching(fm.Transport(within=("time",), plan=plans[o.plan]))

    def request(self, n: int, time: float | None = None, **sample: Any) -> Context:
        return request(self.snapshots, n, self.time(self.options.sample.time if time is None else time))

    def decode(self, state: State, context: Context) -> list[Cell]:
        first, last = self.statistics["times"][0], self.statistics["times"][-1]
        days = context.cond["day"] if "day" in context.cond else first + (last - first) * context.cond["time"]
        x = self.scale.leave(state[:, 0].detach().cpu().double()).tolist()
        return [Cell(day, tuple(row)) for day, row in zip(days.tolist(), x, strict=True)]

    def read(self, paths: Sequence[Any]) -> list[Cell]:
        return files.read(paths)

    def write(self, samples: Sequence[Cell], folder: Path, first: int = 0) -> list[Path]:
        return files.write(samples, self.statistics["columns"], folder, first)

    def write_provenance(self, folder: Path) -> list[Path]:
        """What was read, printed and written as ``cells.txt``."""
        return write_summary(self.sets, folder)

    # -------------------------------------------------------------------------------------------------------- judging

    def build_metrics(self) -> Mapping[str, fm.Metric]:
        return {"distances": lambda samples, reference: judge.distances(samples, reference, self.scale)}

    def references(self, samples: Sequence[Cell]) -> dict[str, list[Cell]]:
        """Cells of the time of the samples, the floor, and what needs no flow; as many in each row."""
        time = samples[0].time if samples else self.time(self.options.sample.time)
        return judge.references(self.sets, time, min(self.options.metrics.most, max(2, len(samples))))

    def report(self, rows: Mapping[str, list[Cell]], folder: Path) -> list[Path]:
        return pictures.rows(rows, self.scale, folder)

    def evaluate_flow(self, flow: Flow, folder: Path | None = None) -> dict[str, float]:
        """Growth and fates by groups; with a folder, those of each cell in ``growth.csv`` and ``fates.csv``, and
        ``cells.png``."""
        o, shots, grown = self.options.metrics, self.sets.train, self.grown
        found = fates.fates(flow, shots[0], shots[-1], self.snapshots.clock_times, o.clusters, o.steps)
        if folder is not None:
            growth.write(shots, grown, Path(folder) / "growth.csv")
            fates.write(found, shots[0], Path(folder) / "fates.csv")
            pictures.overview(shots, grown, found, Path(folder))
        landed = fates.landing(found.paths[-1], self.sets.held_out[-1].x, shots[-1].x)
        return {**growth.of_groups(shots, grown), **fates.table(found, shots[0]), **landed}


__all__ = ["Cell", "Cells", "carried", "cells"]
