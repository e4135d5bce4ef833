"""The straight path against the diffusion path and diffusion losses (Lipman et al. 2023, table 1), on trained networks.

The same perceptron with the same first weights sees the same data, noise and times. What differs is the path and what
the network tells: the velocity on the straight path (FM-OT), the velocity on the variance-preserving diffusion path
(FM-VP), its score (score matching) or its noise (as DDPM). Two targets: a ring of eight Gaussians, where the entropy of
the data is known, and the 8x8 digits with their grey levels dithered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import adaptive, errors, fixed, until
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean, wide
from benchmarks.training import fitted, matching, network
from fm_science.figures import COLOURS, figure
from fm_science.flow import Flow
from fm_science.likelihood import bits_per_dimension
from fm_science.objectives import FlowMatching
from fm_science.paths import Gaussian
from fm_science.predictions import Noise, Prediction, Score, Velocity
from fm_science.priors import Normal
from fm_science.schedules import VP, Linear, Schedule
from fm_science.solvers import RK4, Euler, Midpoint, Solver, power_grid
from fm_science.spaces import Euclidean
from fm_science.state import Context
from tests.oracles.kernels import ring

METHODS: dict[str, tuple[Schedule, Prediction]] = {
    "FM-OT": (Linear(), Velocity()),
    "FM-VP": (VP(), Velocity()),
    "score matching": (VP(), Score()),
    "DDPM (noise)": (VP(), Noise()),
}
SOLVERS: dict[str, tuple[Solver, int]] = {"Euler": (Euler(), 1), "midpoint": (Midpoint(), 2), "RK4": (RK4(), 4)}
EVALUATIONS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Target:
    """What is learned, and how it is judged.

    Attributes:
        dim: coordinates.
        data: training data for a seed, ``(n, 1, dim)``.
        judge: ``(flow, samples, seed)`` to named numbers.
        shape: of the network.
        spread: the width of a grey level by which data are dithered; 0: they are not.
        steps, batch: of training.
    """

    dim: int
    data: Callable[[int], Tensor]
    judge: Callable[[Flow, Tensor, int], Record]
    shape: dict[str, Any]
    spread: float
    steps: int
    batch: int


def on_ring(steps: int, held_out: int) -> Target:
    """Eight Gaussians of spread 0.2 on a circle of radius 2."""
    law = ring()

    def data(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return law.draw(20_000)

    def judge(flow: Flow, samples: Tensor, seed: int) -> Record:
        torch.manual_seed(10_000 + seed)
        other = law.draw(held_out)
        nll = -flow.log_prob(other, Context.full(held_out), RK4(), 40)
        return {
            "nll": float(nll.mean()), "floor": float(-law.log_prob(other).mean()),
            "distance": law.discrepancy(samples), "real": law.discrepancy(law.draw(len(samples))),
        }  # fmt: skip

    return Target(2, data, judge, {"width": 96, "waves": 16}, 0.0, steps, 256)


def on_digits(steps: int, held_out: int) -> Target:
    """The shipped digits, 64 values with 17 levels; features and held-out images as the domain ``image`` has them."""
    from benchmarks.claims.digits import DIGITS, SHAPE

    def judge(flow: Flow, samples: Tensor, seed: int) -> Record:
        torch.manual_seed(10_000 + seed)
        x = DIGITS.held_out(held_out)
        logp = flow.log_prob(x, Context.full(len(x)), RK4(), 16)
        return {
            "nll": float(bits_per_dimension(logp, 64, DIGITS.bin).mean()),
            "distance": DIGITS.distance(samples), "real": DIGITS.real,
        }  # fmt: skip

    return Target(64, lambda seed: DIGITS.train, judge, SHAPE, DIGITS.bin, steps, 128)


def learn(target: Target, name: str, seed: int) -> Flow:
    """A trained flow of one of the methods."""
    schedule, predicts = METHODS[name]
    flow = Flow(Gaussian(Euclidean(target.dim), schedule, predicts), Normal(), network(seed, **target.shape))
    plain = matching(FlowMatching())

    def loss(flow: Flow, x1: Tensor, x0: Tensor | None) -> Tensor:
        return plain(flow, x1 + target.spread * (torch.rand_like(x1) - 0.5), x0)

    return fitted(flow, loss, target.data(seed), target.steps, target.batch, seed, 2e-3)


@torch.no_grad()
def measure(target: Target, name: str, seed: int, samples: int) -> list[Record]:
    """What one trained flow gives: quality, evaluations, and the error of fixed steps."""
    with torch.enable_grad():
        flow = learn(target, name, seed)
    torch.manual_seed(20_000 + seed)
    x0 = flow.noise(Context.full(samples))
    found: dict[str, Any] = {}
    for tolerance in (1e-3, 1e-5):
        x, found[f"nfe {tolerance:.0e}".replace("e-0", "e-")] = adaptive(flow, x0, tolerance)
    records: list[Record] = [{**found, **target.judge(flow, x, seed)}]
    few = x0[:64].double()
    flow = flow.double()
    truth, _ = adaptive(flow, few, 1e-8)
    last = until(flow)[-2:] if flow.path.singular else None
    for solver, (rule, cost) in SOLVERS.items():
        for count in EVALUATIONS:
            times = power_grid(count // cost) if last is not None else torch.linspace(0, 1, count // cost + 1)
            y, nfe = fixed(flow, few, rule, times)
            records.append(
                {"solver": solver, "evaluations": count, "nfe": nfe, "error": float(errors(y, truth).median())}
            )
    return records


def run(study: Study) -> Result:
    """The claim, on trained networks."""
    targets = {
        "ring": on_ring(study.budget(2500, 500), 500 if study.quick else 1000),
        "digits": on_digits(study.budget(2000, 400), 16 if study.quick else 32),
    }
    records: list[Record] = []
    for where in study.chosen(list(targets)):
        samples = 359 if where == "digits" else 3000
        for name in METHODS:
            for seed in study.trials():
                work = partial(measure, targets[where], name, seed, samples)
                records += study.measure({"target": where, "method": name, "seed": seed}, work)
    flat = [r for r in records if "nll" in r]
    numbers = {
        "nll": "NLL", "floor": "entropy", "distance": "distance", "real": "of real data", "nfe 1e-5": "NFE at 1e-5",
        "nfe 1e-3": "at 1e-3",
    }  # fmt: skip
    walks = [r for r in records if "error" in r]
    rows = wide(walks, ["target", "solver", "method", "seed"], "evaluations", "error")
    what = (
        "NLL in nats (ring) and bits per dimension (digits); distance: squared discrepancy to the law times 10⁴ "
        "(ring, 3,000 samples), Fréchet distance in features to the training images (digits)"
    )
    tables = {
        f"Trained networks. {what}": markdown(flat, {"target": "target", "method": "method"}, numbers),
        "Median error of fixed steps on trained networks, by evaluations": markdown(
            rows, {"target": "target", "solver": "solver", "method": "method"}, {str(n): str(n) for n in EVALUATIONS}
        ),
    }
    return Result(records, tables, {"claims_paths": partial(picture, walks)})


def picture(walks: list[Record]) -> Any:
    """Error against evaluations: a line of panels a target, a panel a solver, a colour a method."""
    targets = list(dict.fromkeys(r["target"] for r in walks))
    canvas = figure(9.5, 3.0 * len(targets))
    axes = canvas.subplots(len(targets), len(SOLVERS), sharey="row", squeeze=False)
    for line, where in zip(axes, targets, strict=True):
        for ax, solver in zip(line, SOLVERS, strict=True):
            for k, name in enumerate(METHODS):
                rows = [r for r in walks if (r["target"], r["solver"], r["method"]) == (where, solver, name)]
                means = [(n, mean(v, "error")) for (n,), v in grouped(rows, ["evaluations"]).items()]
                ax.plot(*zip(*means, strict=True), color=COLOURS[k], marker=".", label=name)
            ax.set(title=f"{where}, {solver}", xscale="log", yscale="log")
        line[0].set_ylabel("median error, root mean square")
    for ax in axes[-1]:
        ax.set_xlabel("evaluations")
    axes[0, 0].legend(fontsize=7.5)
    return canvas
