"""Sampling by stochastic or ordinary differential equations (Song et al. 2021): quality by evaluations.

On the variance-preserving diffusion: the reverse SDE (as ancestral sampling of DDPM), the probability-flow ODE (Euler
in the form of DDIM, and Heun), and predictor-corrector. Once on the exact network, where only numerical errors are
left, and once on a trained one, where noise exchanged on the way can also correct what the network gets wrong. The
distance is the maximum mean discrepancy to the exact law, which has no floor from a finite set of data.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import fixed
from benchmarks.claims.paths import learn, on_ring
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean, wide
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.predictions import Noise
from fm_science.priors import Normal
from fm_science.schedules import VP
from fm_science.solvers import Euler, Heun, Langevin, PredictorCorrector, Solver, power_grid
from fm_science.spaces import Euclidean
from fm_science.state import Context
from tests.oracles.kernels import ring

CLOCK = VP()
EVALUATIONS = (8, 16, 32, 64, 128, 256, 512)


def reverse_heat(t: Tensor) -> Tensor:
    """The rate at which the reverse SDE exchanges noise, beta / (2 sigma²), for dx = ... + sqrt(beta) dW."""
    beta = CLOCK.beta_min + (1 - t) * (CLOCK.beta_max - CLOCK.beta_min)
    return 0.5 * beta / CLOCK(t)[1].square().clamp_min(1e-6)


#: by name: the solver, and its evaluations a step
SAMPLERS: dict[str, tuple[Solver, int]] = {
    "reverse SDE": (Langevin(reverse_heat), 1),
    "probability-flow ODE, Euler (DDIM)": (Euler(), 1),
    "probability-flow ODE, Heun": (Heun(), 2),
    "predictor-corrector": (PredictorCorrector(Euler(), 1, 0.1), 2),
}


def measure(flow: Flow, seed: int, samples: int) -> list[Record]:
    """Discrepancy to the law by sampler and evaluations."""
    law = ring()
    torch.manual_seed(30_000 + seed)
    x0, floor = flow.noise(Context.full(samples)), law.discrepancy(law.draw(samples))
    records: list[Record] = []
    for name, (solver, cost) in SAMPLERS.items():
        for count in EVALUATIONS:
            torch.manual_seed(seed)
            x, nfe = fixed(flow, x0, solver, power_grid(count // cost))
            found = {"sampler": name, "evaluations": count, "nfe": nfe, "mmd": law.discrepancy(x), "floor": floor}
            records.append(found)
    return records


def trained(seed: int, steps: int, samples: int) -> list[Record]:
    """The discrepancies of a trained network."""
    return measure(learn(on_ring(steps, 0), "DDPM (noise)", seed), seed, samples)


def run(study: Study) -> Result:
    """The claim, on a ring of eight Gaussians."""
    samples, steps = 1000 if study.quick else 3000, study.budget(8000, 600)
    exact = Flow(Gaussian(Euclidean(2), CLOCK, Noise()), Normal(), ring().network(CLOCK, "noise"))
    records: list[Record] = []
    for seed in study.trials():
        records += study.measure({"network": "exact", "seed": seed}, partial(measure, exact, seed, samples))
        records += study.measure({"network": "trained", "seed": seed}, partial(trained, seed, steps, samples))
    rows = wide(records, ["network", "sampler", "seed"], "evaluations", "mmd", also=["floor"])
    rows.sort(key=lambda r: r["network"])
    numbers = {**{str(n): str(n) for n in EVALUATIONS}, "floor": "of real data"}
    title = f"Squared discrepancy of {samples} samples to the law, times 10⁴, by evaluations of the network"
    tables = {title: markdown(rows, {"network": "network", "sampler": "sampler"}, numbers)}
    return Result(records, tables, {"claims_stochastic": partial(picture, records)})


def picture(records: list[Record]) -> Any:
    """Discrepancy against evaluations: a panel a network, a colour a sampler; grey: near 0."""
    canvas = figure(8.5, 3.3)
    for ax, which in zip(canvas.subplots(1, 2, sharey=True), ("exact", "trained"), strict=True):
        here = [r for r in records if r["network"] == which]
        for k, name in enumerate(SAMPLERS):
            rows = grouped([r for r in here if r["sampler"] == name], ["evaluations"])
            means = [(n, mean(v, "mmd")) for (n,), v in rows.items()]
            ax.plot(*zip(*means, strict=True), color=COLOURS[k], marker=".", label=name)
        ax.axhspan(-0.2, 0.2, color=QUIET, alpha=0.25, lw=0)
        ax.set(title=f"{which} network", xscale="log", xlabel="evaluations")
        ax.set_yscale("symlog", linthresh=1.0)
    canvas.axes[0].set_ylabel("squared discrepancy to the law, times 10⁴")
    canvas.axes[0].legend(fontsize=7)
    return canvas
