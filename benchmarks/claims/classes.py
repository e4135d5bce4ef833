"""Few steps where places and kinds are drawn together: what a jump of the one does to the other.

Points in the plane carry one of eight kinds, some eight times as common as others, and points of a kind lie around
their own centre. A kind cannot flow: it jumps by its posterior, at random. Measured are the share of points that lie
nearest to the centre of their kind, the Wasserstein-2 distance of places, and the total variation of kinds, for flow
matching with Euler steps (the place goes half a step, the kind jumps, the place goes the other half) and for a flow
map (the kind jumps, then the place goes as far), two evaluations a step each.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.claims.measures import wasserstein
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean
from benchmarks.training import Budget, Perceptron, adam, cosine, total, train
from fm_science import figures
from fm_science.flow import Flow
from fm_science.networks import TimeEmbedding
from fm_science.objectives import FlowMapMatching, FlowMatching, Objective
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Posterior
from fm_science.priors import Classes, Normal, ProductPrior
from fm_science.solvers import Euler, FlowMap, Solver
from fm_science.spaces import Categorical, Euclidean
from fm_science.state import Context

KINDS, BATCH, STEPS = 8, 256, (1, 2, 4, 8, 16, 32, 64)
ANGLES = 2 * math.pi / KINDS * torch.arange(KINDS)
SHARES = torch.arange(1.0, KINDS + 1) / sum(range(KINDS + 1))  # of the kinds in data; noise has them all alike
CENTRES = 3 * torch.stack([ANGLES.cos(), ANGLES.sin()], -1)
METHODS: dict[str, tuple[Objective, Solver]] = {
    "flow matching, Euler": (FlowMatching(), Euler()),
    "flow map": (FlowMapMatching(share=0.5), FlowMap()),
}


def draw(n: int) -> dict[str, Tensor]:
    """Places ``(n, 1, 2)`` and kinds ``(n, 1, 8)``."""
    kind = torch.multinomial(SHARES, n, replacement=True)[:, None]
    return {"place": CENTRES[kind] + 0.25 * torch.randn(n, 1, 2), "kind": nn.functional.one_hot(kind, KINDS).float()}


def learn(objective: Objective, steps: int, seed: int) -> Flow:
    """A flow trained on fresh data."""
    torch.manual_seed(seed)
    path = ProductPath(place=Geodesic(Euclidean(2)), kind=Geodesic(Categorical(KINDS), predicts=Posterior()))
    network = Perceptron(2 + KINDS, 96, 4, TimeEmbedding(16, highest=20.0, two_times=True))
    flow = Flow(path, ProductPrior(place=Normal(), kind=Classes((1 / KINDS,) * KINDS)), network)
    context, budget, optimizer = Context.full(BATCH), Budget(steps), adam(flow)
    loss = lambda step: total(objective(flow, draw(BATCH), context))  # noqa: E731
    train(flow, loss, optimizer, cosine(optimizer, budget), budget, clip=1.0)
    return flow


def measure(x: dict[str, Tensor], real: dict[str, Tensor]) -> dict[str, float]:
    """Agreement of place and kind, distance of places, and variation of kinds."""
    kind = x["kind"][:, 0].argmax(-1)
    nearest = torch.cdist(x["place"][:, 0], CENTRES).argmin(-1)
    shares = torch.bincount(kind, minlength=KINDS) / len(kind)
    return {
        "agree": float((nearest == kind).double().mean()),
        "w2": wasserstein(x["place"][:1000], real["place"][:1000]),
        "tv": float(0.5 * (shares - SHARES).abs().sum()),
    }


def compare(seed: int, steps: int, samples: int) -> list[Record]:
    """Every method by its steps, and real data."""
    torch.manual_seed(1000 + seed)
    real = draw(samples)
    records: list[Record] = [{"method": "data", "steps": 0, **measure(draw(samples), real)}]
    for name, (objective, solver) in METHODS.items():
        flow = learn(copy.deepcopy(objective), steps, seed)
        for n in STEPS:
            x = flow.sample(Context.full(samples), solver, n, seed=seed)
            records.append({"method": name, "steps": n, **measure(x, real)})
    return records


def run(study: Study) -> Result:
    """The table and the picture."""
    records: list[Record] = []
    for seed in study.trials():
        records += study.measure({"seed": seed}, partial(compare, seed, study.budget(2000, 200), 4000))
    numbers = {"agree": "place agrees with kind", "w2": "W2 of places", "tv": "total variation of kinds"}
    table = markdown(records, {"method": "method", "steps": "steps"}, numbers)
    return Result(records, {"Places and kinds": table}, {"few_step_classes": partial(picture, records)})


def picture(records: list[Record]) -> Any:
    """Disagreement and distance of places against steps."""
    canvas = figures.figure(8.5, 3.3)
    left, right = canvas.subplots(1, 2)
    for k, name in enumerate(METHODS):
        rows = grouped([r for r in records if r["method"] == name], ["steps"]).values()
        left.plot(STEPS, [1 - mean(r, "agree") for r in rows], color=figures.COLOURS[k], marker="o", label=name)
        right.plot(STEPS, [mean(r, "w2") for r in rows], color=figures.COLOURS[k], marker="o")
    data = [r for r in records if r["method"] == "data"]
    right.axhline(mean(data, "w2"), color=figures.QUIET, ls="--")
    left.axhline(1 - mean(data, "agree") or 1e-4, color=figures.QUIET, ls="--", label="data")
    left.set(title="places far from the centre of their kind", xscale="log", yscale="log", xlabel="steps")
    right.set(title="W2 of places", xscale="log", yscale="log", xlabel="steps")
    for ax in (left, right):
        ax.set_xticks(STEPS, [str(n) for n in STEPS])
    left.legend(fontsize=8)
    return canvas
