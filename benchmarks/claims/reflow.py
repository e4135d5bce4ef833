"""Reflow straightens and keeps marginals (Liu, Gong & Liu 2023): k = 1, 2, 3, and the distillation of each to one step.

The k-rectified flow is trained on the ends of the ways of the one before. A distilled network learns to jump from noise
to the end of its way, by the same regression with the time held at 0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.laws import draw
from benchmarks.claims.measures import adaptive, fixed, wasserstein, way
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean
from benchmarks.training import fitted, matching, network
from fm_science.couplings import Independent, Paired
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import RK4, Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context

PAIRS = 20_000  #: ends of ways on which the next flow is trained
STEPS = (1, 2, 4, 8, 100)


@dataclass(frozen=True)
class Task:
    """A law to learn, and how its samples are judged.

    Attributes:
        shape: of the network.
        data: training data for a seed, ``(n, 1, dim)``.
        judge: ``(samples, seed)`` to their distance from the law.
        floor: the same distance of real data, for a seed.
        judged: samples that are judged.
        steps, batch: of training, each time.
    """

    shape: dict[str, Any]
    data: Callable[[int], Tensor]
    judge: Callable[[Tensor, int], float]
    floor: Callable[[int], float]
    judged: int
    steps: int
    batch: int = 256


def in_the_plane(law: str, steps: int) -> Task:
    """A law in the plane, judged by W2 to 1,000 held-out points."""

    def judge(samples: Tensor, seed: int) -> float:
        return wasserstein(samples, draw(law, 1000, 3 * seed + 1))

    def floor(seed: int) -> float:
        return judge(draw(law, 1000, 950 + seed), seed)

    return Task({}, lambda seed: draw(law, 10_000, 3 * seed), judge, floor, 1000, steps)


def on_digits(steps: int) -> Task:
    """The shipped digits, judged by the Fréchet distance in features."""
    from benchmarks.claims.digits import DIGITS, SHAPE

    def data(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return DIGITS.dithered(DIGITS.train)

    return Task(SHAPE, data, lambda x, seed: DIGITS.distance(x), lambda seed: DIGITS.real, 359, steps)


@torch.no_grad()
def pairs(flow: Flow, seed: int) -> tuple[Tensor, Tensor]:
    """Noise and where the flow carries it."""
    torch.manual_seed(40_000 + seed)
    x0 = flow.noise(Context.full(PAIRS))
    return x0, flow.transport(x0, Context.full(PAIRS), RK4(), 25)


def measure(task: Task, seed: int) -> list[Record]:
    """Three rectified flows, one after the other, and what each distils to."""
    dim = task.shape.get("dim", 2)
    blank = Flow(Geodesic(Euclidean(dim)), Normal(), network(seed, **task.shape))
    torch.manual_seed(900 + seed)
    x0, data, ends, records = blank.noise(Context.full(task.judged)), task.data(seed), None, []
    for k in (1, 2, 3):
        objective = FlowMatching(coupling=Independent() if k == 1 else Paired())
        flow = fitted(copy.deepcopy(blank), matching(objective), data, task.steps, task.batch, seed, 2e-3, ends)
        travelled = way(flow, x0)
        with torch.no_grad():
            least = (flow.transport(x0, Context.full(len(x0)), RK4(), 25) - x0).square().flatten(1).sum(1).mean()
        found: dict[str, Any] = {"k": k, "bend": travelled.bend / float(least), "length": travelled.length}
        found |= {f"distance {n}": task.judge(fixed(flow, x0, Euler(), n)[0], seed) for n in STEPS}
        found |= {"floor": task.floor(seed), "nfe 1e-5": adaptive(flow, x0, 1e-5)[1]}
        ends, data = pairs(flow, seed)
        jump = FlowMatching(coupling=Paired(), times=torch.zeros)
        student = fitted(copy.deepcopy(flow), matching(jump), data, task.steps // 2, task.batch, seed, 1e-3, ends)
        found["distilled"] = task.judge(fixed(student, x0, Euler(), 1)[0], seed)
        records.append(found)
    return records


def run(study: Study) -> Result:
    """The claim, in the plane and on digits."""
    steps = study.budget(1200, 240)
    tasks = {f"N→{law}": in_the_plane(law, steps) for law in ("8gaussians", "moons")}
    tasks["digits"] = on_digits(study.budget(2000, 240))
    records: list[Record] = []
    for name in study.chosen(list(tasks)):
        for seed in study.trials():
            records += study.measure({"task": name, "seed": seed}, partial(measure, tasks[name], seed))
    numbers = {
        "bend": "bend", "length": "length / displacement",
        **{f"distance {n}": f"{n} Euler" for n in STEPS},
        "distilled": "distilled, 1", "floor": "real data", "nfe 1e-5": "NFE at 1e-5",
    }  # fmt: skip
    title = (
        "Reflow. Bend: mean square deviation of the velocity from the straight way, as a share of its square length; "
        "then W2 of 1,000 samples to held-out points (plane) or the Fréchet distance in features of 359 samples to "
        "the training images (digits), by steps"
    )
    tables = {title: markdown(records, {"task": "task", "k": "k"}, numbers)}
    return Result(records, tables, {"claims_reflow": partial(picture, records)})


def picture(records: list[Record]) -> Any:
    """Distance against the number of Euler steps for k = 1, 2, 3; rings: distilled; dashed: real data."""
    tasks = list(dict.fromkeys(r["task"] for r in records))
    canvas = figure(4 * len(tasks), 3.3)
    for ax, task in zip(canvas.subplots(1, len(tasks)), tasks, strict=True):
        here = [r for r in records if r["task"] == task]
        for (k,), rows in grouped(here, ["k"]).items():
            means, colour = [mean(rows, f"distance {n}") for n in STEPS], COLOURS[k - 1]
            ax.plot(STEPS, means, color=colour, marker=".", label=f"{k}-rectified")
            ax.plot([1], [mean(rows, "distilled")], "o", color=colour, mfc="white")
        ax.axhline(mean(here, "floor"), color=QUIET, ls="--", lw=0.8)
        ax.set(title=task, xscale="log", yscale="log", xlabel="Euler steps")
        ax.set_ylabel("Fréchet distance" if task == "digits" else "W2")
    canvas.axes[0].legend(fontsize=8)
    return canvas
