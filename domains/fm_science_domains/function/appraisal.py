"""The evaluation of a trained flow itself: its behaviour on finer grids, its likelihood, and how well it completes
functions from a few observations.

A flow of functions should give the same distribution at every resolution. The sweep draws functions on grids 1, 2 and 4
times as fine as the training grid, takes their values at the common sensors, and compares with held-out data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.distances import frechet
from fm_science.figures import draw
from fm_science.flow import Flow
from fm_science.solvers import Heun, Solver
from fm_science.state import Context

from . import report
from .conditional import LatentPosterior, show
from .exact import Score, score_samples
from .frame import decode
from .metrics import Metrics, spectrum, stage
from .report import Completion
from .sensors import Sampled, refined
from .sets import Sets

Make = Callable[..., Context]  # (n, grid) -> what to sample
MOST = 2_000  # held-out functions of the sweep


def appraise(sets: Sets, o: Metrics, request: Make, flow: Flow, folder: Path | None = None) -> dict[str, float]:
    """The sweep over resolutions, the likelihood per sensor, and scores of completed functions, as options request
    them; for functions on a line, pictures of the sweep (``resolutions.png``) and of some completions
    (``completions.png``) in the folder."""
    found: dict[str, float] = {}
    pictures: dict[str, Any] = {}
    if o.sweep and sets.train.gridded:
        numbers, rows = sweep(sets, request, flow, o.sweep)
        found |= numbers
        pictures["resolutions"] = partial(report.resolutions, rows, sets.held_out.functions[:MOST])
    if o.likelihood:
        found |= likelihood(sets, flow, o.likelihood)
    if o.completions:
        reads = getattr(flow.network, "reads", {})
        solver: Solver = Heun() if reads else LatentPosterior(noise=0.1)
        got = completed(sets, flow, o.completions, o.observed, solver)
        found |= {f"completion_{k}": v for k, v in vars(got).items()}
        shown = {f"held-out {k}": completion(sets, flow, k, o.observed, solver) for k in range(min(3, o.completions))}
        pictures["completions"] = partial(report.posterior, shown)
    if folder is not None and sets.dim == 1:
        draw(pictures, folder)
    return found


def drawn(sets: Sets, request: Make, flow: Flow, n: int, grid: str, seed: int = 0) -> list[Sampled]:
    """``n`` new functions on a grid such as ``2x``, in batches of bounded memory."""
    found: list[Sampled] = []
    for first in range(0, n, 64):
        context = request(min(64, n - first), grid=grid)
        found += decode(sets.frame, flow.sample(context, Heun(), seed=seed * 1000 + first), context)
    return found


def sweep(sets: Sets, request: Make, flow: Flow, n: int) -> tuple[dict[str, float], dict[str, list[Sampled]]]:
    """For grids 1, 2 and 4 times as fine, at the training sensors: the ratio of total variance to that of held-out
    functions, the mean error of the spectrum's ratio, and the Fréchet distance; and how much variance functions have
    beyond the training grid's Nyquist number, relative to all of it. With the functions of each grid."""
    s, own, found = stage(sets), sets.train.functions[0].grid, {}
    rows: dict[str, list[Sampled]] = {}
    if own is None or s.grid is None:
        return {}, {}
    reference = sets.held_out.functions[:MOST]
    truth = s.values(reference)
    exact = spectrum(truth, s.grid, s.frame.periodic)
    for factor in (1, 2, 4):
        rows[f"{factor}x"] = functions = drawn(sets, request, flow, n, f"{factor}x")
        x = s.values(functions)
        ratio = spectrum(x, s.grid, s.frame.periodic)[1:] / exact[1:].clamp_min(1e-12 * float(exact.max()))
        spread = x.var(0).mean() / truth.var(0).mean()
        found[f"variance_ratio_{factor}x"] = float(spread)
        found[f"spectrum_error_{factor}x"] = float((ratio - 1).abs().mean())
        found[f"frechet_{factor}x"] = frechet(s.flat(functions), s.flat(reference)) ** 0.5
        grid = refined(own, s.frame.periodic, factor)
        fine = torch.stack([(f.values.double() - s.frame.shift) / s.frame.scale for f in functions])
        power = spectrum(fine, grid, s.frame.periodic)
        found[f"beyond_nyquist_{factor}x"] = float(power[min(own) // 2 + 1 :].sum() / power.sum())
    return found, rows


def likelihood(sets: Sets, flow: Flow, n: int) -> dict[str, float]:
    """Mean negative log-likelihood of held-out functions per sensor and channel, in nats and inside units. It depends
    on the sensors: never compare it across grids."""
    from fm_science.data import collate
    from fm_science.likelihood import Hutchinson

    items = [sets.held_out[i] for i in range(min(n, len(sets.held_out)))]
    x, context = collate(flow.path.space, items)
    with torch.no_grad():
        log = flow.log_prob(x, context, Heun(), steps=20, divergence=Hutchinson(4), seed=0)
    return {"nll_per_sensor": float(-(log / flow.path.space.bind(context).dimension).mean())}


def completed(
    sets: Sets, flow: Flow, functions: int, observed: int, solver: Solver, samples: int = 100, noise: float = 0.0,
    seed: int = 0,
) -> Score:  # fmt: skip
    """Scores, in standard deviations of the data, of completing held-out functions from random observations.

    Args:
        sets: whose held-out functions are completed.
        flow: the trained flow.
        functions: how many functions.
        observed: observations of each.
        solver: how observations are used: any plain solver for an amortised network, else ``Corrected`` or
            ``LatentPosterior``.
        samples: completions of each function.
        noise: standard deviation of the observations, in standard deviations of the data.
        seed: of all random numbers.
    """
    found, truths = [], []
    for k in range(min(functions, len(sets.held_out))):
        chosen, revealed = telling(sets, k, observed, noise, torch.Generator().manual_seed(seed + k))
        hidden = torch.ones(len(revealed), dtype=torch.bool).index_fill(0, chosen, False)
        found.append(completions(sets, flow, k, chosen, revealed, solver, samples, seed + k)[:, hidden])
        truths.append(sets.held_out[k][0][hidden])
    prior = float(torch.cat(truths).mean()), math.sqrt(float(torch.cat(truths).var()))
    return score_samples(torch.cat(found, 1), torch.cat(truths), prior)


def completion(sets: Sets, flow: Flow, k: int, observed: int, solver: Solver, samples: int = 100) -> Completion:
    """Held-out function ``k`` of one variable, completed from random observations, for a picture."""
    chosen, revealed = telling(sets, k, observed, 0.0, torch.Generator().manual_seed(k))
    x = completions(sets, flow, k, chosen, revealed, solver, samples, k)[..., 0].double()
    values, cond = sets.held_out[k]
    places = cond["coords"][:, 0]
    order = places.argsort()
    seen = places[chosen], revealed[chosen, 0]
    return Completion(places[order], x.mean(0)[order], x.std(0)[order], seen, (values[order, 0],))


def telling(sets: Sets, k: int, observed: int, noise: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The sensors of held-out function ``k`` at which it is observed, and its values ``(N, C)`` with noise."""
    values, _ = sets.held_out[k]
    chosen = torch.randperm(len(values), generator=generator)[:observed]
    return chosen, values + noise * torch.randn(values.shape, generator=generator)


def completions(
    sets: Sets, flow: Flow, k: int, chosen: Tensor, revealed: Tensor, solver: Solver, samples: int, seed: int
) -> Tensor:
    """``samples`` samples ``(samples, N, C)`` of held-out function ``k`` given ``told[chosen]``, inside units."""
    values, cond = sets.held_out[k]
    every = {name: v.expand(samples, *v.shape).clone() for name, v in cond.items()}
    context = Context(torch.ones(samples, len(values), dtype=torch.bool), every)
    seen = torch.zeros(len(values), dtype=torch.bool).index_fill(0, chosen, True)
    context = show(context, seen.expand(samples, -1), revealed.expand(samples, *revealed.shape))
    return flow.sample(context, solver, seed=seed)
