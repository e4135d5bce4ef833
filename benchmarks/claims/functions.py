"""Flows of functions beside the recipe of functional flow matching, beside exact regression, and on measured curves.

The published recipe (Kerrigan, Migliorini & Smyth 2024) is a configuration here: the same data, in the same scaling;
noise from a Matérn process of smoothness 1/2, length 0.01 and variance 0.1; independent pairs; a Fourier operator that
sees the time as one more input and predicts the velocity; Adam at 1e-3 that falls to a tenth half-way; Dormand-Prince
at 1e-5. As released it divides the time by 1000, so that the network hardly sees it; both versions are run. The
network's width is cut for a processor, alike in all rows; ours has a layer less and keeps fewer waves, so that its step
costs no more.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.claims.function_recipes import MIXTURE, SETS, Case, Recipe, drawn, made, ours, recipes, scaled, trained
from benchmarks.claims.function_recipes import curves as curves_of
from benchmarks.tables import Record, Result, Study, error, grouped, markdown, mean
from fm_science.commands.evaluate import measure
from fm_science.domain import Domain
from fm_science.flow import Flow
from fm_science.priors import Matern
from fm_science.solvers import Heun, Solver
from fm_science_domains.function import report
from fm_science_domains.function.appraisal import completed, completions, sweep, telling
from fm_science_domains.function.conditional import Corrected, LatentPosterior
from fm_science_domains.function.exact import Score, regression, score
from fm_science_domains.function.metrics import autocorrelation, moments
from fm_science_domains.function.sets import Sets

CELLS = ("mean", "variance", "skewness", "kurtosis", "autocorrelation")
NOISE, SEEN = 0.1, 6  # of observations in the regression: spreads of the data, and how many there are


def five(samples: Tensor, truth: Tensor, grid: tuple[int, ...]) -> dict[str, float]:
    """The five mean square errors of functions ``(M, N, 1)``."""
    a, b = moments(samples), moments(truth)
    found = {k: float((a[k] - b[k]).square().mean()) for k in CELLS[:4]}
    lags = [autocorrelation(v, grid, [False] * len(grid)) for v in (samples, truth)]
    return {**found, "autocorrelation": float((lags[0] - lags[1]).square().mean())}


def recipe(study: Study) -> Result:
    """Every recipe on every set: mean square errors of the pointwise moments and of the autocorrelation, in the scaling
    of the published recipe, against all data (the mixture: fresh draws)."""
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: scaled(name, study.data, Path(scratch)) for name in ("aemet", "economy")}
        cases = {"mogp": MIXTURE, **{name: case for name, case in found.items() if case}}
        for seed in study.trials(5):
            for name in study.chosen(list(cases)):
                for label, how in recipes(cases[name].modes).items():
                    work = partial(_compared, cases[name], how, seed, study)
                    records += study.measure({"set": name, "recipe": label, "seed": seed}, work)
    numbers = {cell: cell for cell in CELLS} | {"train": "seconds to train", "draw": "to draw"}
    table = markdown(records, {"set": "set", "recipe": "recipe"}, numbers, error)
    tables = {"Mean square errors, with standard errors over seeds": table, "Ours beside it": verdicts(records)}
    return Result(records, tables)


def _compared(case: Case, how: Recipe, seed: int, study: Study) -> list[Record]:
    """One training with its five numbers and its processor seconds."""
    domain = made(case, how, seed)
    flow, spent = trained(domain, how, study.budget(2000, 100), seed)
    start = time.process_time()
    functions = drawn(domain, flow, how, 100 if study.quick else 2000, seed)
    drawing = time.process_time() - start
    x = torch.stack([f.values.double() for f in functions])
    truth = torch.stack([f.values.double() for f in domain.data.validation.functions])
    return [{"train": spent, "draw": drawing, **five(x[x.isfinite().flatten(1).all(1)], truth, functions[0].grid)}]


def verdicts(records: Sequence[Record]) -> str:
    """In how many cells our mean is lower, and in how many by more than two standard errors of the difference."""
    groups = grouped(records, ["set", "recipe"])
    rows = []
    for name, label in (key for key in groups if key[1] != "ours"):
        a, b = groups[name, "ours"], groups[name, label]
        apart = {k: mean(b, k) - mean(a, k) for k in CELLS}
        sure = {k: 2 * math.hypot(error(a, k), error(b, k)) for k in CELLS if len(a) > 1}
        clock = [mean(side, "train") + mean(side, "draw") for side in (a, b)]
        rows.append({
            "set": name, "beside": label, "lower": sum(v > 0 for v in apart.values()),
            "surely lower": sum(apart[k] > v for k, v in sure.items()),
            "surely higher": sum(-apart[k] > v for k, v in sure.items()), "time": clock[0] / clock[1],
        })  # fmt: skip
    keys = {"set": "set", "beside": "beside", "lower": f"lower, of {len(CELLS)}", "surely lower": "by two errors",
            "surely higher": "higher by two errors"}  # fmt: skip
    return markdown(rows, keys, {"time": "processor time over theirs"})


def gaussian(study: Study, shown: bool) -> tuple[Domain, Flow]:
    """A trained flow of the Matérn process of smoothness 3/2 and length 0.3 on 64 sensors, shown some or none."""
    objective = {"shown": "0-10", "shown_noise": NOISE} if shown else {}
    how = ours(objective=objective, data={"train": 4000, "held_out": 2000}, sample={"steps": 10})
    seed = study.trials(1)[0]
    domain = made(Case({"source": "gp", "grid": 64}, 24, 64), how, seed)
    return domain, trained(domain, how, study.budget(1000, 100), seed)[0]


def sets_of(domain: Domain) -> Sets:
    """The functions of a domain with what encodes them."""
    sets: Sets = domain.data.source
    return sets


def resolution(study: Study) -> Result:
    """Train on 64 sensors and draw at 64, 127 and 253: spectra and distances on the sensors they have in common."""
    domain, flow = gaussian(study, shown=False)
    found, rows = sweep(sets_of(domain), domain.request, flow, 200 if study.quick else 1000)
    records = [{"number": name, "value": value} for name, value in found.items()]
    picture = partial(report.resolutions, rows, sets_of(domain).held_out.functions)
    table = markdown(records, {"number": "number"}, {"value": "value"})
    return Result(records, {"Functions at other resolutions": table}, {"function_resolutions": picture})


def exact_posterior(sets: Sets, index: int, chosen: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(N,)`` of exact regression from observed values, in spreads of the data."""
    frame, cond = sets.frame, sets.held_out[index][1]
    scale, shift = float(frame.scale), float(frame.shift)
    kernel, places = Matern(1.5, 0.3, 1 / scale), cond["coords"]
    mean, covariance = regression(kernel, places, places[chosen], values[chosen, 0], NOISE, mean=-shift / scale)
    return mean, covariance.diagonal().clamp_min(0).sqrt()


