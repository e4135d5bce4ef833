"""Reflow straightens and keeps marginals (Liu, Gong & Liu 2023): k = 1, 2, 3, and the distillation of each to one step.

The k-rectified flow is trained on the ends of the ways of the one before. A distilled network learns to jump from noise
to the end of its way, by the same regression with the time held at 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import adaptive, fixed, wasserstein, way
from benchmarks.claims.tables import Record, Result, grouped, markdown, mean
from benchmarks.claims.tasks import draw
from benchmarks.claims.training import matching, network, train
from fm_science.couplings import Independent, Paired
from fm_science.figures import COLOURS, figure
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import RK4, Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context

TASKS = {"N→8gaussians": "8gaussians", "N→moons": "moons"}
PAIRS = 20_000  #: ends of ways on which the next flow is trained
STEPS = (1, 2, 4, 8, 100)


@torch.no_grad()
def pairs(flow: Flow, seed: int) -> tuple[Tensor, Tensor]:
    """Noise and where the flow carries it."""
    torch.manual_seed(40_000 + seed)
    x0 = flow.noise(Context.full(PAIRS))
    return x0, flow.transport(x0, Context.full(PAIRS), RK4(), 25)


def measure(task: str, seed: int, steps: int) -> list[Record]:
    """Three rectified flows, one after the other, and what each distils to."""
    data, test = draw(TASKS[task], 10_000, 3 * seed), draw(TASKS[task], 1000, 3 * seed + 1)
    fresh, x0 = draw(TASKS[task], 1000, 950 + seed), draw("N", 1000, 900 + seed)
    ends, records = None, []
    for k in (1, 2, 3):
        coupling = Independent() if k == 1 else Paired()
        blank = Flow(Geodesic(Euclidean(2)), Normal(), network(seed))
        flow = train(blank, matching(FlowMatching(coupling=coupling)), data, steps, 256, seed, 2e-3, ends)
        travelled = way(flow, x0)
        found: dict[str, Any] = {"k": k, "bend": travelled.bend, "length": travelled.length}
        found |= {f"w2 {n}": wasserstein(fixed(flow, x0, Euler(), n)[0], test) for n in STEPS}
        found |= {"w2 floor": wasserstein(fresh, test), "nfe 1e-5": adaptive(flow, x0, 1e-5)[1]}
        ends, data = pairs(flow, seed)
        jump = FlowMatching(coupling=Paired(), times=torch.zeros)
        student = Flow(Geodesic(Euclidean(2)), Normal(), network(seed))
        student.load_state_dict(flow.state_dict())
        student = train(student, matching(jump), data, steps // 2, 256, seed, 1e-3, ends)
        found["w2 distilled"] = wasserstein(fixed(student, x0, Euler(), 1)[0], test)
        records.append({"task": task, "seed": seed, **found})
    return records


def run(quick: bool) -> Result:
    """The claim, in the plane."""
    records = [r for task in TASKS for seed in range(3) for r in measure(task, seed, 300 if quick else 1200)]
    numbers = {
        "bend": "S: E ∫ |x1 - x0 - v|² dt", "length": "length / displacement",
        **{f"w2 {n}": f"W2, {n} Euler" for n in STEPS},
        "w2 distilled": "W2, distilled, 1", "w2 floor": "of two real sets", "nfe 1e-5": "NFE at 1e-5",
    }  # fmt: skip
    tables = {"Reflow in the plane, 1,000 samples": markdown(records, {"task": "task", "k": "k"}, numbers)}
    return Result(records, tables, {"claims_reflow": partial(picture, records)})


def picture(records: list[Record]) -> Any:
    """W2 against the number of Euler steps for k = 1, 2, 3; dots: distilled; dashed: two real sets."""
    canvas = figure(8.5, 3.3)
    for ax, task in zip(canvas.subplots(1, len(TASKS)), TASKS, strict=True):
        here = [r for r in records if r["task"] == task]
        for (k,), rows in grouped(here, ["k"]).items():
            ax.plot(
                STEPS, [mean(rows, f"w2 {n}") for n in STEPS], color=COLOURS[k - 1], marker=".", label=f"{k}-rectified"
            )
            ax.plot([1], [mean(rows, "w2 distilled")], "o", color=COLOURS[k - 1], mfc="white")
        ax.axhline(mean(here, "w2 floor"), color="#8a929c", ls="--", lw=0.8)
        ax.set(title=task, xscale="log", yscale="log", xlabel="Euler steps", ylabel="W2")
    canvas.axes[0].legend(fontsize=8)
    return canvas
