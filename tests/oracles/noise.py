"""Noise that is exchanged on the way, and noise of the path's own."""

from __future__ import annotations

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.paths import Gaussian, Interpolant, brownian
from fm_science.predictions import Endpoint
from fm_science.priors import Normal
from fm_science.schedules import VE, VP, Linear
from fm_science.solvers import Churn, Heun, Langevin, PredictorCorrector, log_snr_grid
from fm_science.spaces import Euclidean
from fm_science.state import Context, expand_like
from tests.oracles.table import largest, oracle


def _moments(x: Tensor, mean: float, std: float) -> float:
    """The larger deviation of mean and standard deviation, in units of the standard deviation."""
    return max(abs(float(x.mean()) - mean), abs(float(x.std()) - std)) / std


def _one_gaussian(schedule: object, solver: object, steps: object) -> float:
    """N(0.4, 0.5²) from noise with the exact endpoint, 40,000 samples: standard error 0.005."""
    mean, std = 0.4, 0.5

    def endpoint(x: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, sigma = (expand_like(v, x) for v in schedule(t))  # type: ignore[operator]
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x - alpha * mean)

    flow = Flow(Gaussian(Euclidean(1), schedule, Endpoint()), Normal(), endpoint)  # type: ignore[arg-type]
    return _moments(flow.sample(Context.full(40_000), solver, steps), mean, std)  # type: ignore[arg-type]


@oracle("Langevin, predictor-corrector and churn on straight, VP and VE paths: moments", 0.025, slow=True)
def exchanged() -> float:
    worst = 0.0
    for schedule, steps in ((Linear(), 200), (VP(), log_snr_grid(200, VP())), (VE(0.01, 150.0), 200)):
        for solver in (Langevin(3.0), PredictorCorrector(Heun(), 1, 0.05), Churn(Heun(), 0.5)):
            worst = max(worst, _one_gaussian(schedule, solver, steps))
    return worst


@oracle("Brownian interpolant between Gaussians: log-density", 1e-6)
def interpolant_density() -> float:
    flow = _brownian()
    x = 1 + 0.5 * torch.randn(64, 1, 2)
    exact = torch.distributions.Normal(1.0, 0.5).log_prob(x).sum((1, 2))
    return largest(flow.log_prob(x, Context.full(64)) - exact)


@oracle("Brownian interpolant between Gaussians: exchange of noise keeps the moments", 0.025)
def interpolant_noise() -> float:
    x = _brownian().sample(Context.full(20_000), Langevin(3.0), 200)
    return _moments(x, 1.0, 0.5)


def _brownian() -> Flow:
    mean, std = 1.0, 0.5
    gamma = brownian(0.7)

    def network(x: Tensor, t: Tensor, context: Context) -> dict[str, Tensor]:
        r = expand_like(t, x)
        spread = expand_like(gamma(t), x)
        variance = (1 - r) ** 2 + r**2 * std**2 + spread**2
        gain = (r * std**2 - (1 - r) + 0.49 * (1 - 2 * r) / 2) / variance
        return {"velocity": mean + gain * (x - r * mean), "noise": spread / variance * (x - r * mean)}

    return Flow(Interpolant(Euclidean(2), gamma=gamma), Normal(), network)
