"""Minibatch transport shortens and straightens the ways (Tong et al. 2024, table 2), beside torchcfm in the same run.

Four tasks in the plane, and digits by the size of the batch that is paired. Each method trains the same network from
the same first weights on the same batches. Rows that begin with torchcfm make their training pairs with that library
(skipped where it is not installed); the semidiscrete coupling sees the first thousand data points only, all at once.

On digits all lines see the same batches of 512 in the same order; what differs is among how many of them noise may be
exchanged (Pooladian et al. 2023). In 64 dimensions a few noises are about as far from every digit, so small batches
gain little. There the semidiscrete coupling pairs with all training digits at once.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import DIGITS, SHAPE, adaptive, fixed, wasserstein, way
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
from tests.oracles.plane import draw

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
    torch.manual_seed(seed)
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


BATCH, SAMPLES = 512, 359
SIZES = (8, 32, 128, 512)  #: noises that are exchanged among each other
DIGIT_STEPS = (1, 2, 4, 8)
TITLE = (
    "Transport on digits. Length of training pairs over that of independent ones; path energy; length of the way over "
    "its displacement; Fréchet distance in features of 359 samples to the training digits by Euler steps, at dopri5 "
    "1e-5, and of held-out digits"
)


def in_pools(coupling: Coupling, size: int) -> Loss:
    """Flow matching whose noise is exchanged among ``size`` samples at a time."""
    objective = FlowMatching(coupling=coupling)

    def loss(flow: Flow, x1: Tensor, x0: Tensor | None) -> Tensor:
        pool = torch.arange(len(x1)) // size
        context = Context.full(len(x1), pool=pool)
        return objective(flow, DIGITS.dithered(x1), context, x0)["loss"].mean()

    return loss


def everything(seed: int) -> Coupling:
    """Transport from noise to all training digits, dithered once."""
    torch.manual_seed(seed)
    data = DIGITS.dithered(DIGITS.train)
    coupling = Semidiscrete(data, Context.full(len(data)))
    coupling.fit(Euclidean(64), Normal(), iterations=1500, batch=256, tolerance=0.3)
    return coupling


def apart(coupling: Coupling, size: int) -> float:
    """Mean distance of pairs over that of independent pairs."""
    torch.manual_seed(0)
    x1 = DIGITS.dithered(DIGITS.train[torch.randperm(len(DIGITS.train))[:BATCH]])
    context = Context.full(BATCH, pool=torch.arange(BATCH) // size)
    x0, space = torch.randn_like(x1), Euclidean(64).bind(context)
    y0, y1, _ = coupling.pair(space, x0, x1, context)
    return float((y1 - y0).flatten(1).norm(dim=1).mean() / (x1 - x0).flatten(1).norm(dim=1).mean())


def methods_by_pool() -> dict[str, tuple[Coupling, int]]:
    """By name: the coupling, and among how many samples it pairs."""
    pooled = {f"OT-CFM, {n} at a time": (Transport(within=("pool",)), n) for n in SIZES}
    return {"I-CFM": (Independent(), BATCH), **pooled}


def measure_digits(name: str, seed: int, steps: int) -> list[Record]:
    """What one coupling gives."""
    torch.manual_seed(900 + seed)
    x0 = torch.randn(SAMPLES, 1, 64)
    coupling, size = (everything(seed), BATCH) if name == "semidiscrete" else methods_by_pool()[name]
    flow = Flow(Geodesic(Euclidean(64)), Normal(), network(seed, **SHAPE))
    fitted(flow, in_pools(coupling, size), DIGITS.train, steps, BATCH, seed, 2e-3)
    travelled = way(flow, x0)
    end, nfe = adaptive(flow, x0, 1e-5)
    found = {f"distance {n}": DIGITS.distance(fixed(flow, x0, Euler(), n)[0]) for n in DIGIT_STEPS}
    found |= {"pairs": apart(coupling, size), "energy": travelled.energy, "length": travelled.length}
    return [{**found, "nfe 1e-5": nfe, "distance": DIGITS.distance(end), "real": DIGITS.real}]


def on_digits(study: Study) -> list[Record]:
    """Every coupling and seed."""
    records: list[Record] = []
    for seed in study.trials():
        for name in (*methods_by_pool(), "semidiscrete"):
            key = {"task": "digits", "method": name, "seed": seed}
            records += study.measure(key, partial(measure_digits, name, seed, study.budget(1000, 200)))
    return records


def digits_table(records: list[Record]) -> str:
    """A line a coupling."""
    numbers = {
        "pairs": "pairs", "energy": "energy", "length": "length",
        **{f"distance {n}": f"{n} Euler" for n in DIGIT_STEPS}, "distance": "dopri5", "real": "held-out",
        "nfe 1e-5": "NFE at 1e-5",
    }  # fmt: skip
    return markdown(records, {"method": "method"}, numbers)


def curves(records: list[Record]) -> Any:
    """Distance against Euler steps, a colour a coupling, and the evaluations of dopri5."""
    canvas = figure(9, 3.3)
    left, right = canvas.subplots(1, 2)
    colours = (*COLOURS, QUIET)
    for k, ((name,), rows) in enumerate(grouped(records, ["method"]).items()):
        means = [mean(rows, f"distance {n}") for n in DIGIT_STEPS]
        left.plot(DIGIT_STEPS, means, marker=".", color=colours[k], label=name)
        right.barh(k, mean(rows, "nfe 1e-5"), color=colours[k])
    left.axhline(mean(records, "real"), color=QUIET, ls="--", lw=0.8)
    left.set(xscale="log", yscale="log", xlabel="Euler steps", ylabel="Fréchet distance", title="digits")
    left.set_xticks(DIGIT_STEPS, [str(n) for n in DIGIT_STEPS])
    left.legend(fontsize=7.5)
    names = [name for (name,) in grouped(records, ["method"])]
    right.set_yticks(range(len(names)), names, fontsize=7.5)
    right.set(title="evaluations of dopri5 at 1e-5")
    right.invert_yaxis()
    return canvas


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
    tables = {"Transport in the plane, 1,000 samples": planar(records), **{TITLE: digits_table(digits)}}
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
