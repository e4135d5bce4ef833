"""Functions: flow matching in infinite dimensions.

A function is known by its values at sensors: on a regular grid in one, two or three dimensions, or scattered, each
function with its own. Noise is a Gaussian process, a law of functions and not of grids, and the networks are operators;
so a flow that was trained at one resolution samples at another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.errors import OptionError, UserError
from fm_science.flow import Sampler
from fm_science.state import Context

from . import appraisal, conditional, recipe
from . import metrics as measures
from . import report as pictures
from .data import Data, Sets, decode, load
from .files import Layout, read, write
from .recipe import Coupling, Network, Objective, Path, Sample
from .sensors import Sampled, Shape, parse, places, quadrature, refined

OPTIONS = {
    "data": Data, "network": Network, "path": Path, "coupling": Coupling, "objective": Objective, "sample": Sample,
    "metrics": measures.Metrics,
}  # fmt: skip


def build(
    data: Any = None, network: Any = None, path: Any = None, coupling: Any = None, objective: Any = None,
    sample: Any = None, metrics: Any = None,
) -> Domain:  # fmt: skip
    """The domain of functions. Each argument is an options dataclass of this package, a mapping, or None.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no functions to learn from, or options do not go together.
    """
    o = groups(OPTIONS, locals())
    sets = load(o["data"])
    shown = recipe.interval(o["objective"].shown, "objective.shown")[1] > 0
    pairs = recipe.coupling(o["coupling"], sets, shown)
    layout = Layout(periodic=o["data"].periodic)
    prior, network = recipe.prior(o["path"], sets), recipe.network(o["network"], o["path"], sets, shown)
    if shown:
        prior, network = recipe.completing(prior, network, o["objective"].shown_noise)
    return Domain(  # type: ignore[abstract]  # a record of its parts
        name="function",
        path=recipe.path(o["path"], sets),
        prior=prior,
        network=network,
        data=TrainingData(sets.train, sets.held_out, o["data"].batch, 0, o["data"].workers),
        objective=recipe.objective(o["objective"], o["path"], pairs),
        sampler=Sampler(recipe.solver(o["sample"], sets, shown, pairs.independent), o["sample"].steps),
        request=Request(sets, o["sample"]),
        decode=partial(decode, sets.frame),
        read=partial(comparable, sets, layout),
        write=write,
        metrics=measures.metrics(sets),
        report=pictures.report,
        references=partial(measures.references, o["metrics"], sets),
        trajectory=trajectory,
        table=partial(measures.table, sets),
        appraise=partial(appraisal.appraise, sets, o["metrics"], Request(sets, Sample())),
        options=OPTIONS,
    )


def comparable(sets: Sets, layout: Layout, paths: Iterable[str | FilePath]) -> list[Sampled]:
    """The functions of files and folders. Raises UserError where there are none, or they have other channels or
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

    Raises UserError where observations do not fit the sensors.
    """

    def __init__(self, sets: Sets, o: Sample) -> None:
        self.sets, self.grid = sets, o.grid
        self.seen = None
        if o.observations is not None:
            self.seen = conditional.observations(o.observations, sets.dim, sets.channels)
        if o.grid is not None or self.seen is not None:
            self(1)  # mistakes show before long work

    def __call__(self, n: int, grid: str | int | None = None) -> Context:
        """``n`` functions on a grid, or at the sensors of random training functions where there is none."""
        grid = self.grid if grid is None else grid
        data = self.sets.train
        if grid is None:
            index = torch.zeros(n, dtype=torch.long) if data.shared else torch.randint(len(data), (n,))
            items = [data[int(i)] for i in index]
            _, context = _collated(items)
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


def _collated(items: Sequence[Any]) -> tuple[Tensor, Context]:
    from fm_science.data import collate
    from fm_science.spaces import Functions

    return collate(Functions(items[0][0].shape[1]), items)  # type: ignore[return-value]


def finer(grid: str | int, sets: Sets) -> Shape:
    """A grid from ``128``, ``64x64``, or ``4x``: four times as fine as the training grid. Raises OptionError."""
    text = str(grid).strip().lower()
    if not text.endswith("x"):
        return parse(text, sets.dim, "sample.grid")
    own = sets.train.functions[0].grid
    if own is None:
        raise OptionError(f"sample.grid={grid!r}: these functions have no grid to refine; name one, such as 128")
    if not text[:-1].isdigit() or int(text[:-1]) < 1:
        raise OptionError(f"sample.grid={grid!r}: expected a number of sensors, 64x64, or a factor such as 4x")
    return refined(own, sets.frame.periodic, int(text[:-1]))


def trajectory(frames: Sequence[Sequence[Sampled]], folder: FilePath, first: int = 0) -> list[FilePath]:
    """One .npz file a sample with a function a step, and a picture of the first ways; numbered from ``first``."""
    folder = FilePath(folder) / "trajectories"
    files: list[FilePath] = []
    for i, way in enumerate(zip(*frames, strict=True), start=first):
        named = [replace(f, name=f"step_{k:04d}") for k, f in enumerate(way)]
        files += [write(named, folder / f"function_{i:06d}")[0]]
    return [*files, pictures.ways(frames, folder / f"ways_{first:06d}.png")]
