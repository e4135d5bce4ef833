"""Particles: posteriors and evidences that are known, on a line, on the sphere and on classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.particles import Particles
from fm_science.paths import Geodesic
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, Uniform
from fm_science.spaces import Categorical, Euclidean, Sphere
from fm_science.state import Context, State, expand_like
from tests.oracles.table import oracle

BATCH, COUNT = 64, 64


def _standard_errors(found: Tensor, want: float) -> float:
    """How many standard errors the mean of independent estimates ``(B,)`` is off."""
    return float((found.mean() - want).abs() / (found.std() / len(found) ** 0.5))


@oracle("particles, N(0, 1) seen as 1 with noise 1/2: mean and evidence in standard errors, 200 steps", 5)
def particles_on_a_line() -> float:
    def endpoint(x: State, t: Tensor, context: Context) -> State:
        t = expand_like(t, x)
        return t / (t**2 + (1 - t) ** 2) * x

    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), endpoint)
    seen = torch.ones(())

    def log_likelihood(x: Tensor) -> Tensor:
        return torch.distributions.Normal(x[:, 0, 0], 0.5).log_prob(seen)

    found = Particles(log_likelihood, COUNT)(flow, Context.full(BATCH), 200)
    evidence = float(torch.distributions.Normal(0.0, 1.25**0.5).log_prob(seen).exp())
    return max(
        _standard_errors(found.mean()[:, 0, 0], 0.8), _standard_errors(found.log_evidence.exp(), evidence)
    )  # fmt: skip


@oracle("particles, uniform on the sphere with exp(5 z): mean of z and evidence in standard errors", 5)
def particles_on_the_sphere() -> float:
    flow = Flow(Geodesic(Sphere(2)), Uniform(), lambda x, t, c: torch.zeros_like(x))
    found = Particles(lambda x: 5 * x[:, 0, 2], COUNT)(flow, Context.full(BATCH), 6)
    return max(
        _standard_errors(found.mean()[:, 0, 2], 1 / math.tanh(5) - 0.2),
        _standard_errors(found.log_evidence.exp(), math.sinh(5) / 5),
    )


@oracle("particles, classes (.8, .2) with the likelihood (.1, .9): evidence in standard errors", 5)
def particles_of_classes() -> float:
    law = torch.tensor([0.8, 0.2])

    def network(x: State, t: Tensor, context: Context) -> State:
        k = expand_like(t, x)
        return (law * (k * x + 0.5 * (1 - k))).log()

    flow = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes([0.5, 0.5]), network)
    likelihood = torch.tensor([0.1, 0.9])
    found = Particles(lambda x: (x[:, 0] @ likelihood).log(), COUNT)(flow, Context.full(BATCH), 6)
    return _standard_errors(found.log_evidence.exp(), 0.26)
