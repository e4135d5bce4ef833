"""How good one, two and four steps are: flow maps beside rectified flow, reflow and distillation.

All rows have the same network, batches, optimiser and number of training steps; reflow and distillation start from the
first row as their teacher, so they have had twice as many steps in all, and the pairs that the teacher made. W2 is the
Wasserstein-2 distance of 600 samples to 600 data, whose floor is that of two sets of data; the energy distance is
unbiased.

Each world is a distribution on a flat or curved space, with noise, data that can be drawn without end, and two
distances between samples and data: W2 of geodesic lengths, and the energy distance of chords (for digits, the Fréchet
distance in features of a small classifier). The first is above zero for two finite sets of one distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import DIGITS, wasserstein
from benchmarks.tables import Record, Result, Study, markdown, mean
from benchmarks.training import Budget, Perceptron, adam, cosine, total, train
from fm_science import figures
from fm_science.couplings import Paired, Reflow
from fm_science.distances import energy_distance
from fm_science.flow import Flow
from fm_science.networks import PointField, TimeEmbedding
from fm_science.objectives import FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Objective, Semigroup
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Prior, Uniform
from fm_science.solvers import Euler, FlowMap, Heun, Solver
from fm_science.spaces import SO3, Euclidean, Leaf, Sphere
from fm_science.spaces.rotations import rotation_exp
from fm_science.state import Context


@dataclass(frozen=True)
class World:
    """What is to be learned.

    Attributes:
        title: for tables and figures.
        space, prior: where it lives, and the noise it is made from.
        data: ``n -> (n, 1, *event)``, fresh data.
        flat: ``(n, 1, *event) -> (n, 2)``, for pictures; ``None``: points are square images.
        unit: of lengths.
        width: of the network.
        likeness: ``samples -> distance`` from the data, lower is better, in place of the energy distance.
    """

    title: str
    space: Leaf
    prior: Prior
    data: Callable[[int], Tensor]
    flat: Callable[[Tensor], Tensor] | None
    unit: str = ""
    width: int = 64
    likeness: Callable[[Tensor], float] | None = None

    @property
    def second(self) -> str:
        """What the second distance is."""
        return "Fréchet distance in features" if self.likeness else "energy distance x 1000"

    def flow(self) -> Flow:
        """A flow with a blank two-time network: of curved spaces the ready one, of flat ones four plain layers."""
        if not isinstance(self.space, Euclidean):
            return Flow(Geodesic(self.space), self.prior, PointField(self.space, self.width, 3, two_times=True))
        time = TimeEmbedding(16, highest=20.0, two_times=True)
        return Flow(Geodesic(self.space), self.prior, Perceptron(self.space.event[-1], self.width, 4, time))


def clusters(space: Leaf, centres: Tensor, spread: float) -> Callable[[int], Tensor]:
    """Equal wrapped normal clusters around ``centres`` ``(K, *event)``."""

    def draw(n: int) -> Tensor:
        x = centres[torch.randint(len(centres), (n,))][:, None]
        return space.exp(x, spread * space.gaussian(x))

    return draw


def plane() -> World:
    """Eight Gaussians on a circle."""
    angle = 0.25 * math.pi * torch.arange(8)
    centres = 3 * torch.stack([angle.cos(), angle.sin()], -1)
    space = Euclidean(2)
    return World("plane: eight Gaussians", space, Normal(), clusters(space, centres, 0.25), lambda x: x[:, 0])


def sphere() -> World:
    """Five clusters, unevenly placed, from uniform noise."""
    space = Sphere(2)
    places = [[0.9, 0.1, 0.4], [0.2, 0.9, 0.4], [-0.6, 0.6, 0.5], [0.3, -0.5, 0.8], [0.6, 0.6, -0.5]]
    corners = space.project(torch.tensor(places))

    def flat(x: Tensor) -> Tensor:
        return torch.stack([torch.atan2(x[:, 0, 1], x[:, 0, 0]), x[:, 0, 2]], -1)  # equal areas

    return World("sphere: five clusters", space, Uniform(), clusters(space, corners, 0.2), flat, "rad")


def rotations() -> World:
    """Five clusters of rotations, unevenly placed, from uniform noise; pictures show where the third axis points."""
    turns = [[0.0, 0.0, 0.0], [1.5, 0.2, 0.0], [0.0, 1.4, 0.6], [0.3, -0.6, 1.6], [1.2, 1.2, -1.0]]
    centres = rotation_exp(torch.tensor(turns))
    space = SO3()

    def flat(x: Tensor) -> Tensor:
        return torch.stack([torch.atan2(x[:, 0, 1, 2], x[:, 0, 0, 2]), x[:, 0, 2, 2]], -1)

    return World("rotations: five clusters", space, Uniform(), clusters(space, centres, 0.2), flat, "rad")


def digits() -> World:
    """The shipped 8x8 digits, their grey levels dithered, as vectors of 64 values."""

    def draw(n: int) -> Tensor:
        return DIGITS.dithered(DIGITS.train[torch.randint(len(DIGITS.train), (n,))])

    return World("digits", Euclidean(64), Normal(), draw, None, width=256, likeness=DIGITS.distance)


WORLDS = {"plane": plane, "sphere": sphere, "rotations": rotations, "digits": digits}


def measured(world: World, samples: Tensor, seed: int, n: int = 600) -> tuple[float, float]:
    """Both distances between samples ``(N, 1, *event)`` and fresh data; W2 of the first ``n``, and the energy distance
    times 1000 or the likeness to data that the world has."""
    with torch.random.fork_rng([]):
        torch.manual_seed(10_000 + seed)
        data = world.data(len(samples))
    chords = [x.flatten(1).double() for x in (samples, data)]
    second = world.likeness(samples) if world.likeness else 1e3 * energy_distance(*chords)
    return wasserstein(samples[:n], data[:n], world.space), second


STEPS, BATCH = (1, 2, 4), 256
FLOOR, WALK = "two sets of data (floor)", "1-rectified flow, Heun, 50 evaluations"
Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Method:
    """A way to few steps: what is minimised, how it is walked, whether it learns from a teacher's pairs, and with how
    many steps it can be sampled."""

    objective: Objective
    solver: Solver
    taught: bool = False
    steps: tuple[int, ...] = STEPS


METHODS: dict[str, Method] = {
    "1-rectified flow, Euler": Method(FlowMatching(), Euler()),
    "2-rectified flow (reflow), Euler": Method(FlowMatching(Paired()), Euler(), taught=True),
    # all times are 0: the velocity there is the whole way
    "distillation to one step": Method(FlowMatching(Paired(), torch.zeros), Euler(), taught=True, steps=(1,)),
    "flow map, Lagrangian": Method(FlowMapMatching(law=Lagrangian(), share=0.5), FlowMap()),
    "flow map, mean flow": Method(FlowMapMatching(law=MeanFlow(), share=0.5), FlowMap()),
    "flow map, semigroup (shortcut)": Method(FlowMapMatching(law=Semigroup(), share=0.5), FlowMap()),
}


def learn(world: World, objective: Objective, steps: int, seed: int, pairs: Pairs | None = None) -> Flow:
    """A flow trained from scratch, on fresh data or on ``pairs`` (x0, x1)."""
    torch.manual_seed(seed)
    flow, context, budget = world.flow(), Context.full(BATCH), Budget(steps)

    def loss(step: int) -> Tensor:
        if pairs is None:
            return total(objective(flow, world.data(BATCH), context))
        rows = torch.randint(len(pairs[0]), (BATCH,))
        x0, x1 = (x[rows] for x in pairs)
        return total(objective(flow, x1, context, x0))

    optimizer = adam(flow)
    train(flow, loss, optimizer, cosine(optimizer, budget), budget, clip=1.0)
    return flow


def compare(world: World, study: Study, seed: int, shown: dict[str, Tensor]) -> list[Record]:
    """The distances of every method by its number of steps; samples in one step are added to ``shown``."""
    steps, samples, taught = study.budget(2000, 200), *((1000, 2000) if study.quick else (4000, 10_000))
    context, pairs = Context.full(samples), None
    torch.manual_seed(seed)
    records = [_row(FLOOR, {1: measured(world, world.data(samples), seed)})]
    for name, method in METHODS.items():
        flow = learn(world, method.objective, steps, seed, pairs if method.taught else None)
        drawn = {n: flow.sample(context, method.solver, n, seed=seed) for n in method.steps}
        if pairs is None:  # the first row teaches
            walked = flow.sample(context, Heun(), 25, seed=seed)
            records.append(_row(WALK, {1: measured(world, walked, seed)}))
            shown[WALK] = walked[:1500]
            pairs = teach(flow, taught)
        records.append(_row(name, {n: measured(world, x, seed) for n, x in drawn.items()}))
        shown[name] = drawn[1][:1500]
    return records


def _row(name: str, found: Mapping[int, tuple[float, float]]) -> Record:
    """Both distances by the number of steps, as one record."""
    numbers = {f"{kind} {n}": pair[k] for n, pair in found.items() for k, kind in enumerate(("w2", "second"))}
    return {"method": name, **numbers}


def teach(flow: Flow, n: int) -> Pairs:
    """Noise and where the flow carries it."""
    context = Context.full(n)
    x0 = flow.noise(context)
    ends, x1, _ = Reflow(flow, Heun(), 25).pair(flow.path.space.bind(context), x0, x0, context)
    return ends, x1


def run(study: Study) -> Result:
    """A table and pictures for each world."""
    result = Result()
    for name in study.chosen(list(WORLDS)):
        world, found = WORLDS[name](), []
        shown: dict[str, Tensor] = {}
        for seed in study.trials():
            found += study.measure({"world": name, "seed": seed}, partial(compare, world, study, seed, shown))
        result.records += found
        unit = f" ({world.unit})" if world.unit else ""
        numbers = {f"w2 {n}": f"W2{unit}, {n} step{'s' * (n > 1)}" for n in STEPS}
        numbers |= {f"second {n}": f"{world.second}, {n} step{'s' * (n > 1)}" for n in STEPS[:2]}
        result.tables[f"{world.title[0].upper()}{world.title[1:]}"] = markdown(found, {"method": "method"}, numbers)
        if shown:  # records that were kept have no samples
            result.pictures[f"few_step_{name}"] = partial(picture, world, shown)
        result.pictures[f"few_step_{name}_steps"] = partial(curves, world, found)
    return result


def picture(world: World, shown: Mapping[str, Tensor]) -> Any:
    """Samples in one step beside data."""
    made = figures.figure(13, 6)
    panels = {"data": world.data(1500), **shown}
    for axis, (name, x) in zip(made.subplots(2, 4).flatten(), panels.items(), strict=False):
        if world.flat is None:
            side = math.isqrt(x[0].numel())
            tiles = torch.nn.functional.pad(x[:64].reshape(8, 8, side, side).clamp(-1, 1), (1, 1, 1, 1), value=-1.0)
            axis.imshow(tiles.transpose(1, 2).reshape(8 * (side + 2), -1), cmap="gray_r")
        else:
            limits = torch.cat([world.flat(y) for y in panels.values()])
            colour = figures.COLOURS[0 if name.startswith("flow map") else 1]
            axis.scatter(*world.flat(x).T, s=1.5, linewidths=0, color=colour)
            axis.set(xlim=limits[:, 0].aminmax(), ylim=limits[:, 1].aminmax())
        axis.set(title=name.replace(", Euler", ""), xticks=[], yticks=[])
        axis.title.set_fontsize(8.5)
    return made


def curves(world: World, records: list[Record]) -> Any:
    """W2 against the number of steps, with the floor."""
    made = figures.figure(6.5, 4)
    axis = made.subplots()
    rows: Callable[[str], list[Record]] = lambda name: [r for r in records if r["method"] == name]  # noqa: E731
    colours = [figures.COLOURS[k] for k in (1, 2, 5, 0, 3, 4)]
    for (name, method), colour in zip(METHODS.items(), colours, strict=True):
        means = [mean(rows(name), f"w2 {n}") for n in method.steps]
        axis.plot(method.steps, means, marker="o", label=name, color=colour)
    axis.axhline(mean(rows(FLOOR), "w2 1"), color=figures.QUIET, linestyle="--", label="floor")
    axis.set(xscale="log", yscale="log", xlabel="steps, one evaluation each", ylabel=f"W2 {world.unit}")
    axis.set(title=world.title, xticks=STEPS, xticklabels=STEPS)
    axis.legend(fontsize=7.5)
    return made
