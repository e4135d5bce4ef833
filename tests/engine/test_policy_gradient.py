"""Policy gradients: laws p exp(r) that are known in closed form, from rewards that are only called."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.objectives import PolicyGradient
from fm_science.paths import Geodesic
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, Uniform
from fm_science.schedules import Linear
from fm_science.solvers import DDPM, Euler
from fm_science.spaces import SO3, Categorical, Euclidean
from fm_science.state import Context, expand_like


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def tuned(flow, reward, x1, updates, lr, steps=6, evaluations=5):
    objective = PolicyGradient(reward, steps=steps, evaluations=evaluations)
    optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        loss = objective(flow, x1, Context.full(len(x1)))["policy"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


class Line(nn.Module):
    """E[x1 | x_t] for data N(shift, 1), with a shift that is learned."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x, t, context):
        t = expand_like(t, x)
        return self.shift + t / (t**2 + (1 - t) ** 2) * (x - t * self.shift)


def test_a_linear_reward_that_has_no_gradient_moves_a_normal_law_by_its_slope():
    flow = Flow(Geodesic(Euclidean(1), Linear(), Endpoint()), Normal(), Line())
    slope = 0.8
    tuned(flow, lambda x1: slope * x1.detach()[:, 0, 0], torch.zeros(256, 1, 1), 80, 0.05)
    assert abs(float(flow.network.shift.detach()) - slope) < 0.05
    x = flow.sample(Context.full(20_000), DDPM(), 50, seed=1)
    assert abs(float(x.mean()) - slope) < 0.05 + 5 / 20_000**0.5


class Shares(nn.Module):
    """p(x1 | x_t) for data with learned logits and known noise: what is taught is the law of the data alone."""

    def __init__(self, law, noise):
        super().__init__()
        self.logits, self.noise = nn.Parameter(torch.tensor(law).log()), torch.tensor(noise)

    def forward(self, x, t, context):
        k = expand_like(t, x)
        again = (x * self.noise).sum(-1, keepdim=True)
        return self.logits + (k * x + (1 - k) * again).clamp_min(1e-30).log()


@pytest.mark.parametrize("noise", [(0.2, 0.3, 0.5), (0.0, 0.0, 0.0, 1.0)], ids=["uneven", "mask"])
def test_classes_get_the_probabilities_that_their_reward_says(noise):
    law, reward = [0.5, 0.3, 0.2], torch.tensor([0.0, 1.0, -0.5])
    masked = len(noise) > 3
    path = Geodesic(Categorical(len(noise)), Linear(), Posterior(mask=3 if masked else None))
    flow = Flow(path, Classes(noise), Shares(law + [1e-9] * masked, noise))
    x1 = torch.zeros(256, 1, len(noise))
    tuned(flow, lambda x: x[:, 0, :3] @ reward, x1, 120, 0.05)
    want = torch.tensor(law) * reward.exp()
    want = want / want.sum()
    found = flow.network.logits.detach()[:3].softmax(0)
    assert bool(((found - want).abs() < 0.04).all())
    x = flow.sample(Context.full(20_000), Euler(), 30, seed=1)[:, 0, :3].mean(0)
    assert bool(((x - want).abs() < 0.04 + 5 * 0.5 / 20_000**0.5).all())


def test_its_gradient_at_the_answer_is_zero_on_average():
    """At p exp(r) each walk's reward less its relative entropy is the same, so that no step is better than another."""
    flow = Flow(Geodesic(Euclidean(1), Linear(), Endpoint()), Normal(), Line())
    before = Line()
    flow.network.shift.data.fill_(0.5)
    objective = PolicyGradient(lambda x1: 0.5 * x1[:, 0, 0], before=before, steps=6, evaluations=5)
    context, grads = Context.full(64), []
    for _ in range(60):
        (g,) = torch.autograd.grad(objective(flow, torch.zeros(64, 1, 1), context)["policy"].mean(), flow.parameters())
        grads.append(float(g))
    found = torch.tensor(grads)
    assert abs(found.mean()) < 5 * found.std() / math.sqrt(60) + 0.02  # the last step of a walk learns nothing


def test_what_has_no_law_of_steps_is_refused():
    reward = lambda x: x.flatten(1).sum(1)  # noqa: E731
    turned = Flow(Geodesic(SO3()), Uniform(), lambda x, t, c: x[..., 0])
    with pytest.raises(TypeError, match="known noise on classes"):
        PolicyGradient(reward)(turned, torch.eye(3).expand(2, 1, 3, 3), Context.full(2))
    flow = Flow(Geodesic(Euclidean(1), Linear(), Endpoint()), Normal(), Line())
    with pytest.raises(ValueError, match="at least two"):
        PolicyGradient(reward)(flow, torch.zeros(1, 1, 1), Context.full(1))
    flow.independent = False
    with pytest.raises(TypeError, match="ties noise"):
        PolicyGradient(reward)(flow, torch.zeros(2, 1, 1), Context.full(2))
