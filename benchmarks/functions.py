"""Flows of functions beside the recipe of functional flow matching, and beside exact regression.

The published recipe (Kerrigan, Migliorini & Smyth 2024) is a configuration here: the same data, in the same scaling;
noise from a Matérn process of smoothness 1/2, length 0.01 and variance 0.1; independent pairs; a Fourier operator that
is told the time as one more input and predicts the velocity; Adam at 1e-3 that falls to a tenth half-way;
Dormand-Prince at 1e-5. As released it divides the time by 1000, so that the network hardly sees it; both versions are
run. The network's width is cut for a processor, alike in all rows; ours has a layer less and keeps fewer waves, so that
its step costs no more. Numbers are mean square errors of pointwise mean,
variance, skewness, kurtosis and of the autocorrelation, in the scaling of the recipe, against all data (the mixture:
fresh draws).

    python -m benchmarks.functions compare --data FOLDER --seeds 5 --steps 2000 --cache runs.jsonl
    python -m benchmarks.functions regression --pictures FOLDER
    python -m benchmarks.functions resolution --pictures FOLDER

FOLDER holds functions_aemet.npz (``x`` 73 x 365) and functions_economy.npz (``econ1`` 169 x 69); where it is missing
only the mixture is run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.function_recipes import Case, Recipe, cases, drawn, made, ours, published, trained
from fm_science.domain import Domain
from fm_science.figures import draw
from fm_science.flow import Flow
from fm_science.priors import Matern
from fm_science.solvers import Heun, Solver
from fm_science_domains.function import report
from fm_science_domains.function.appraisal import completed, completions, sweep, telling
from fm_science_domains.function.conditional import Corrected, LatentPosterior
from fm_science_domains.function.data import Sets
from fm_science_domains.function.exact import Score, regression, score
from fm_science_domains.function.metrics import autocorrelation, moments

CELLS = ("mean", "variance", "skewness", "kurtosis", "autocorrelation")
NOISE = 0.1  # of observations in the regression, in spreads of the data


def five(samples: Tensor, truth: Tensor, grid: tuple[int, ...]) -> dict[str, float]:
    """The five mean square errors of functions ``(M, N, 1)``."""
    a, b = moments(samples), moments(truth)
    found = {k: float((a[k] - b[k]).square().mean()) for k in CELLS[:4]}
    lags = [autocorrelation(v, grid, [False] * len(grid)) for v in (samples, truth)]
    return {**found, "autocorrelation": float((lags[0] - lags[1]).square().mean())}


def compare(o: argparse.Namespace) -> None:
    """Train every recipe on every set with every seed, and print the table. Runs that a file holds are not repeated,
    and each is written to it as soon as it is done."""
    file = Path(o.cache) if o.cache else None
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file and file.is_file() else []
    asked: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        found = cases(Path(o.data) if o.data else None, Path(scratch))
        for seed, name in itertools.product(range(o.first, o.first + o.seeds), o.only or found):
            for label, recipe in recipes(found[name].modes).items():
                if o.rows and not any(label.startswith(r) for r in o.rows):
                    continue
                key = {"set": name, "recipe": label, "seed": seed, "asked": [o.steps, o.minutes, o.samples]}
                row = next((r for r in rows if all(r[k] == v for k, v in key.items())), None)
                if row is None:
                    row = {**key, **run(found[name], recipe, seed, o)}
                    print(json.dumps(row), flush=True)
                    if file:
                        with file.open("a") as stream:
                            stream.write(json.dumps(row) + "\n")
                asked.append(row)
    show(asked)


def recipes(modes: int) -> dict[str, Recipe]:
    """What is compared, by name."""
    return {"ours": ours(), "published, time seen": published(1.0, modes),
            "published, time / 1000": published(1000.0, modes)}  # fmt: skip


def run(case: Case, recipe: Recipe, seed: int, o: argparse.Namespace) -> dict[str, Any]:
    """One training with its five numbers and its processor seconds."""
    start = time.process_time()
    domain = made(case, recipe, seed)
    setup = time.process_time() - start
    flow, steps, spent = trained(domain, recipe, o.steps, seed, 60 * o.minutes if o.minutes else math.inf)
    start = time.process_time()
    functions = drawn(domain, flow, recipe, o.samples, seed)
    drawing = time.process_time() - start
    x = torch.stack([f.values.double() for f in functions])
    truth = torch.stack([f.values.double() for f in domain.data.validation.functions])  # type: ignore[attr-defined]
    cells = five(x[x.isfinite().flatten(1).all(1)], truth, functions[0].grid)
    return {"steps": steps, "setup": setup, "train": spent, "draw": drawing, **cells}


def show(rows: list[dict[str, Any]]) -> None:
    """The table of means and standard errors, and a verdict for each cell: lower where our mean is, and by more than
    two standard errors of the difference or within them."""
    stats: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for name, label in dict.fromkeys((r["set"], r["recipe"]) for r in rows):
        mine = [r for r in rows if (r["set"], r["recipe"]) == (name, label)]
        stats[name, label] = {k: spread([r[k] for r in mine]) for k in (*CELLS, "steps", "train", "draw")}
        told = "  ".join(f"{k} {m:.3g}±{e:.1g}" for k, (m, e) in stats[name, label].items())
        print(f"{name:8s} {label:24s} seeds {len(mine)}  {told}")
    for label in dict.fromkeys(r["recipe"] for r in rows if r["recipe"] != "ours"):
        won = lost = cells = 0
        print(f"\nours beside {label}")
        for name in dict.fromkeys(n for n, k in stats if k == label and (n, "ours") in stats):
            words = []
            for k in CELLS:
                (a, e), (b, f) = stats[name, "ours"][k], stats[name, label][k]
                apart = abs(a - b) > 2 * math.hypot(e, f)
                cells, won, lost = cells + 1, won + (a < b), lost + (a > b and apart)
                sure = "" if apart else " (one seed)" if math.isnan(e + f) else " (within 2 errors)"
                words.append(f"{k} {'lower' if a < b else 'higher'}{sure}")
            clock = [sum(stats[name, r][k][0] for k in ("train", "draw")) for r in ("ours", label)]
            print(f"  {name:8s} {', '.join(words)}; processor time {clock[0] / clock[1]:.2f}")
        print(f"  lower in {won} of {cells} cells; higher by more than two standard errors in {lost}")


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    v = torch.tensor(values, dtype=torch.float64)
    return float(v.mean()), float(v.std() / len(v) ** 0.5) if len(v) > 1 else math.nan


def gaussian(o: argparse.Namespace, shown: bool) -> tuple[Domain, Flow]:
    """A trained flow of the Matérn process of smoothness 3/2 and length 0.3 on 64 sensors, shown some or none."""
    objective = {"shown": "0-10", "shown_noise": NOISE} if shown else {}
    recipe = ours(objective=objective, data={"train": 4000, "held_out": 2000}, sample={"steps": 10})
    domain = made(Case({"source": "gp", "grid": 64}, 24, 64), recipe, o.first)
    flow, steps, spent = trained(domain, recipe, o.steps, o.first, 60 * o.minutes if o.minutes else math.inf)
    print(f"{'amortised' if shown else 'free'} flow: {steps} steps in {spent:.0f} s", flush=True)
    return domain, flow


def exact_posterior(sets: Sets, index: int, chosen: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(N,)`` of exact regression, in spreads of the data."""
    frame, cond = sets.frame, sets.held_out[index][1]
    scale, shift = float(frame.scale), float(frame.shift)
    law, places = Matern(1.5, 0.3, 1 / scale), cond["coords"]
    mean, covariance = regression(law, places, places[chosen], told[chosen, 0], NOISE, mean=-shift / scale)
    return mean, covariance.diagonal().clamp_min(0).sqrt()


