"""Exact velocity fields, without any training: how much numerical error a path costs.

The target is a Gaussian around each training digit, so velocity, score and density are known at every time. The same
noise is carried along several paths by several solvers, and compared with where tiny steps carry it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.claims.measures import DIGITS, adaptive, errors, fixed, way
from benchmarks.tables import Record, Result, Study, grouped, markdown, mean, wide
from fm_science.figures import COLOURS, figure
from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.priors import Normal
from fm_science.schedules import VP, Linear, Schedule, Trigonometric
from fm_science.solvers import RK4, Euler, Midpoint, Solver, log_snr_grid
from fm_science.spaces import Euclidean

PATHS: dict[str, Schedule] = {"FM-OT": Linear(), "trigonometric": Trigonometric(), "diffusion (VP)": VP()}
SOLVERS: dict[str, tuple[Solver, int]] = {"Euler": (Euler(), 1), "midpoint": (Midpoint(), 2), "RK4": (RK4(), 4)}
EVALUATIONS = (8, 16, 32, 64, 128)
ELSEWHERE = 0.1  #: an error of two widths of the kernel: the sample went to another digit
LAST = 0.999  #: where all walks stop: sigma is 0.001 (FM-OT), 0.0016 (trigonometric), 0.01 (VP), all below the kernel


def even(steps: int, schedule: Schedule) -> Tensor:
    """Even steps in t."""
    return torch.linspace(0, LAST, steps + 1, dtype=torch.float64)


def ratios(steps: int, schedule: Schedule) -> Tensor:
    """Steps in which log(alpha / sigma) grows equally, but for the first."""
    grid = log_snr_grid(steps + 1, schedule, 0.02, LAST)
    return grid[grid <= LAST + 1e-9]


GRIDS: Mapping[str, Callable[[int, Schedule], Tensor]] = {"even": even, "log SNR": ratios}


def measure(name: str, seed: int, noises: int) -> list[Record]:
    """Errors on one path by every solver, grid and number of evaluations, in double precision."""
    torch.manual_seed(seed)
    x0, schedule = torch.randn(noises, 1, 64, dtype=torch.float64), PATHS[name]
    flow = Flow(Gaussian(Euclidean(64), schedule), Normal(), DIGITS.kernels().network(schedule))
    return _errors(flow.double(), x0, schedule)


def _errors(flow: Flow, x0: Tensor, schedule: Schedule) -> list[Record]:
    ends = torch.tensor([0.0, LAST], dtype=torch.float64)
    truth, _ = adaptive(flow, x0, 1e-9, ends)
    found: list[Record] = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        x, count = adaptive(flow, x0, tolerance, ends)
        found.append({"solver": f"dopri5 {tolerance:.0e}".replace("e-0", "e-"), "nfe": count, **_judged(x, truth)})
    for grid, times in GRIDS.items():
        for name, (solver, cost) in SOLVERS.items():
            for count in EVALUATIONS:
                x, nfe = fixed(flow, x0, solver, times(count // cost, schedule)) if count // cost > 1 else (x0, 0)
                if nfe:
                    seen = {"solver": name, "grid": grid, "evaluations": count, "nfe": nfe}
                    found.append({**seen, **_judged(x, truth)})
    travelled = way(flow, x0, 100)
    found.append({"length": travelled.length, "energy": travelled.energy})
    return found


def _judged(x: Tensor, truth: Tensor) -> Record:
    """The median error, and the share of samples that ended at another digit."""
    found = errors(x, truth)
    return {"error": float(found.median()), "elsewhere": float((found > ELSEWHERE).double().mean())}


def run(study: Study) -> Result:
    """The claim, on exact fields."""
    records: list[Record] = []
    for seed in study.trials():
        for name in PATHS:
            work = partial(measure, name, seed, 8 if study.quick else 32)
            records += study.measure({"seed": seed, "path": name}, work)
    walks = [r for r in records if "evaluations" in r]
    loose = [{**r, "tolerance": r["solver"]} for r in records if str(r.get("solver", "")).startswith("dopri5")]
    tables = {
        "Median error of fixed steps, root mean square a value, by evaluations of the field": _wide(walks, "error"),
        "Share of noises that end at another digit": _wide(walks, "elsewhere"),
        "Adaptive steps": markdown(
            loose,
            {"tolerance": "solver", "path": "path"},
            {"nfe": "evaluations", "error": "median error", "elsewhere": "another digit"},
        ),
        "The ways themselves": markdown(
            [r for r in records if "length" in r],
            {"path": "path"},
            {"length": "length / displacement", "energy": "energy"},
        ),
    }
    return Result(records, tables, {"claims_exact": partial(picture, walks, loose)})


def _wide(walks: Sequence[Record], kind: str) -> str:
    """A table with a column for each number of evaluations."""
    rows = wide(walks, ["path", "grid", "solver", "seed"], "evaluations", kind)
    rows.sort(key=lambda r: (list(GRIDS).index(r["grid"]), list(SOLVERS).index(r["solver"])))
    keys = {"grid": "steps", "solver": "solver", "path": "path"}
    return markdown(rows, keys, {str(n): str(n) for n in EVALUATIONS})


def picture(walks: list[Record], loose: list[Record]) -> Any:
    """Error against evaluations: a panel a solver, a colour a path; dashed: steps even in log SNR."""
    canvas = figure(11, 3.4)
    panels = canvas.subplots(1, len(SOLVERS) + 1, sharey=True)
    for ax, solver in zip(panels, SOLVERS, strict=False):
        for k, path in enumerate(PATHS):
            for grid, style in zip(GRIDS, ("-", "--"), strict=True):
                rows = [r for r in walks if (r["solver"], r["path"], r["grid"]) == (solver, path, grid)]
                means = [(n, mean(v, "error")) for (n,), v in grouped(rows, ["evaluations"]).items()]
                label = path if grid == "even" else None
                ax.plot(*zip(*means, strict=True), style, color=COLOURS[k], marker=".", label=label)
        ax.set(title=solver, xscale="log", yscale="log", xlabel="evaluations")
    for k, path in enumerate(PATHS):
        rows = grouped([r for r in loose if r["path"] == path], ["tolerance"]).values()
        panels[-1].plot(
            *zip(*((mean(v, "nfe"), mean(v, "error")) for v in rows), strict=True), "o-", color=COLOURS[k], label=path
        )
    panels[-1].set(title="dopri5, 1e-3 to 1e-7", xscale="log", xlabel="evaluations")
    panels[0].set_ylabel("median error, root mean square a value")
    panels[0].legend(fontsize=7.5)
    return canvas
