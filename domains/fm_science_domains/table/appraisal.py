"""What can only be said of the trained flow itself: the likelihood of held-out rows, and how honest its fills are.

The likelihood is exact where all columns are continuous, in nats of the user's own units and in bits a column, beside
densities that were fitted to the same rows. Intervals are honest where a nine-tenths interval of the draws of a cell
holds the truth nine times in ten.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.networks import ConvexMap, TransportMap
from fm_science.state import Context

from . import report, rivals
from .data import Rows, Sets, Summary
from .encoding import NUMBERS, Encoding
from .files import Numbers
from .laws import LAWS
from .metrics import Metrics

CHUNK = 500  # rows whose likelihood is integrated at a time
DRAWS = 40  # of each cell that is filled


def appraise(
    flow: Flow, o: Metrics, summary: Summary, sets: Sets, source: str, folder: Path | None
) -> dict[str, float]:  # fmt: skip
    """Likelihoods, coverage, and pictures of the flow where it is of two numbers."""
    encoding = summary.encoding
    found: dict[str, float] = {}
    if o.likelihood and encoding.continuous:
        found |= likelihoods(flow, o, encoding, sets, source)
    if o.coverage:
        found |= coverage(flow, encoding, sets.held_out, o.coverage)
    if isinstance(flow.network, ConvexMap) and len(sets.held_out.complete):
        found["w2_dual"] = dual_distance(flow.network, encoding, sets.held_out.complete)
    plane = len(encoding.linear) == len(encoding.learned) == 2 and encoding.condition is None
    if folder is not None and plane and not isinstance(flow.network, TransportMap):  # which has no velocity to draw
        report.flow_pictures(flow, encoding, sets.held_out, folder)
    return found


def dual_distance(network: ConvexMap, encoding: Encoding, values: Numbers, draws: int = 4000) -> float:
    """The Wasserstein-2 distance of noise and rows ``(n, C)`` by the dual potentials, in spreads; NaN where they give
    less than zero."""
    weight = next(network.parameters())
    x = encoding.encode(values)[0][NUMBERS].flatten(1).to(weight)
    noise = torch.randn(draws, x.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        value = float(network.dual_value(noise, x))
    return math.sqrt(value) if value >= 0 else math.nan


def log_likelihood(flow: Flow, encoding: Encoding, values: Numbers, steps: int, seed: int = 0) -> Tensor:
    """Log-densities of rows ``(n, C)`` in nats of the user's units, over the cells that are there, ``(n,)``. Whole
    numbers are dithered: then the mean bounds that of the log-probability from below."""
    dither = np.random.default_rng(seed).random(values.shape) - 0.5
    device = next(flow.parameters()).device
    found = []
    for start in range(0, len(values), CHUNK):
        some, noise = values[start : start + CHUNK], dither[start : start + CHUNK]
        state, context = known_rows(encoding, some, noise)
        with torch.no_grad():
            x = {k: v.to(device, flow.dtype) for k, v in state.items()}
            logp = flow.log_prob(x, context.to(device), steps=steps, seed=seed)
        found.append(logp.cpu().double() + encoding.log_slope(some, noise))
    return torch.cat(found)


def known_rows(encoding: Encoding, values: Numbers, dither: Numbers | float = 0.0) -> tuple[dict[str, Tensor], Context]:
    """Rows as a state, and the context that says which of their cells are there."""
    state, observed = encoding.encode(values, dither)
    cond = {"observed": observed}
    if encoding.condition_index is not None:
        cond["label"] = encoding.condition_codes(values)
    mask = torch.ones(len(values), encoding.sites, dtype=torch.bool)
    known = {k: v.float() for k, v in state.items()}
    context = Context(mask, cond) if bool(observed.all()) else Context(mask, cond, encoding.by_part(observed), known)
    return state, context


def likelihoods(flow: Flow, o: Metrics, encoding: Encoding, sets: Sets, source: str) -> dict[str, float]:
    """Mean negative log-likelihood of complete held-out rows, ours and that of others."""
    rows = sets.held_out.complete[: o.likelihood]
    if not len(rows):
        return {}
    logp, d = log_likelihood(flow, encoding, rows, o.steps), len(encoding.learned)
    nll = -float(logp.mean())
    found = {"nll": nll, "nll_error": float(logp.std() / math.sqrt(len(rows))) if len(rows) > 1 else math.nan}
    found["bits_per_column"] = nll / (d * math.log(2))
    law = LAWS.get(source)
    if law is not None and law.log_density is not None:
        found["nll_exact"] = -float(law.log_density(rows).mean())
    if encoding.condition is None and len(encoding.linear) == d:
        found |= {f"nll_{name}": value for name, value in others(o, sets, rows).items()}
    return found


def others(o: Metrics, sets: Sets, rows: Numbers) -> dict[str, float]:
    """Mean negative log-likelihoods under densities that were fitted to the same training rows."""
    known = sets.train.complete
    if len(known) < 3:
        return {}
    train, _ = rivals.coordinates(sets.train, known)
    test, slope = rivals.coordinates(sets.train, rows)
    found = {"gaussian": rivals.gaussian(train, test), "kernel_density": rivals.kernel_density(train, test)}
    if o.spline:
        found["spline_flow"] = rivals.spline_flow(train, test, o.spline)
    return {name: -float((logp + slope).mean()) for name, logp in found.items()}


def coverage(flow: Flow, encoding: Encoding, rows: Rows, cells: int) -> dict[str, float]:
    """Held-out cells that are hidden, one in each of some rows, and filled from the others: how often intervals of the
    draws hold the truth, how far their mean is from it in spreads, and how often a drawn class is the true one."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(rows))[:cells]
    values, where = rows.values[chosen].copy(), []
    for row in values:
        there = [k for k in encoding.order if not math.isnan(row[k])]
        where.append(int(rng.choice(there)) if there else -1)
    kept = [i for i, k in enumerate(where) if k >= 0]
    values, truth = values[kept], np.array([values[i, where[i]] for i in kept])
    cell = np.array([where[i] for i in kept])
    if not len(kept):
        return {}
    drawn = _filled(flow, encoding, values, cell)
    return _honest(encoding, cell, truth, drawn)


