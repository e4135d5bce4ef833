"""Functions: flow matching in infinite dimensions.

A function is given by its values at sensors: on a regular grid in one, two or three dimensions, or scattered, each
function with its own. Noise is a Gaussian process, a distribution of functions and not of grids, and the networks are
operators; so a flow that was trained at one resolution samples at another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, Statistics
from fm_science.errors import OptionError, UserError
from fm_science.files import write_dropped
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.objectives import Objective as Loss
from fm_science.state import Context
from fm_science.symmetries import Symmetry

from . import appraisal, conditional, noise, recipe
from . import metrics as measures
from . import report as pictures
from .data import load
from .files import Layout, read, write
from .frame import decode
from .meanings import MEANINGS
from .options import Data
from .recipe import Coupling, Network, Objective, Path, Sample
from .sensors import Sampled, Shape, parse, places, quadrature, refined
from .sets import Sets, Summary
from .stored import FunctionPreparation


@dataclass(frozen=True)
class Options:
    """The options."""

    data: Data = Data()
    network: Network = Network()
    path: Path = Path()
    coupling: Coupling = Coupling()
    objective: Objective = Objective()
    sample: Sample = Sample()
    metrics: measures.Metrics = measures.Metrics()


class Function(Domain):
    """The domain of functions.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no functions to learn from, or options are not compatible.
    """

    name = "function"
    metric_meanings = MEANINGS
    options: Options

    def load_data(self) -> TrainingData:
        o = self.options.data
        sets = load(o, None if self.given is None else self.summary)
        return TrainingData(sets.train, sets.held_out, o.batch, 0, o.workers, sets, sets.digest)

    def preparation(self) -> FunctionPreparation:
        return FunctionPreparation(vars(self.options.data))

    @property
    def sets(self) -> Sets:
        """All data that were read."""
        return self.data.source

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """Units, layouts of sensors, and the noise that was fitted to the data."""
        o, sets = self.options.path, data.source
        known = Summary.of(sets)
        law = noise.fitted(sets, recipe.period(known), 1.0, o.factors) if o.noise == "auto" else None
        return {**known.packed(), "noise": None if law is None else noise.packed(law)}

    @cached_property
    def summary(self) -> Summary:
        """What sampling needs to know about the training functions."""
        return Summary.unpacked(self.statistics)

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The order of sensors means nothing; nor does the origin of a torus on which the network sees no places."""
        return recipe.symmetries(self.options.network, self.summary, self.shown)

    @cached_property
    def shown(self) -> bool:
        """Whether sensors are shown to the network in training."""
        return recipe.interval(self.options.objective.shown, "objective.shown")[1] > 0

    def build_flow(self, statistics: Statistics) -> Flow:
        o, known = self.options, self.summary
        prior = recipe.prior(o.path, known, statistics["noise"])
        network = recipe.network(o.network, o.path, known, self.shown)
        if self.shown:
            prior, network = recipe.completing(prior, network, o.objective.shown_noise)
        pairs = recipe.coupling(o.coupling, known, self.shown)
        sampler = Sampler(recipe.solver(o.sample, known, self.shown, pairs.independent), o.sample.steps)
        return Flow(recipe.path(o.path, known), prior, network, sampler)

    def build_objective(self, statistics: Statistics) -> Loss:
        o = self.options
        return recipe.objective(o.objective, o.path, recipe.coupling(o.coupling, self.summary, self.shown))

    @cached_property
    def _wanted(self) -> Request:
        """What is sampled by default; observations are read once."""
        return Request(self.summary, self.options.sample)

    def request(
        self, n: int, grid: str | int | None = None
    ) -> Context:  # fmt: skip
        """``n`` functions; see :class:`Request`."""
        return self._wanted(n, grid)

    def decode(self, state: Tensor, context: Context) -> list[Sampled]:
        """States ``(B, N, C)`` to functions without their padding, in the units of the source."""
        return decode(self.summary.frame, state, context)

    def read(self, paths: Sequence[Any]) -> list[Sampled]:
        """The functions of files, of the same kind as the training functions."""
        return comparable(self.summary, Layout(periodic=self.options.data.periodic), paths)

    def write(self, samples: Sequence[Sampled], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Files of functions; see :func:`~.files.write`."""
        return write(samples, folder, first)

    def trajectory(self, frames: Sequence[Sequence[Sampled]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """One .npz file per sample with one function per step, and a picture of the first trajectories; numbered from
        ``first``."""
        folder = FilePath(folder) / "trajectories"
        files: list[FilePath] = []
        for i, way in enumerate(zip(*frames, strict=True), start=first):
            named = [replace(f, name=f"step_{k:04d}") for k, f in enumerate(way)]
            files += [write(named, folder / f"function_{i:06d}")[0]]
        return [*files, pictures.ways(frames, folder / f"ways_{first:06d}.png")]

    def build_metrics(self) -> Mapping[str, Metric]:
        return measures.metrics(lambda: self.sets)

    def references(self, samples: Sequence[Sampled]) -> dict[str, list[Sampled]]:
        """Held-out functions, and training functions."""
        return measures.references(self.options.metrics, self.sets, samples)

    def report(self, rows: Mapping[str, list[Sampled]], folder: FilePath) -> list[FilePath]:
        """Pictures of all rows."""
        return pictures.report(rows, folder)

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """What was left out of the data, as ``dropped.csv``; nothing if nothing was."""
        dropped = self.sets.dropped
        return [write_dropped(dropped, folder / "dropped.csv")] if dropped else []

    def per_sample_metrics(self, samples: Sequence[Sampled]) -> list[dict[str, Any]]:
        """Mean, standard deviation, range and the nearest training function of each sample."""
        try:
            sets = self.sets
        except UserError:
            return measures.table(None, samples)
        return measures.table(sets, samples)

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        """The behaviour of the flow on finer grids, its likelihood and its completions; see :mod:`.appraisal`."""
        plain = Request(self.summary, Sample())
        return appraisal.appraise(self.sets, self.options.metrics, plain, flow, folder)


def comparable(sets: Summary, layout: Layout, paths: Iterable[str | FilePath]) -> list[Sampled]:
    """The functions of files and folders. Raises UserError if there are none, or they have other channels or
    coordinates than those of the sets."""
    found = read(paths, layout)
    for f in found:
        have, wanted = (f.values.shape[1], f.coords.shape[1]), (sets.channels, sets.dim)
        if have != wanted:
            raise UserError(
                f"function {f.name!r} has {have[0]} values at a sensor of {have[1]} coordinates; those it would be "
                f"compared with have {wanted[0]} and {wanted[1]}: give data.source=FILE of the same kind"
            )
    return found


class Request:
    """What to sample: ``(n, grid=None) -> Context``. Observations are read once, when the domain is built.

    Raises UserError if observations do not fit the sensors.
    """

    def __init__(self, sets: Summary, o: Sample) -> None:
        self.sets, self.grid = sets, o.grid
        self.seen = None
        if o.observations is not None:
            self.seen = conditional.observations(o.observations, sets.dim, sets.channels)
        if o.grid is not None or self.seen is not None:
            self(1)  # mistakes are found before long work

    def __call__(self, n: int, grid: str | int | None = None) -> Context:
        """``n`` functions on a grid, or at the sensors of random training functions if there is none."""
        grid = self.grid if grid is None else grid
        if grid is None:
            context = _collated(self.sets.draw(n), self.sets.channels)
        else:
            context = self._on(n, finer(grid, self.sets))
        return context if self.seen is None else self._observed(context)

    def _on(self, n: int, shape: Shape) -> Context:
        periodic = self.sets.frame.periodic
        cond = {"coords": places(shape, periodic).float(), "weights": quadrature(shape, periodic).float()}
        cond["grid"] = torch.tensor(shape)
        count = len(cond["coords"])
        every = {k: v.expand(n, *v.shape).clone() for k, v in cond.items()}
        return Context(torch.ones(n, count, dtype=torch.bool), every)

    def _observed(self, context: Context) -> Context:
        assert self.seen is not None
        frame = self.sets.frame
        where, values = frame.unit(self.seen.coords).float(), frame.inside(self.seen.values)
        gap = torch.cdist(context.cond["coords"].float(), where.expand(context.size, -1, -1))
        gap = gap.masked_fill(~context.mask[..., None], torch.inf)
        far, sensor = gap.min(1)
        near = torch.cdist(context.cond["coords"][0], context.cond["coords"][0]).fill_diagonal_(torch.inf).min(1).values
        if bool((far > float(near.max()) * self.sets.dim**0.5).any()):
            raise UserError("some observations lie outside the domain of the functions")
        if any(len(row.unique()) < len(row) for row in sensor[:1]):
            raise UserError(
                "several observations fall on one sensor: sample on a finer grid (grid=4x), or keep one of them"
            )
        seen = torch.zeros_like(context.mask).scatter(1, sensor, True)
        full = torch.zeros(*context.mask.shape, self.sets.channels)
        index = sensor[..., None].expand(-1, -1, self.sets.channels)
        return conditional.show(context, seen, full.scatter(1, index, values.expand(context.size, -1, -1)))


def _collated(layouts: Sequence[Mapping[str, Tensor]], channels: int) -> Context:
    """The context of functions at these sensors."""
    from fm_science.data import collate
    from fm_science.spaces import Functions

    items = [(torch.zeros(len(layout["coords"]), channels), layout) for layout in layouts]
    return collate(Functions(channels), items)[1]


def finer(grid: str | int, sets: Summary) -> Shape:
    """A grid from ``128``, ``64x64``, or ``4x``: four times as fine as the training grid. Raises OptionError."""
    text = str(grid).strip().lower()
    if not text.endswith("x"):
        return parse(text, sets.dim, "sample.grid")
    own = tuple(sets.conditions[0].get("grid", torch.zeros(0)).tolist())
    if not own:
        raise OptionError(f"sample.grid={grid!r}: these functions have no grid to refine; name one, such as 128")
    if not text[:-1].isdigit() or int(text[:-1]) < 1:
        raise OptionError(f"sample.grid={grid!r}: expected a number of sensors, 64x64, or a factor such as 4x")
    return refined(own, sets.frame.periodic, int(text[:-1]))


build = Function
