"""Fine-tuning by a reward: laws p exp(r) that are known in closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.objectives import AdjointMatching
from fm_science.paths import Gaussian, Geodesic, ProductPath
from fm_science.predictions import Endpoint, Velocity
from fm_science.priors import Normal, ProductPrior, Uniform
from fm_science.schedules import Linear, Trigonometric
from fm_science.solvers import Heun
from fm_science.spaces import SO3, Euclidean
from fm_science.state import Context, expand_like


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Shifted(nn.Module):
    """The exact network of N(0, 1) to N(0, 1), and what is learned: for each, shift and slope, five waves in time."""

    def __init__(self, predicts):
        super().__init__()
        self.predicts = predicts
        self.weights = nn.Parameter(torch.zeros(2, 5))

    def forward(self, x, t, context):
        t = expand_like(t, x)
        spread = t**2 + (1 - t) ** 2
        waves = torch.cos(torch.pi * t * torch.arange(5)) @ self.weights.T
        velocity = (2 * t - 1) * x / spread + waves[..., :1] + waves[..., 1:] * x
        return x + (1 - t) * velocity if isinstance(self.predicts, Endpoint) else velocity


def tuned(path, reward, updates=80, size=64, lr=0.2, steps=8, evaluations=4):
    flow = Flow(path, Normal(), Shifted(path.predicts))
    objective = AdjointMatching(reward, steps=steps, evaluations=evaluations)
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        loss = objective(flow, torch.zeros(size, 1, 1), Context.full(size))["adjoint"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = flow.sample(Context.full(20_000), Heun(), 20, seed=1)
    return float(x.mean()), float(x.std())


@pytest.mark.parametrize("predicts", [Velocity(), Endpoint()], ids=repr)
def test_a_linear_reward_moves_a_normal_law_by_its_slope(predicts):
    mean, std = tuned(Geodesic(Euclidean(1), Linear(), predicts), lambda x1: 1.5 * x1[:, 0, 0])
    error = 5 / 20_000**0.5
    assert abs(mean - 1.5) < 0.02 * 1.5 + error
    assert abs(std - 1) < 0.02 + error


@pytest.mark.slow
def test_a_quadratic_reward_narrows_a_normal_law():
    """exp(-x² / 2 - 3 (x - 1)² / 2) is N(3 / 4, 1 / 4)."""
    path = Geodesic(Euclidean(1), Linear(), Endpoint())
    mean, std = tuned(path, lambda x1: -1.5 * (x1[:, 0, 0] - 1).square(), 150, 256, 0.1, steps=12, evaluations=6)
    assert abs(mean - 0.75) < 0.03
    assert abs(std - 0.5) < 0.03


def test_the_loss_of_the_exact_answer_is_zero_on_every_schedule_and_part():
    """N(0, 1) and a slope: the lean adjoint carries no noise, so that the exact answer fits each walk."""
    paths = {
        "a": Geodesic(Euclidean(1), Linear(), Endpoint()),
        "b": Gaussian(Euclidean(1), Trigonometric(), Velocity()),
    }

    def network(slope):
        def call(x, t, context):
            t = expand_like(t, x["a"])
            spread = t**2 + (1 - t) ** 2
            half = torch.pi / 2
            b = slope * torch.cos(half * t) ** 2  # how far the datum moves, on a circle
            turned = half * b / torch.cos(half * t)
            return {"a": (t * x["a"] + slope * (1 - t) ** 2) / spread, "b": turned + 0 * x["b"]}

        return call

    prior = ProductPrior(a=Normal(), b=Normal())
    flow = Flow(ProductPath(**paths), prior, network(2.0))
    reward = lambda x1: 2 * (x1["a"] + x1["b"])[:, 0, 0]  # noqa: E731
    x1, context = {k: torch.zeros(4, 1, 1) for k in "ab"}, Context.full(4)
    assert AdjointMatching(reward, before=network(0.0))(flow, x1, context)["adjoint"].max() < 1e-6
    assert AdjointMatching(reward)(flow, x1, context)["adjoint"].min() > 1e-2
    weaker = AdjointMatching(reward, strength=0.5, before=network(1.0))(flow, x1, context)["adjoint"]
    assert weaker.max() < 1e-6


def test_what_cannot_be_tuned_is_refused():
    reward, x1 = lambda x1: x1.sum(), torch.zeros(2, 1, 1)
    for bad in ({"steps": 1}, {"evaluations": 0}, {"steps": 4, "evaluations": 4}):
        with pytest.raises(ValueError, match="steps"):
            AdjointMatching(reward, **bad)
    turned = Flow(Geodesic(SO3()), Uniform(), lambda x, t, c: x[..., 0])
    with pytest.raises(TypeError, match="Gaussian noise on linear spaces"):
        AdjointMatching(reward)(turned, torch.eye(3).expand(2, 1, 3, 3), Context.full(2))
    tied = Flow(Geodesic(Euclidean(1)), Normal(), lambda x, t, c: x)
    tied.independent = False
    with pytest.raises(TypeError, match="ties noise"):
        AdjointMatching(reward)(tied, x1, Context.full(2))
