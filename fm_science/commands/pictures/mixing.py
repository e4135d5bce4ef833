"""Pictures of sampling: two far modes between which Langevin dynamics does not mix, and how many steps a distribution
takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_science.commands.pictures.mixture import Mixture, Shown, far_modes
from fm_science.figures import COLOURS, INK, figure
from fm_science.schedules import VE, VP, Linear
from fm_science.solvers import DDIM, AnnealedLangevin, DPMSolver, Heun, ReverseSDE, log_snr_grid
from fm_science.state import Context


def walk(law: Mixture, n: int, time: float, step: float, noise: float = 0.0) -> Tensor:
    """Unadjusted Langevin dynamics from the standard normal distribution, ``(n, 1, d)``: dx = score dt + sqrt(2) dW."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, law.means.shape[1], generator=rng)
    for _ in range(round(time / step)):
        x = x + step * law.score(x, noise) + (2 * step) ** 0.5 * torch.randn(x.shape, generator=rng)
    return x


def langevin() -> Shown:
    """Two far and unequal modes: Langevin dynamics finds both with the wrong weights; noise levels correct that."""
    law, n = far_modes(), 3000
    exploding = law.flow(VE(0.01, 150.0))
    levels = log_snr_grid(50, VE(0.01, 150.0))
    found = {
        "Langevin, time 20": walk(law, n, 20.0, 0.02),
        "annealed Langevin": exploding.sample(Context.full(n), AnnealedLangevin(corrections=40), levels, seed=0),
        "reverse SDE": law.flow(VP()).sample(Context.full(n), ReverseSDE(), 200, seed=0),
        "ODE": law.flow(Linear()).sample(Context.full(n), Heun(), 50, seed=0),
    }
    line = torch.linspace(-6.5, 6.5, 400)
    truth = law.density(Linear(), line[:, None, None], torch.ones(400))
    made, facts = figure(11, 2.8), []
    for axes, (name, x) in zip(made.subplots(1, 4, sharey=True), found.items(), strict=True):
        right = float((x > 0).float().mean())
        axes.hist(x.flatten().numpy(), 60, (-6.5, 6.5), density=True, color=COLOURS[0], alpha=0.6)
        axes.plot(line, truth, color=INK, lw=1)
        axes.set(title=name, xlabel=f"right mode: {right:.2f} (truth .20)", yticks=[])
        facts.append(f"{name}: weight of the right mode {right:.3f} (truth .2)")
    return Shown(made, tuple(facts))


def noise_level() -> Shown:
    """A single noise level: little noise does not cover the modes, much noise is biased."""
    law, levels = far_modes(), torch.linspace(0.2, 4.0, 12).tolist()
    right, spread = [], []
    for noise in levels:
        x = walk(law, 1500, 15.0, 0.02 * (1 + noise**2), noise)
        shares = law.shares(x, noise)
        right.append(float(shares[:, 1].mean()))
        spread.append(float((shares * (x[:, 0] - law.means.T).square()).sum(1).mean().sqrt()))
    made = figure(6, 3.2)
    axes = made.subplots()
    axes.plot(levels, right, "o-", ms=4, color=COLOURS[0], label="weight of the right mode")
    axes.axhline(0.2, color=COLOURS[0], ls=":", lw=1)
    axes.plot(levels, spread, "s-", ms=4, color=COLOURS[1], label="standard deviation of a mode")
    axes.axhline(0.5, color=COLOURS[1], ls=":", lw=1)
    axes.set(title="coverage against bias of one noise level", xlabel="noise")
    axes.legend()
    facts = (
        f"noise {levels[0]:.1f}: weight {right[0]:.2f} (truth .2), spread {spread[0]:.2f} (truth .5)",
        f"noise {levels[-1]:.1f}: weight {right[-1]:.2f} (truth .2), spread {spread[-1]:.2f} (truth .5)",
    )
    return Shown(made, facts)


def steps() -> Shown:
    """The error of the distribution of samples by evaluations of the field, for solvers with and without noise."""
    law, n, schedule = far_modes(), 4000, VP()
    flow, truth = law.flow(schedule), law.draw(200_000, seed=7).flatten().sort().values
    places = (torch.arange(n) + 0.5) / n
    quantiles = truth[(places * len(truth)).long()]
    solvers: dict[str, Any] = {
        "DDIM": DDIM(), "Heun": Heun(), "DPM-Solver++ 2M": DPMSolver(), "reverse SDE": ReverseSDE(),
    }  # fmt: skip
    counts = (4, 8, 16, 32, 64, 128, 256)
    found: dict[str, list[float]] = {name: [] for name in solvers}
    for name, solver in solvers.items():
        for count in counts:
            grid = log_snr_grid(count // solver.order if name == "Heun" else count, schedule)
            x = flow.sample(Context.full(n), solver, grid, seed=0)
            found[name].append(float((x.flatten().sort().values - quantiles).abs().mean()))
    floor = float((law.draw(n, seed=3).flatten().sort().values - quantiles).abs().mean())
    made = figure(6, 3.6)
    axes = made.subplots()
    for colour, (name, errors) in zip(COLOURS, found.items(), strict=False):
        axes.loglog(counts, errors, "o-", ms=4, color=colour, label=name)
    axes.axhline(floor, color=INK, ls=":", lw=1)
    axes.text(4, floor * 1.07, "4,000 true points", fontsize=7)
    axes.set(title="ODE and SDE at few and many steps", xlabel="evaluations", ylabel="Wasserstein-1")
    axes.legend(fontsize=8)
    few = ", ".join(f"{name} {errors[2]:.2f}" for name, errors in found.items())
    many = ", ".join(f"{name} {errors[-1]:.3f}" for name, errors in found.items())
    return Shown(made, (f"16 evaluations: {few}", f"256 evaluations: {many}; floor {floor:.3f}"))


PICTURES: dict[str, Any] = {"langevin": langevin, "noise_level": noise_level, "steps": steps}