def _filled(flow: Flow, encoding: Encoding, values: Numbers, cell: Numbers) -> Numbers:
    """Draws ``(n, DRAWS)`` of one cell of each row, given its others."""
    hidden = values.copy()
    hidden[np.arange(len(values)), cell] = np.nan
    many = np.repeat(hidden, DRAWS, 0)
    state, context = known_rows(encoding, many)
    at = torch.from_numpy(np.repeat(cell, DRAWS))[:, None] == torch.tensor(encoding.order)
    known = {k: v.float() for k, v in state.items()}
    cond = {**context.cond, "observed": context.cond["observed"] | at}
    conditioned = Context(context.mask, cond, encoding.by_part(at), known)
    device = next(flow.parameters()).device
    found = []
    for rows in torch.arange(len(many)).split(4 * CHUNK):
        x = flow.sample(conditioned.take(rows).to(device), seed=int(rows[0]))
        found.append(encoding.decode(x))
    whole = np.concatenate(found)
    return whole[np.arange(len(whole)), np.repeat(cell, DRAWS)].reshape(len(values), DRAWS)


def _honest(encoding: Encoding, cell: Numbers, truth: Numbers, drawn: Numbers) -> dict[str, float]:
    inside: dict[float, list[bool]] = {0.5: [], 0.9: []}
    errors, right = [], []
    for k, v, draws in zip(cell, truth, drawn, strict=True):
        c = encoding.columns[int(k)]
        if c.kind == "class":
            right.append(float((draws == v).mean()))
            continue
        y, z = float(c.coordinate(np.array([v]))[0]), c.coordinate(draws)
        if c.kind == "period":  # angles from their mean direction
            middle = np.angle(np.exp(1j * z).mean())
            y, z = (np.remainder(w - middle + np.pi, 2 * np.pi) - np.pi for w in (y, z))
        for share, hits in inside.items():
            low, high = np.quantile(z, [(1 - share) / 2, (1 + share) / 2])
            hits.append(bool(low <= y <= high))
        errors.append((z.mean() - y) ** 2)
    found = {f"coverage_{round(100 * s)}": float(np.mean(hits)) for s, hits in inside.items() if hits}
    if errors:
        found["fill_error"] = float(np.sqrt(np.mean(errors)))
    return found | ({"fill_class_right": float(np.mean(right))} if right else {})
