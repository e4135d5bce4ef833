"""Classes: two dependent sites, whose joint law samples must reach and whose bound must be tight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood import elbo_rate
from fm_science.paths import Geodesic
from fm_science.predictions import Posterior
from fm_science.priors import Classes
from fm_science.schedules import Linear, Polynomial
from fm_science.solvers import Churn, Euler, Langevin, PredictorCorrector
from fm_science.spaces import Categorical
from fm_science.state import Context
from tests.oracles.closed_forms import TwoSites
from tests.oracles.table import oracle

PAIR = ((0.40, 0.05), (0.05, 0.50))


def _two_sites(masked: bool, schedule: object) -> tuple[Flow, Tensor]:
    joint = torch.tensor(PAIR)
    if masked:
        joint = torch.nn.functional.pad(joint, (0, 1, 0, 1))
    noise = torch.tensor([0.0, 0.0, 1.0]) if masked else torch.tensor([0.5, 0.5])
    path = Geodesic(Categorical(len(noise)), schedule, Posterior(mask=2 if masked else None))  # type: ignore[arg-type]
    return Flow(path, Classes(tuple(noise.tolist())), TwoSites(joint, noise, schedule)), joint


def _deviation(masked: bool, schedule: object, solver: object, steps: int) -> float:
    """The largest error of the joint law of 20,000 samples; infinite where a mask is left."""
    flow, joint = _two_sites(masked, schedule)
    n = 20_000
    x = flow.sample(Context.full(n, 2), solver, steps)  # type: ignore[arg-type]
    error = (torch.einsum("bi,bj->ij", x[:, 0], x[:, 1]) / n - joint).abs()
    left = masked and float(error[2].sum() + error[:, 2].sum()) > 0
    return math.inf if left else float(error.max())


# one standard error is 0.0035, and two sites that jump in one step add about one over the number of steps


@oracle("two dependent classes, uniform noise: law of samples", 0.02, slow=True)
def classes_uniform() -> float:
    return _deviation(False, Linear(), Euler(), 200)


@oracle("two dependent classes, masks, k = t²: law of samples", 0.02)
def classes_masked() -> float:
    return _deviation(True, Polynomial(2), Euler(), 200)


@oracle("two dependent classes: corrector and remasking keep the law", 0.025, slow=True)
def classes_corrected() -> float:
    return max(
        _deviation(False, Linear(), Langevin(3.0), 100),
        _deviation(True, Polynomial(2), Langevin(3.0), 100),
        _deviation(True, Linear(), PredictorCorrector(Euler(), 1, 0.02), 100),
        _deviation(False, Linear(), Churn(Euler(), 1.0), 100),
    )


@oracle("masks with k = t² and the exact posterior: the bound is the log-probability", 1e-9)
def classes_bound() -> float:
    import numpy as np

    schedule = Polynomial(2)
    flow, joint = _two_sites(True, schedule)
    node, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(12))
    times, weight = 0.5 * (node + 1), 0.5 * weight
    worst, context = 0.0, Context.full(1, 2)
    path = flow.path.bind(context, flow.prior)
    for i in range(2):
        for j in range(2):
            x1, bound = torch.eye(3)[[i, j]][None], 0.0
            for t, w in zip(times, weight, strict=True):
                k = float(t**2)
                for here in (True, False):  # which sites have arrived
                    for there in (True, False):
                        x = torch.eye(3)[[i if here else 2, j if there else 2]][None]
                        chance = (k if here else 1 - k) * (k if there else 1 - k)
                        cost = elbo_rate(path, flow.network(x, t[None], context), x, x1, t[None])
                        bound -= float(w * chance * cost)
            worst = max(worst, abs(bound - math.log(float(joint[i, j]))))
    return worst
