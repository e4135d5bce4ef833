"""Few steps where places and kinds are drawn together: what a jump of the one does to the other.

    python -m benchmarks.few_step_classes [--quick] [--out DIR]

Points in the plane carry one of eight kinds, some eight times as common as others, and points of a kind lie around
their own centre. A kind cannot flow: it jumps by its posterior, at random. Measured are the share of points that lie
nearest to the centre of their kind, the Wasserstein-2 distance of places, and the total variation of kinds, for flow
matching with Euler steps (the place goes half a step, the kind jumps, the place goes the other half) and for a flow
map (the kind jumps, then the place goes as far), two evaluations a step each, three seeds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.claims.measures import wasserstein
from benchmarks.claims.tables import Record, grouped, markdown, mean
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

KINDS, STEPS = 8, (1, 2, 4, 8, 16, 32, 64)
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


class Perceptron(nn.Module):
    """A two-time network of one place and its kind."""

    two_times = True

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.time = TimeEmbedding(16, highest=20.0, two_times=True)
        sizes = [2 + KINDS + self.time.features, *[width] * 4]
        hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, 2 + KINDS))

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Context) -> dict[str, Tensor]:
        seen = torch.cat([x["place"][:, 0], x["kind"][:, 0], self.time(t, context.t_end)], -1)
        place, kind = self.net(seen)[:, None].split((2, KINDS), -1)
        return {"place": place, "kind": kind}


def train(objective: Objective, steps: int, seed: int) -> Flow:
    """A flow trained on fresh data; Adam with a cosine decay."""
    torch.manual_seed(seed)
    path = ProductPath(place=Geodesic(Euclidean(2)), kind=Geodesic(Categorical(KINDS), predicts=Posterior()))
    flow = Flow(path, ProductPrior(place=Normal(), kind=Classes((1 / KINDS,) * KINDS)), Perceptron())
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3, betas=(0.9, 0.99))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 2e-5)
    context = Context.full(256)
    for _ in range(steps):
        losses = objective(flow, draw(256), context)
        optimizer.zero_grad()
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return flow.eval()


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


def run(steps: int, samples: int) -> list[Record]:
    """Every method and seed by its steps, and real data."""
    records: list[Record] = []
    for seed in range(3):
        torch.manual_seed(1000 + seed)
        real = draw(samples)
        records.append({"method": "data", "steps": 0, "seed": seed, **measure(draw(samples), real)})
        for name, (objective, solver) in METHODS.items():
            flow = train(copy.deepcopy(objective), steps, seed)
            for n in STEPS:
                x = flow.sample(Context.full(samples), solver, n, seed=seed)
                records.append({"method": name, "steps": n, "seed": seed, **measure(x, real)})
    return records


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the training")
    parser.add_argument("--out", type=Path, default=Path("runs/few_step"), help="folder of the table and figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = run(200 if given.quick else 2000, 4000)
    given.out.mkdir(parents=True, exist_ok=True)
    figures.draw({"few_step_classes": partial(picture, records)}, given.out)
    numbers = {"agree": "place agrees with kind", "w2": "W2 of places", "tv": "total variation of kinds"}
    text = markdown(records, {"method": "method", "steps": "steps"}, numbers)
    (given.out / "classes.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