def regress(o: argparse.Namespace) -> None:
    """Complete held-out functions from six noisy observations in each way, beside exact regression."""
    domain, flow = gaussian(o, shown=True)
    _, free = gaussian(o, shown=False)
    sets: Sets = domain.data.source
    ways = {
        "amortised": (flow, Heun()), "correction": (free, Corrected(3 if free.independent else 1)),
        "latent": (free, LatentPosterior(NOISE, moves=o.moves, coarse=4)),
    }  # fmt: skip
    exact = [telling(sets, k, 6, NOISE, torch.Generator().manual_seed(k)) for k in range(o.functions)]
    mean, std, truth = ([] for _ in range(3))  # type: ignore[var-annotated]
    for k, (chosen, told) in enumerate(exact):
        m, s = exact_posterior(sets, k, chosen, told)
        hidden = torch.ones(len(m), dtype=torch.bool).index_fill(0, chosen, False)
        mean, std, truth = [*mean, m[hidden]], [*std, s[hidden]], [*truth, sets.held_out[k][0][hidden, 0]]
    whole = torch.cat(truth)
    plain = float(whole.mean()), float(whole.std())
    told_score("exact regression", score(torch.cat(mean), torch.cat(std), whole, plain))
    for name, (used, solver) in ways.items():
        start = time.process_time()
        found = completed(sets, used, o.functions, 6, solver, samples=o.draws, noise=NOISE)
        told_score(name, found, time.process_time() - start)
    if o.pictures:
        bands(sets, ways, Path(o.pictures), o.draws)


