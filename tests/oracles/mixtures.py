"""Mixtures of Gaussians: every prediction on every schedule, singular ends, and the change of schedule."""

from __future__ import annotations

import torch

from fm_science.flow import Flow
from fm_science.networks import Rescheduled
from fm_science.paths import Gaussian
from fm_science.predictions import Endpoint, Noise, Score, Velocity
from fm_science.priors import Normal
from fm_science.schedules import VE, VP, Cosine, Linear, LipmanOT, Polynomial, SubVP, Trigonometric
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean
from fm_science.state import Context, expand_like
from tests.oracles.closed_forms import three_modes
from tests.oracles.table import largest, oracle

SCHEDULES = (Linear(), Trigonometric(), Polynomial(2), Cosine(), VP(), SubVP(), LipmanOT(1e-3), VE(0.05, 150.0))
KINDS = {"velocity": Velocity(), "endpoint": Endpoint(), "noise": Noise(), "score": Score()}


@oracle("noise to mixture: four predictions on eight schedules give one velocity", 1e-9)
def predictions_agree() -> float:
    mixture, worst = three_modes(1.3), 0.0
    context = Context.full(128)
    t = torch.rand(128) * 0.9 + 0.05
    for schedule in SCHEDULES:
        alpha, sigma = schedule(t)
        signal, noise = (expand_like(w, torch.ones(1, 1, 1)) for w in (alpha, sigma))
        x = signal * mixture.draw(128) + noise * 1.3 * torch.randn(128, 1, 2)
        exact = mixture.network(schedule, "velocity")(x, t, context)
        for kind, prediction in KINDS.items():
            path = Gaussian(Euclidean(2), schedule, prediction).bind(context, Normal(1.3))
            raw = mixture.network(schedule, kind)(x, t, context)
            scale = 1 + largest(exact)
            worst = max(worst, largest(path.velocity(raw, x, t) - exact) / scale)
            worst = max(worst, largest(path.endpoint(raw, x, t) - mixture.endpoint(x, alpha, sigma)))
            worst = max(worst, largest(path.score(raw, x, t) - mixture.score(x, alpha, sigma)) / scale)
    return worst


@oracle("noise to mixture: log-density, velocity on the straight path", 1e-6)
def mixture_density() -> float:
    mixture = three_modes()
    x = mixture.draw(64)
    flow = Flow(Gaussian(Euclidean(2), Linear()), Normal(), mixture.network(Linear(), "velocity"))
    exact = mixture.log_prob(x, torch.ones(64), torch.zeros(64))
    return largest(flow.log_prob(x, Context.full(64), steps=100) - exact)


def _singular(schedule: object, steps: int) -> float:
    mixture = three_modes()
    x = mixture.draw(64)
    flow = Flow(Gaussian(Euclidean(2), schedule, Endpoint()), Normal(), mixture.network(schedule, "endpoint"))  # type: ignore
    exact = mixture.log_prob(x, torch.ones(64), torch.zeros(64))
    return largest(flow.log_prob(x, Context.full(64), steps=steps) - exact)


@oracle("noise to mixture: log-density, endpoint on the straight path (singular at t = 1)", 1e-6, slow=True)
def mixture_endpoint() -> float:
    return _singular(Linear(), 150)


@oracle("noise to mixture: log-density, endpoint on the trigonometric path (singular at t = 1)", 1e-6, slow=True)
def mixture_trigonometric() -> float:
    return _singular(Trigonometric(), 150)


@oracle("change of schedule, straight to trigonometric: same samples", 4e-9)
def rescheduled() -> float:
    mixture, context = three_modes(), Context.full(64)
    old, new = Gaussian(Euclidean(2), Linear()), Gaussian(Euclidean(2), Trigonometric())
    network = mixture.network(Linear(), "velocity")
    x0 = torch.randn(64, 1, 2)
    one = Flow(old, Normal(), network).transport(x0, context, RK4(), 250)
    two = Flow(new, Normal(), Rescheduled(network, old, new)).transport(x0, context, RK4(), 250)
    return largest(one - two)


@oracle("change of schedule: the velocity is that of the new path", 1e-9)
def rescheduled_velocity() -> float:
    mixture, worst = three_modes(), 0.0
    t, x = torch.rand(256) * 0.98 + 0.01, torch.randn(256, 1, 2)
    context = Context.full(256)
    for old in (Linear(), VP(), LipmanOT(1e-3)):
        for new in (Trigonometric(), Cosine(), Linear()):
            inside = (new.time(*old(torch.zeros(256))) < t) & (t < new.time(*old(torch.ones(256))))
            wrapped = Rescheduled(mixture.network(old, "velocity"), old, new)(x, t, context)
            exact = mixture.network(new, "velocity")(x, t, context)
            worst = max(worst, largest((wrapped - exact)[inside]) / (1 + largest(exact)))
    return worst