def exact_score(sets: Sets, functions: int) -> Score:
    """What exact regression scores at the hidden sensors of held-out functions."""
    columns: tuple[list[Tensor], ...] = ([], [], [])
    for k in range(functions):
        chosen, seen = telling(sets, k, SEEN, NOISE, torch.Generator().manual_seed(k))
        hidden = torch.ones(len(seen), dtype=torch.bool).index_fill(0, chosen, False)
        found = (*exact_posterior(sets, k, chosen, seen), sets.held_out[k][0][:, 0])
        for column, x in zip(columns, found, strict=True):
            column.append(x[hidden])
    mean, std, truth = map(torch.cat, columns)
    return score(mean, std, truth, (float(truth.mean()), float(truth.std())))


def completion(study: Study) -> Result:
    """Complete held-out functions from six noisy observations in each way, beside exact regression."""
    domain, flow = gaussian(study, shown=True)
    _, free = gaussian(study, shown=False)
    sets, functions, draws = sets_of(domain), 4 if study.quick else 40, 20 if study.quick else 100
    ways: dict[str, tuple[Flow, Solver]] = {
        "amortised": (flow, Heun()), "latent": (free, LatentPosterior(NOISE, moves=2, coarse=4)),
        "correction": (free, Corrected(3 if free.independent else 1)),
    }  # fmt: skip
    records = [_scored("exact regression", exact_score(sets, functions), math.nan)]
    for name, (used, solver) in ways.items():
        start = time.process_time()
        found = completed(sets, used, functions, SEEN, solver, samples=draws, noise=NOISE)
        records.append(_scored(name, found, time.process_time() - start))
    headings = {"smse": "SMSE", "msll": "MSLL", "coverage": "coverage of 95 % bands", "crps": "CRPS"}
    table = markdown(records, {"way": ""}, {**headings, "seconds": "seconds"})
    return Result(records, {"Completion": table}, {"function_posterior": partial(bands, sets, ways, draws)})


