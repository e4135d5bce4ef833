"""Gaussian laws at both ends, on vectors and on centred clouds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood import backward
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import RK4, Adaptive, Euler, Midpoint
from fm_science.spaces import Centered, Euclidean
from fm_science.state import Context, expand_like
from tests.oracles.closed_forms import GaussianPair, matrix_root
from tests.oracles.table import largest, oracle


def gaussian_pair(kind: str) -> GaussianPair:
    """From the standard normal law to another in three dimensions; ``kind`` is "independent" or "optimal"."""
    a = torch.tensor([[1.2, 0.3, 0.0], [-0.4, 0.7, 0.2], [0.1, 0.5, 0.9]])
    m1 = torch.tensor([1.0, -2.0, 0.5])
    return getattr(GaussianPair, kind)(torch.zeros(3), torch.eye(3), m1, a @ a.mT)


def _gaussian_density(kind: str) -> float:
    pair = gaussian_pair(kind)
    flow = Flow(Geodesic(Euclidean(3)), Normal(), pair)
    x = (pair.m1 + torch.randn(64, 3) @ matrix_root(pair.s1))[:, None]
    return largest(flow.log_prob(x, Context.full(64), steps=50) - pair.log_prob(x))


@oracle("Gaussian to Gaussian, independent: log-density", 1e-6)
def gaussian_independent() -> float:
    return _gaussian_density("independent")


@oracle("Gaussian to Gaussian, optimal transport: log-density", 1e-6)
def gaussian_optimal() -> float:
    return _gaussian_density("optimal")


@oracle("Gaussian to Gaussian, optimal transport: one Euler step is the map", 1e-9)
def gaussian_map() -> float:
    pair = gaussian_pair("optimal")
    flow = Flow(Geodesic(Euclidean(3)), Normal(), pair)
    x0 = torch.randn(64, 1, 3)
    return largest(flow.transport(x0, Context.full(64), Euler(), 1) - (pair.m1 + x0 @ matrix_root(pair.s1)))


@oracle("Gaussian to Gaussian, optimal transport: kinetic energy is the squared distance", 1e-9)
def gaussian_energy() -> float:
    pair = gaussian_pair("optimal")
    context = Context.full(32)
    path = Geodesic(Euclidean(3)).bind(context, Normal())
    x0 = torch.randn(32, 1, 3)
    x1 = pair.m1 + x0 @ matrix_root(pair.s1)
    walk = backward(path, lambda x, t: pair(x, t, context), x1, Normal(), RK4(), 20)
    return max(largest(walk.energy - (x1 - x0).square().sum((1, 2))), largest(walk.noise - x0))


def _peer(solver: object, steps: int) -> float:
    """N(0, 1) to N(2, 0.5²), 512 points in the plane: the errors that the reference library reaches are the bounds."""
    s2 = torch.tensor(0.25)

    def velocity(x: Tensor, t: Tensor, context: Context) -> Tensor:
        t = expand_like(t, x)
        return 2 + (t * s2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s2) * (x - 2 * t)

    x = 2 + 0.5 * torch.randn(512, 1, 2)
    exact = torch.distributions.Normal(2.0, 0.5).log_prob(x).sum((1, 2))
    flow = Flow(Geodesic(Euclidean(2)), Normal(), velocity)
    return largest(flow.log_prob(x, Context.full(512), solver, steps) - exact)  # type: ignore[arg-type]


@oracle("Gaussian log-density against a peer: midpoint, 50 steps", 1.45e-4)
def peer_midpoint() -> float:
    return _peer(Midpoint(), 50)


@oracle("Gaussian log-density against a peer: adaptive, tolerance 1e-5", 7.8e-6)
def peer_adaptive() -> float:
    return _peer(Adaptive(1e-5, 1e-5), 1)


@oracle("centred clouds of 2 to 5 points: log-density with its normaliser", 1e-6)
def centred() -> float:
    mask = torch.arange(5) < torch.tensor([2, 3, 4, 5]).repeat(8)[:, None]
    context = Context(mask)
    s0, s1 = 1.5, 0.6

    def velocity(x: Tensor, t: Tensor, context: Context) -> Tensor:
        t = expand_like(t, x)
        return (t * s1**2 - (1 - t) * s0**2) / ((1 - t) ** 2 * s0**2 + t**2 * s1**2) * x

    flow = Flow(Geodesic(Centered(3)), Normal(s0), velocity)
    x = Normal(s1).sample(Centered(3), context)
    d = 3.0 * (mask.sum(1) - 1)
    exact = -0.5 * x.square().sum((1, 2)) / s1**2 - d * (0.5 * math.log(2 * math.pi) + math.log(s1))
    return largest(flow.log_prob(x, context) - exact)
