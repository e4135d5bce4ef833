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
from benchmarks.claims.tables import Record, Result, grouped, markdown, mean
from benchmarks.claims.tasks import ring
from fm_science.figures import COLOURS, figure
from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.predictions import Noise
from fm_science.priors import Normal
from fm_science.schedules import VP
from fm_science.solvers import Euler, Heun, Langevin, PredictorCorrector, power_grid
from fm_science.spaces import Euclidean
from fm_science.state import Context

CLOCK = VP()
EVALUATIONS = (8, 16, 32, 64, 128, 256, 512)


def reverse_heat(t: Tensor) -> Tensor:
    """The rate at which the reverse SDE exchanges noise, beta / (2 sigma²), for dx = ... + sqrt(beta) dW."""
    beta = CLOCK.beta_min + (1 - t) * (CLOCK.beta_max - CLOCK.beta_min)
    return 0.5 * beta / CLOCK(t)[1].square().clamp_min(1e-6)


#: by name: the solver, and its evaluations a step
SAMPLERS: dict[str, tuple[Any, int]] = {
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
            records.append({"seed": seed, **found})
    return records


def run(quick: bool) -> Result:
    """The claim, on a ring of eight Gaussians."""
    samples = 1000 if quick else 3000
    exact = Flow(Gaussian(Euclidean(2), CLOCK, Noise()), Normal(), ring().network(CLOCK, "noise"))
    records: list[Record] = []
    for seed in range(3):
        records += [{"network": "exact", **r} for r in measure(exact, seed, samples)]
        trained = learn(on_ring(600 if quick else 8000, 0), "DDPM (noise)", seed)
        records += [{"network": "trained", **r} for r in measure(trained, seed, samples)]
    wide = [
        {
            "network": n,
            "sampler": s,
            "seed": e,
            "floor": rows[0]["floor"],
            **{str(r["evaluations"]): r["mmd"] for r in rows},
        }
        for (n, s, e), rows in grouped(records, ["network", "sampler", "seed"]).items()
    ]
    wide.sort(key=lambda r: r["network"])
    numbers = {**{str(n): str(n) for n in EVALUATIONS}, "floor": "of real data"}
    title = f"Squared discrepancy of {samples} samples to the law, times 10⁴, by evaluations of the network"
    tables = {title: markdown(wide, {"network": "network", "sampler": "sampler"}, numbers)}
    return Result(records, tables, {"claims_stochastic": partial(picture, records)})


def picture(records: list[Record]) -> Any:
    """Discrepancy against evaluations: a panel a network, a colour a sampler; grey: near 0."""
    canvas = figure(8.5, 3.3)
    for ax, which in zip(canvas.subplots(1, 2, sharey=True), ("exact", "trained"), strict=True):
        here = [r for r in records if r["network"] == which]
        for k, name in enumerate(SAMPLERS):
            rows = grouped([r for r in here if r["sampler"] == name], ["evaluations"])
            ax.plot(
                *zip(*((n, mean(v, "mmd")) for (n,), v in rows.items()), strict=True),
                color=COLOURS[k],
                marker=".",
                label=name,
            )
        ax.axhspan(-0.2, 0.2, color="#8a929c", alpha=0.25, lw=0)
        ax.set(title=f"{which} network", xscale="log", xlabel="evaluations")
        ax.set_yscale("symlog", linthresh=1.0)
    canvas.axes[0].set_ylabel("squared discrepancy to the law, times 10⁴")
    canvas.axes[0].legend(fontsize=7)
    return canvas
