"""Score matching without noise to regress on, and the derivative that maximum likelihood can hold down."""

from __future__ import annotations

import pytest
import torch

from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace, Hutchinson, backward
from fm_science.objectives import MaximumLikelihood, ScoreMatching, UniformTime
from fm_science.paths import Gaussian, Geodesic
from fm_science.predictions import Score, Velocity
from fm_science.priors import Normal
from fm_science.schedules import VP
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean, Sphere
from fm_science.state import Context, expand_like

pytestmark = pytest.mark.usefixtures("double")
N = 4000


class Affine(torch.nn.Module):
    """The score -(x - mean) / variance."""

    def __init__(self, mean: float, variance: float) -> None:
        super().__init__()
        self.mean, self.rate = torch.nn.Parameter(torch.tensor(mean)), torch.nn.Parameter(torch.tensor(1 / variance))

    def forward(self, x, t, context):
        return -self.rate * (x - self.mean)


@pytest.mark.parametrize("rule", [ExactTrace(), Hutchinson()], ids=str)
def test_the_score_of_noised_gaussian_data_is_stationary_and_has_the_least_loss(rule):
    """Data N(2, 1/4) at one time: the minimum of the loss is minus half the mean squared score, 1 / variance."""
    alpha, sigma = (float(v) for v in VP()(torch.tensor(0.7)))
    mean, variance = 2 * alpha, alpha**2 / 4 + sigma**2
    flow = Flow(Gaussian(Euclidean(1), VP(), Score()), Normal(), Affine(mean, variance))
    torch.manual_seed(0)
    loss = ScoreMatching(rule, times=UniformTime(0.7, 0.7))(flow, 2 + 0.5 * torch.randn(N, 1, 1), Context.full(N))
    value = loss["score"]
    assert float(value.detach().mean()) == pytest.approx(-0.5 / variance, abs=4 * float(value.detach().std()) / N**0.5)
    for slope in torch.autograd.grad(value.mean(), list(flow.parameters())):
        assert abs(float(slope)) < 0.2
    assert flow.independent


def test_weights_count_times_and_a_path_without_a_score_is_refused():
    flow = Flow(Gaussian(Euclidean(1), VP(), Score()), Normal(), Affine(0.0, 1.0))
    x1, times = torch.randn(5, 1, 1), UniformTime(0.3, 0.3)
    losses = []
    for weight in (None, lambda t: 3 * t):
        torch.manual_seed(0)
        losses.append(ScoreMatching(times=times, weight=weight)(flow, x1, Context.full(5))["score"])
    assert torch.allclose(losses[1], 0.9 * losses[0])
    curved = Flow(Geodesic(Sphere(2)), Normal(), lambda x, t, c: x)
    with pytest.raises(TypeError):
        ScoreMatching()(curved, torch.eye(3)[None, :1], Context.full(1))


def test_the_derivative_of_the_velocity_is_integrated():
    """N(0, 1) to N(2, 1/4) by x_t = 2 t + (1 - t / 2) x0: the derivative is -1 / (2 - t), the integral of its square
    1/2 in each of three directions."""

    def velocity(x, t, context=None):
        t = expand_like(t, x)
        return 2 - 0.5 * (x - 2 * t) / (1 - t / 2)

    context, x1 = Context.full(6), 2 + 0.5 * torch.randn(6, 1, 3)
    path = Geodesic(Euclidean(3), predicts=Velocity()).bind(context, Normal())
    walk = backward(path, velocity, x1, Normal(), RK4(), 40, jacobian=True)
    assert torch.allclose(walk.jacobian, torch.full((6,), 1.5), atol=1e-6)
    plain = backward(path, velocity, x1, Normal(), RK4(), 40)
    assert torch.allclose(plain.logp, walk.logp)
    losses = MaximumLikelihood(jacobian=0.1, steps=40)(Flow(Geodesic(Euclidean(3)), Normal(), velocity), x1, context)
    assert torch.allclose(losses["jacobian"], torch.full((6,), 0.1 * 1.5 / 3), atol=1e-6)
