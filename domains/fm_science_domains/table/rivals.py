"""What else could have been fitted to the same rows: a Gaussian, a kernel density, a neural spline flow."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.seeds import seeded

from .data import Rows
from .encoding import NUMBERS
from .files import Numbers

KERNELS = 4_000  # training rows of a kernel density, at most
FACTORS = (0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)  # of Scott's bandwidth, among which held-back rows choose


def gaussian_rows(train: Rows, n: int, rng: np.random.Generator) -> Numbers:
    """``n`` rows ``(n, C)``: classes as they come together in training, and around the mean of each such combination a
    Gaussian of all other coordinates, whose covariance within combinations is common to all."""
    columns = train.encoding.columns
    rows = train.complete if len(train.complete) > 2 * len(columns) else train.values
    learned = [k for k, c in enumerate(columns) if c.learned]
    classes = [k for k in learned if columns[k].kind == "class"]
    rest = [k for k in learned if columns[k].kind != "class"]
    out = np.full((n, len(columns)), np.nan)
    chosen = rng.integers(0, len(rows), n)
    out[:, classes] = rows[chosen][:, classes]
    if not rest:
        return out
    z = np.stack([columns[k].coordinate(rows[:, k]) for k in rest], 1)
    z = np.where(np.isnan(z), np.nanmean(z, 0), z)
    _, kind = np.unique(np.nan_to_num(rows[:, classes], nan=-1), axis=0, return_inverse=True)
    kind = kind.reshape(-1) if classes else np.zeros(len(rows), int)
    means = np.stack([z[kind == j].mean(0) for j in range(kind.max() + 1)])
    covariance = np.atleast_2d(np.cov(z - means[kind], rowvar=False, bias=True)) + 1e-9 * np.eye(len(rest))
    found = means[kind[chosen]] + rng.standard_normal((n, len(rest))) @ np.linalg.cholesky(covariance).T
    for i, k in enumerate(rest):
        out[:, k] = columns[k].value(found[:, i])
    return out


def coordinates(rows: Rows, values: Numbers, seed: int = 0) -> tuple[Numbers, Numbers]:
    """Complete rows ``(n, C)`` as coordinates ``(n, R)`` with whole numbers dithered, and the log-determinant
    ``(n,)``."""
    dither = np.random.default_rng(seed).random(values.shape) - 0.5
    state, _ = rows.encoding.encode(values, dither)
    return state[NUMBERS][..., 0].numpy(), rows.encoding.log_slope(values, dither).numpy()


def gaussian(train: Numbers, test: Numbers) -> Numbers:
    """Log-densities ``(n,)`` of a Gaussian of full covariance."""
    mean, d = train.mean(0), train.shape[1]
    covariance = np.atleast_2d(np.cov(train, rowvar=False, bias=True)) + 1e-9 * np.eye(d)
    low = np.linalg.cholesky(covariance)
    white = np.linalg.solve(low, (test - mean).T)
    return -0.5 * (white**2).sum(0) - np.log(np.diag(low)).sum() - 0.5 * d * math.log(2 * math.pi)


def kernel_density(train: Numbers, test: Numbers) -> Numbers:
    """Log-densities ``(n,)`` of Gaussian kernels with the covariance of the rows, as scipy has them, and the multiple
    of Scott's bandwidth that predicts a tenth of the training rows best."""
    from scipy.stats import gaussian_kde

    rows = np.random.default_rng(0).permutation(train)[:KERNELS]
    some = max(1, len(rows) // 10)
    known, validation = rows[some:], rows[:some]
    if len(known) <= rows.shape[1] + 1:
        return np.full(len(test), math.nan)

    def fitted(x: Numbers, factor: float) -> gaussian_kde:
        return gaussian_kde(x.T, lambda kde: factor * kde.scotts_factor())

    best = max(FACTORS, key=lambda f: fitted(known, f).logpdf(validation.T).mean())
    return fitted(rows, best).logpdf(test.T)


def spline_flow(train: Numbers, test: Numbers, seconds: float, seed: int = 0) -> Numbers:
    """Log-densities ``(n,)`` of an autoregressive neural spline flow (Durkan et al. 2019; zuko), trained for so long
    with the weights that predict a tenth of the training rows best.

    Raises:
        UserError: where zuko is not installed.
    """
    try:
        import zuko
    except ImportError as error:
        raise UserError("metrics.spline needs zuko: pip install 'fm-science[table]'") from error
    x = torch.from_numpy(np.random.default_rng(seed).permutation(train)).float()
    some = max(1, len(x) // 10)
    validation, known = x[:some], x[some:]
    with seeded(seed, torch.device("cpu")), torch.enable_grad():
        flow = zuko.flows.NSF(features=train.shape[1], transforms=3, bins=8, hidden_features=(64, 64))
        best = _trained(flow, known, validation, seconds)
        flow.load_state_dict(best)
    with torch.no_grad():
        return flow().log_prob(torch.from_numpy(test).float()).double().numpy()


def _trained(flow: torch.nn.Module, known: Tensor, validation: Tensor, seconds: float) -> dict[str, Tensor]:
    """The weights that predict held-back rows best within a time."""
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3)
    start, step, least = time.process_time(), 0, math.inf
    best = {k: v.clone() for k, v in flow.state_dict().items()}
    while (spent := (time.process_time() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * spent))
        rows = known[torch.randint(len(known), (min(256, len(known)),))]
        loss = -flow().log_prob(rows).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            with torch.no_grad():
                now = -float(flow().log_prob(validation[:2000]).mean())
            if now < least:
                least, best = now, {k: v.clone() for k, v in flow.state_dict().items()}
    return best
