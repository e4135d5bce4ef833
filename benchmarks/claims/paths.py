"""The straight path against the diffusion path and diffusion losses (Lipman et al. 2023, table 1), on trained networks.

The same perceptron with the same first weights sees the same data, noise and times. What differs is the path and what
the network predicts: the velocity on the straight path (FM-OT), the velocity on the variance-preserving diffusion path
(FM-VP), its score (score matching) or its noise (as DDPM). Two targets: a ring of eight Gaussians, where the entropy of
the data is known, and the 8x8 digits with their grey levels dithered.

Sampling by stochastic or ordinary differential equations (Song et al. 2021): quality by evaluations.

On the variance-preserving diffusion: the reverse SDE (as ancestral sampling of DDPM), the probability-flow ODE (Euler
in the form of DDIM, and Heun), and predictor-corrector. Once on the exact network, where only numerical errors are
left, and once on a trained one, where noise exchanged on the way can also correct what the network gets wrong. The
distance is the maximum mean discrepancy to the exact distribution, which has no floor from a finite set of data.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import DIGITS, SHAPE, adaptive, errors, fixed, until
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean, wide
from benchmarks.training import fitted, matching, network
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.likelihood import bits_per_dimension
from fm_science.objectives import FlowMatching
from fm_science.paths import Gaussian
from fm_science.predictions import Noise, Prediction, Score, Velocity
from fm_science.priors import Normal
from fm_science.schedules import VP, Linear, Schedule
from fm_science.solvers import RK4, Euler, Heun, Langevin, Midpoint, PredictorCorrector, Solver, power_grid
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


def judged(where: str, flow: Flow, samples: Tensor, seed: int, held_out: int) -> Record:
    """The negative log-likelihood of held-out data with its floor, and the distance of samples and of real data."""
    torch.manual_seed(10_000 + seed)
    if where == "digits":
        x = DIGITS.held_out(held_out)
        bits = bits_per_dimension(flow.log_prob(x, Context.full(len(x)), RK4(), 16), 64, DIGITS.bin)
        return {"nll": float(bits.mean()), "distance": DIGITS.distance(samples), "real": DIGITS.real}
    target = ring()
    x = target.draw(held_out)
    nll = -flow.log_prob(x, Context.full(held_out), RK4(), 40)
    return {
        "nll": float(nll.mean()), "floor": float(-target.log_prob(x).mean()),
        "distance": target.discrepancy(samples), "real": target.discrepancy(target.draw(len(samples))),
    }  # fmt: skip


def learn(where: str, name: str, seed: int, steps: int) -> Flow:
    """A flow trained by one of the methods, on the ring or on digits with dithered grey levels."""
    schedule, predicts = METHODS[name]
    shape, spread = (SHAPE, DIGITS.bin) if where == "digits" else ({"dim": 2, "width": 96, "waves": 16}, 0.0)
    flow = Flow(Gaussian(Euclidean(shape["dim"]), schedule, predicts), Normal(), network(seed, **shape))
    plain = matching(FlowMatching())

    def loss(flow: Flow, x1: Tensor, x0: Tensor | None) -> Tensor:
        return plain(flow, x1 + spread * (torch.rand_like(x1) - 0.5), x0)

    torch.manual_seed(seed)
    data = DIGITS.train if where == "digits" else ring().draw(20_000)
    return fitted(flow, loss, data, steps, 128 if where == "digits" else 256, seed, 2e-3)


@torch.no_grad()
def measure(where: str, name: str, seed: int, steps: int, held_out: int) -> list[Record]:
    """What one trained flow gives: quality, evaluations, and the error of fixed steps."""
    with torch.enable_grad():
        flow = learn(where, name, seed, steps)
    torch.manual_seed(20_000 + seed)
    x0 = flow.noise(Context.full(359 if where == "digits" else 3000))
    found: dict[str, Any] = {}
    for tolerance in (1e-3, 1e-5):
        x, found[f"nfe {tolerance:.0e}".replace("e-0", "e-")] = adaptive(flow, x0, tolerance)
    records: list[Record] = [{**found, **judged(where, flow, x, seed, held_out)}]
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


def paths(study: Study) -> Result:
    """The claim, on trained networks."""
    steps = {"ring": study.budget(2500, 500), "digits": study.budget(2000, 400)}
    held_out = {"ring": 500, "digits": 16} if study.quick else {"ring": 1000, "digits": 32}
    records: list[Record] = []
    for where in study.chosen(list(steps)):
        for name in METHODS:
            for seed in study.trials():
                work = partial(measure, where, name, seed, steps[where], held_out[where])
                records += study.measure({"target": where, "method": name, "seed": seed}, work)
    flat = [r for r in records if "nll" in r]
    numbers = {
        "nll": "NLL", "floor": "entropy", "distance": "distance", "real": "of real data", "nfe 1e-5": "NFE at 1e-5",
        "nfe 1e-3": "at 1e-3",
    }  # fmt: skip
    walks = [r for r in records if "error" in r]
    rows = wide(walks, ["target", "solver", "method", "seed"], "evaluations", "error")
    what = (
        "NLL in nats (ring) and bits per dimension (digits); distance: squared discrepancy to the target times 10⁴ "
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


CLOCK = VP()
LONG = (8, 16, 32, 64, 128, 256, 512)


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


def discrepancies(flow: Flow, seed: int, samples: int) -> list[Record]:
    """Discrepancy to the target by sampler and evaluations."""
    target = ring()
    torch.manual_seed(30_000 + seed)
    x0, floor = flow.noise(Context.full(samples)), target.discrepancy(target.draw(samples))
    records: list[Record] = []
    for name, (solver, cost) in SAMPLERS.items():
        for count in LONG:
            torch.manual_seed(seed)
            x, nfe = fixed(flow, x0, solver, power_grid(count // cost))
            found = {"sampler": name, "evaluations": count, "nfe": nfe, "mmd": target.discrepancy(x), "floor": floor}
            records.append(found)
    return records


def trained(seed: int, steps: int, samples: int) -> list[Record]:
    """The discrepancies of a trained network."""
    return discrepancies(learn("ring", "DDPM (noise)", seed, steps), seed, samples)


def stochastic(study: Study) -> Result:
    """The claim, on a ring of eight Gaussians."""
    samples, steps = 1000 if study.quick else 3000, study.budget(8000, 600)
    exact = Flow(Gaussian(Euclidean(2), CLOCK, Noise()), Normal(), ring().network(CLOCK, "noise"))
    records: list[Record] = []
    for seed in study.trials():
        records += study.measure({"network": "exact", "seed": seed}, partial(discrepancies, exact, seed, samples))
        records += study.measure({"network": "trained", "seed": seed}, partial(trained, seed, steps, samples))
    rows = wide(records, ["network", "sampler", "seed"], "evaluations", "mmd", also=["floor"])
    rows.sort(key=lambda r: r["network"])
    numbers = {**{str(n): str(n) for n in LONG}, "floor": "of real data"}
    title = f"Squared discrepancy of {samples} samples to the target, times 10⁴, by evaluations of the network"
    tables = {title: markdown(rows, {"network": "network", "sampler": "sampler"}, numbers)}
    return Result(records, tables, {"claims_stochastic": partial(sampler_picture, records)})


def sampler_picture(records: list[Record]) -> Any:
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
    canvas.axes[0].set_ylabel("squared discrepancy to the target, times 10⁴")
    canvas.axes[0].legend(fontsize=7)
    return canvas
