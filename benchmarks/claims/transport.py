"""Minibatch transport shortens and straightens the ways (Tong et al. 2024, table 2), beside torchcfm in the same run.

Four tasks in the plane, and digits by the size of the batch that is paired. Each method trains the same network from
the same first weights on the same batches. Rows that begin with torchcfm make their training pairs with that library
(skipped where it is not installed); the semidiscrete coupling sees the first thousand data points only, all at once.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.laws import draw
from benchmarks.claims.measures import adaptive, fixed, wasserstein, way
from benchmarks.claims.transport_digits import TITLE, curves, on_digits, table
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean
from benchmarks.training import Loss, fitted, matching, network
from fm_science.couplings import Coupling, Independent, Semidiscrete, Transport
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Gaussian, Geodesic, Path
from fm_science.priors import Data, Normal, Prior
from fm_science.schedules import LipmanOT, Trigonometric
from fm_science.solvers import Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context

TASKS = {"N→8gaussians": ("N", "8gaussians"), "N→moons": ("N", "moons"), "N→scurve": ("N", "scurve"),
         "moons→8gaussians": ("moons", "8gaussians")}  # fmt: skip
CELLS = 1000  #: data points of the semidiscrete coupling
PUBLISHED = {  # Tong et al. (2024), table 2: W2 and NPE, mean of five seeds
    ("N→8gaussians", "OT-CFM"): (1.262, 0.018), ("moons→8gaussians", "OT-CFM"): (1.923, 0.053),
    ("N→moons", "OT-CFM"): (0.239, 0.087), ("N→scurve", "OT-CFM"): (0.264, 0.027),
    ("N→8gaussians", "I-CFM"): (1.284, 0.222), ("moons→8gaussians", "I-CFM"): (1.977, 2.738),
    ("N→moons", "I-CFM"): (0.338, 0.841), ("N→scurve", "I-CFM"): (0.333, 0.867),
    ("N→8gaussians", "FM"): (1.062, 0.174), ("N→moons", "FM"): (0.246, 0.778), ("N→scurve", "FM"): (0.377, 0.772),
}  # fmt: skip


def _plane() -> Geodesic:
    return Geodesic(Euclidean(2))


def _torchcfm(name: str) -> Loss:
    """The loss of one of torchcfm's matchers, without the noise that it can add to its paths."""
    import numpy as np
    import torchcfm

    matcher = getattr(torchcfm, name)(sigma=0.0)

    def loss(flow: Flow, x1: Tensor, x0: Tensor | None) -> Tensor:
        np.random.seed(torch.initial_seed() % 2**31)  # noqa: NPY002  torchcfm draws its pairs from there
        noise = flow.prior.sample(flow.path.space, Context.full(len(x1)))[:, 0]
        t, x, target = matcher.sample_location_and_conditional_flow(noise, x1[:, 0])
        return (flow.network(x[:, None], t, Context.full(len(x)))[:, 0] - target).square().mean()

    return loss


def _ours(coupling: Coupling) -> Callable[..., Loss]:
    return lambda prior, data: matching(FlowMatching(coupling=coupling))


def _semidiscrete(prior: Prior, data: Tensor) -> Loss:
    few = data[:CELLS]
    coupling = Semidiscrete(few, Context.full(len(few)))
    coupling.fit(Euclidean(2), prior, iterations=800, batch=256, tolerance=0.2)
    return matching(FlowMatching(coupling=coupling))


#: by name: the path, the loss from prior and data, and whether it needs a Gaussian source
METHODS: dict[str, tuple[Callable[[], Path], Callable[..., Loss], bool]] = {
    "I-CFM": (_plane, _ours(Independent()), False),
    "OT-CFM": (_plane, _ours(Transport()), False),
    "semidiscrete": (_plane, _semidiscrete, False),
    "FM": (lambda: Gaussian(Euclidean(2), LipmanOT(0.1)), _ours(Independent()), True),
    "VP-CFM": (lambda: Gaussian(Euclidean(2), Trigonometric()), _ours(Independent()), False),
    "torchcfm I-CFM": (_plane, lambda prior, data: _torchcfm("ConditionalFlowMatcher"), False),
    "torchcfm OT-CFM": (_plane, lambda prior, data: _torchcfm("ExactOptimalTransportConditionalFlowMatcher"), False),
}