def told_score(name: str, found: Score, seconds: float = 0.0) -> None:
    """One line of the table of completions."""
    scores = f"smse {found.smse:.4f}  msll {found.msll:+.3f}  coverage {found.coverage:.3f}  crps {found.crps:.4f}"
    print(f"{name:18s} {scores}  {seconds:.0f} s", flush=True)


def bands(sets: Sets, ways: Mapping[str, tuple[Flow, Solver]], folder: Path, draws: int) -> None:
    """The picture of posterior bands of one held-out function."""
    chosen, told = telling(sets, 0, 6, NOISE, torch.Generator().manual_seed(0))
    places = sets.held_out[0][1]["coords"][:, 0]
    mean, std = exact_posterior(sets, 0, chosen, told)
    panels = {}
    for name, (flow, solver) in ways.items():
        x = completions(sets, flow, 0, chosen, told, solver, draws, 0)[..., 0].double()
        seen, lines = (places[chosen], told[chosen, 0]), (mean, mean - 1.96 * std, mean + 1.96 * std)
        panels[name] = report.Completion(places, x.mean(0), x.std(0), seen, lines)
    print(draw({"function_posterior": partial(report.posterior, panels)}, folder)[0])


def resolve(o: argparse.Namespace) -> None:
    """Train on 64 sensors and draw at 64, 127 and 253: spectra and distances on the sensors they have in common."""
    domain, flow = gaussian(o, shown=False)
    request: Any = domain.request
    found, rows = sweep(domain.data.source, request, flow, o.samples)
    for name, value in found.items():
        print(f"{name:24s} {value:.4g}")
    if o.pictures:
        picture = partial(report.resolutions, rows, domain.data.source.held_out.functions)
        print(draw({"function_resolutions": picture}, Path(o.pictures))[0])


def main(args: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "regression", "resolution"))
    parser.add_argument("--data", help="folder with functions_aemet.npz and functions_economy.npz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--minutes", type=float, default=0.0, help="of processor time for each training; 0: no bound")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument(
        "--cache", help="compare: a .jsonl file that keeps finished runs, so that it can be interrupted"
    )
    parser.add_argument("--only", nargs="*", help="data sets")
    parser.add_argument("--rows", nargs="*", help="recipes, by how they begin")
    parser.add_argument("--functions", type=int, default=40, help="regression: functions that are completed")
    parser.add_argument("--draws", type=int, default=100, help="regression: completions of each")
    parser.add_argument("--moves", type=int, default=10, help="regression: moves of the walk on noise")
    parser.add_argument("--pictures", help="folder for pictures")
    o = parser.parse_args(args)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    {"compare": compare, "regression": regress, "resolution": resolve}[o.what](o)


if __name__ == "__main__":
    main(sys.argv[1:])
