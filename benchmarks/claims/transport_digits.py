"""Minibatch transport on digits, by the size of the batch that is paired (Tong et al. 2024; Pooladian et al. 2023).

In 64 dimensions a few noises are about as far from every digit, so small batches gain little. All lines see the same
batches of 512 in the same order; what differs is among how many of them noise may be exchanged. The semidiscrete
coupling pairs with all training digits at once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.digits import DIGITS, SHAPE
from benchmarks.claims.measures import adaptive, fixed, way
from benchmarks.tables import Record, Study, grouped, markdown, mean
from benchmarks.training import Loss, fitted, network
from fm_science.couplings import Coupling, Independent, Semidiscrete, Transport
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context

BATCH, SAMPLES = 512, 359
SIZES = (8, 32, 128, 512)  #: noises that are exchanged among each other
STEPS = (1, 2, 4, 8)
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
    """Transport from the law of noise to all training digits, dithered once."""
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


def measure(name: str, seed: int, steps: int) -> list[Record]:
    """What one coupling gives."""
    torch.manual_seed(900 + seed)
    x0 = torch.randn(SAMPLES, 1, 64)
    coupling, size = (everything(seed), BATCH) if name == "semidiscrete" else methods_by_pool()[name]
    flow = Flow(Geodesic(Euclidean(64)), Normal(), network(seed, **SHAPE))
    fitted(flow, in_pools(coupling, size), DIGITS.train, steps, BATCH, seed, 2e-3)
    travelled = way(flow, x0)
    end, nfe = adaptive(flow, x0, 1e-5)
    found = {f"distance {n}": DIGITS.distance(fixed(flow, x0, Euler(), n)[0]) for n in STEPS}
    found |= {"pairs": apart(coupling, size), "energy": travelled.energy, "length": travelled.length}
    return [{**found, "nfe 1e-5": nfe, "distance": DIGITS.distance(end), "real": DIGITS.real}]


def on_digits(study: Study) -> list[Record]:
    """Every coupling and seed."""
    records: list[Record] = []
    for seed in study.trials():
        for name in (*methods_by_pool(), "semidiscrete"):
            key = {"task": "digits", "method": name, "seed": seed}
            records += study.measure(key, partial(measure, name, seed, study.budget(1000, 200)))
    return records


def table(records: list[Record]) -> str:
    """A line a coupling."""
    numbers = {
        "pairs": "pairs", "energy": "energy", "length": "length",
        **{f"distance {n}": f"{n} Euler" for n in STEPS}, "distance": "dopri5", "real": "held-out",
        "nfe 1e-5": "NFE at 1e-5",
    }  # fmt: skip
    return markdown(records, {"method": "method"}, numbers)


def curves(records: list[Record]) -> Any:
    """Distance against Euler steps, a colour a coupling, and the evaluations of dopri5."""
    canvas = figure(9, 3.3)
    left, right = canvas.subplots(1, 2)
    colours = (*COLOURS, QUIET)
    for k, ((name,), rows) in enumerate(grouped(records, ["method"]).items()):
        left.plot(STEPS, [mean(rows, f"distance {n}") for n in STEPS], marker=".", color=colours[k], label=name)
        right.barh(k, mean(rows, "nfe 1e-5"), color=colours[k])
    left.axhline(mean(records, "real"), color=QUIET, ls="--", lw=0.8)
    left.set(xscale="log", yscale="log", xlabel="Euler steps", ylabel="Fréchet distance", title="digits")
    left.set_xticks(STEPS, [str(n) for n in STEPS])
    left.legend(fontsize=7.5)
    names = [name for (name,) in grouped(records, ["method"])]
    right.set_yticks(range(len(names)), names, fontsize=7.5)
    right.set(title="evaluations of dopri5 at 1e-5")
    right.invert_yaxis()
    return canvas