def measure(task: str, name: str, seed: int, steps: int) -> list[Record]:
    """What one method gives on one task."""
    source, target = TASKS[task]
    data, test = draw(target, 10_000, 3 * seed), draw(target, 1000, 3 * seed + 1)
    prior: Prior = Normal() if source == "N" else Data(draw(source, 10_000, 3 * seed + 2))
    path, make, _ = METHODS[name]
    flow = fitted(Flow(path(), prior, network(seed)), make(prior, data), data, steps, 128, seed, 2e-3)
    x0, fresh = draw(source, 1000, 900 + seed), draw(target, 1000, 950 + seed)
    end, found = adaptive(flow, x0, 1e-5)[0], {}
    least = wasserstein(x0, test) ** 2
    travelled = way(flow, x0)
    for tolerance in (1e-5, 1e-3):
        found[f"nfe {tolerance:.0e}".replace("e-0", "e-")] = adaptive(flow, x0, tolerance)[1]
    return [{
        "w2": wasserstein(end, test), "w2 floor": wasserstein(fresh, test),
        "npe": abs(travelled.energy - least) / least, "length": travelled.length,
        "w2 1 step": wasserstein(fixed(flow, x0, Euler(), 1)[0], test),
        "w2 4 steps": wasserstein(fixed(flow, x0, Euler(), 4)[0], test), **found,
    }]  # fmt: skip


def present(name: str) -> bool:
    """Whether a method can run here."""
    return not name.startswith("torchcfm") or importlib.util.find_spec("torchcfm") is not None


def run(study: Study) -> Result:
    """The claim, in the plane and on digits."""
    records: list[Record] = []
    parts = study.chosen([*TASKS, "digits"])
    for task in (part for part in parts if part in TASKS):
        for name, (_, _, gaussian) in METHODS.items():
            if (gaussian and TASKS[task][0] != "N") or not present(name):
                continue
            for seed in study.trials():
                work = partial(measure, task, name, seed, study.budget(1200, 240))
                records += study.measure({"task": task, "method": name, "seed": seed}, work)
    digits = on_digits(study) if "digits" in parts else []
    tables = {"Transport in the plane, 1,000 samples": planar(records), **{TITLE: table(digits)}}
    pictures = {"claims_transport": partial(picture, records), "claims_transport_digits": partial(curves, digits)}
    return Result([*records, *digits], tables, pictures)


def planar(records: list[Record]) -> str:
    """The table of the plane, with the published numbers."""
    known = [{"task": t, "method": m, "their w2": w, "their npe": n} for (t, m), (w, n) in PUBLISHED.items()]
    order = {name: k for k, name in enumerate(METHODS)}
    rows = sorted([*records, *known], key=lambda r: (list(TASKS).index(r["task"]), order[r["method"]]))
    numbers = {
        "w2": "W2", "w2 floor": "of two real sets", "their w2": "W2 published", "npe": "NPE",
        "their npe": "NPE published", "length": "length / displacement", "w2 1 step": "W2, 1 step",
        "w2 4 steps": "4 steps",
        "nfe 1e-5": "NFE at 1e-5", "nfe 1e-3": "at 1e-3",
    }  # fmt: skip
    return markdown(rows, {"task": "task", "method": "method"}, numbers)


def picture(records: list[Record]) -> Any:
    """Normalised path energy, one-step distance and evaluations, a group of bars a task, a colour a method."""
    shown = {
        "npe": "path energy above the least (NPE)",
        "w2 1 step": "W2 after one Euler step",
        "nfe 1e-5": "evaluations at 1e-5",
    }
    names = [n for n in METHODS if any(r["method"] == n for r in records)]
    canvas = figure(12, 3.4)
    colours = (*COLOURS, QUIET)
    for ax, (number, title) in zip(canvas.subplots(1, len(shown)), shown.items(), strict=True):
        for k, name in enumerate(names):
            for i, task in enumerate(TASKS):
                rows = grouped([r for r in records if r["method"] == name and r["task"] == task], ["task"])
                value = mean(next(iter(rows.values()), []), number)
                if math.isfinite(value):
                    place, label = i + 0.8 * (k / len(names) - 0.5), None if i else name
                    ax.bar(place, value, 0.75 / len(names), color=colours[k], label=label)
        ax.set_title(title)
        ax.set_xticks(range(len(TASKS)), list(TASKS), fontsize=7)
        if number != "nfe 1e-5":
            ax.set_yscale("log")
    handles = canvas.axes[0].get_legend_handles_labels()
    canvas.legend(*handles, loc="outside lower center", fontsize=7.5, ncols=len(names))
    return canvas
