"""Reflow straightens and keeps marginals (Liu, Gong & Liu 2023): k = 1, 2, 3, and the distillation of each to one step.

The k-rectified flow is trained on the ends of the ways of the one before. A distilled network learns to jump from noise
to the end of its way, by the same regression with the time held at 0.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import DIGITS, SHAPE, adaptive, fixed, wasserstein, way
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
from tests.oracles.plane import draw

PAIRS = 20_000  #: ends of ways on which the next flow is trained
STEPS = (1, 2, 4, 8, 100)


TASKS = {"N→8gaussians": "8gaussians", "N→moons": "moons", "digits": "digits"}


def data_of(target: str, seed: int) -> Tensor:
    """Training data for a seed, ``(n, 1, dim)``."""
    torch.manual_seed(seed)
    return DIGITS.dithered(DIGITS.train) if target == "digits" else draw(target, 10_000, 3 * seed)


def distance(target: str, samples: Tensor, seed: int) -> float:
    """W2 of samples to held-out points in the plane, or the Fréchet distance in features to the training digits."""
    return DIGITS.distance(samples) if target == "digits" else wasserstein(samples, draw(target, 1000, 3 * seed + 1))


@torch.no_grad()
def pairs(flow: Flow, seed: int) -> tuple[Tensor, Tensor]:
    """Noise and where the flow carries it."""
    torch.manual_seed(40_000 + seed)
    x0 = flow.noise(Context.full(PAIRS))
    return x0, flow.transport(x0, Context.full(PAIRS), RK4(), 25)


def measure(target: str, seed: int, steps: int) -> list[Record]:
    """Three rectified flows, one after the other, and what each distils to."""
    shape, batch, judged = (SHAPE, 256, 359) if target == "digits" else ({"dim": 2}, 256, 1000)
    blank = Flow(Geodesic(Euclidean(shape["dim"])), Normal(), network(seed, **shape))
    torch.manual_seed(900 + seed)
    x0, data, ends, records = blank.noise(Context.full(judged)), data_of(target, seed), None, []
    floor = DIGITS.real if target == "digits" else distance(target, draw(target, 1000, 950 + seed), seed)
    for k in (1, 2, 3):
        objective = FlowMatching(coupling=Independent() if k == 1 else Paired())
        flow = fitted(copy.deepcopy(blank), matching(objective), data, steps, batch, seed, 2e-3, ends)
        travelled = way(flow, x0)
        with torch.no_grad():
            least = (flow.transport(x0, Context.full(len(x0)), RK4(), 25) - x0).square().flatten(1).sum(1).mean()
        found: dict[str, Any] = {"k": k, "bend": travelled.bend / float(least), "length": travelled.length}
        found |= {f"distance {n}": distance(target, fixed(flow, x0, Euler(), n)[0], seed) for n in STEPS}
        found |= {"floor": floor, "nfe 1e-5": adaptive(flow, x0, 1e-5)[1]}
        ends, data = pairs(flow, seed)
        jump = FlowMatching(coupling=Paired(), times=torch.zeros)
        student = fitted(copy.deepcopy(flow), matching(jump), data, steps // 2, batch, seed, 1e-3, ends)
        found["distilled"] = distance(target, fixed(student, x0, Euler(), 1)[0], seed)
        records.append(found)
    return records


def run(study: Study) -> Result:
    """The claim, in the plane and on digits."""
    records: list[Record] = []
    for name in study.chosen(list(TASKS)):
        steps = study.budget(2000 if name == "digits" else 1200, 240)
        for seed in study.trials():
            records += study.measure({"task": name, "seed": seed}, partial(measure, TASKS[name], seed, steps))
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