def _scored(name: str, found: Score, seconds: float) -> Record:
    numbers = {"smse": found.smse, "msll": found.msll, "coverage": found.coverage, "crps": found.crps}
    return {"way": name, **numbers, "seconds": seconds}


def bands(sets: Sets, ways: Mapping[str, tuple[Flow, Solver]], draws: int) -> Any:
    """The picture of posterior bands of one held-out function."""
    chosen, seen = telling(sets, 0, SEEN, NOISE, torch.Generator().manual_seed(0))
    places = sets.held_out[0][1]["coords"][:, 0]
    mean, std = exact_posterior(sets, 0, chosen, seen)
    panels = {}
    for name, (flow, solver) in ways.items():
        x = completions(sets, flow, 0, chosen, seen, solver, draws, 0)[..., 0].double()
        points, lines = (places[chosen], seen[chosen, 0]), (mean, mean - 1.96 * std, mean + 1.96 * std)
        panels[name] = report.Completion(places, x.mean(0), x.std(0), points, lines)
    return report.posterior(panels)


def curves(study: Study) -> Result:
    """Weather, economies, spectra and heart beats, and whether they were learned by heart: each set is cut into three
    quarters that are learned and a quarter that is held out. ``memorised`` is the share of functions that are three
    times as near to one training function as to any other; held-out functions show how often that happens by chance."""
    records: list[Record] = []
    for name in study.chosen(list(SETS)):
        found = curves_of(name, study.data)
        if found is None:
            print(f"{name}: no {SETS[name][0]} in {study.data}; left out")
        else:
            title = f"{name}, {len(found)} curves of {found.shape[1]}"
            records += study.measure({"set": title}, partial(_learned, found, study))
    numbers = {
        "mean_mse": "mean", "variance_mse": "variance", "autocorrelation_mse": "autocorrelation",
        "spectrum_error": "spectrum", "frechet": "Fréchet distance", "energy_distance": "energy distance",
        "nearest_training": "nearest training function", "memorised": "memorised", "seconds": "seconds to train",
    }  # fmt: skip
    return Result(records, {"Measured curves": markdown(records, {"set": "set", "row": ""}, numbers)})


def _learned(found: np.ndarray, study: Study) -> list[Record]:
    """Train on one set and measure its samples beside training functions."""
    seed = study.trials(1)[0]
    how = ours(data={"share": 0.25, "array": "x"}, network={"modes": 24, "width": 24, "layers": 3})
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch) / "curves.npz", x=found.astype(np.float32))
        domain = made(Case({"source": str(Path(scratch) / "curves.npz")}, 24, 32), how, seed)
        flow, spent = trained(domain, how, study.budget(1000, 100), seed)
        rows = {"samples": drawn(domain, flow, how, 100 if study.quick else 500, seed)}
    rows |= domain.references(rows["samples"])
    return [{"row": row, "seconds": spent, **measure(domain, x, rows["held-out"])} for row, x in rows.items()]
