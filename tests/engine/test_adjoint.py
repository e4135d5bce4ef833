"""Gradients by the adjoint equation, and the residual of the Hamilton-Jacobi-Bellman equation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace, integrate_log_prob
from fm_science.networks import Potential
from fm_science.objectives import MaximumLikelihood
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Uniform
from fm_science.solvers import RK4, Adjoint
from fm_science.spaces import Euclidean, Torus
from fm_science.state import Context, expand_like

pytestmark = pytest.mark.usefixtures("double")


class Field(nn.Module):
    def __init__(self, dim: int = 2, width: int = 8) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, width), nn.Tanh(), nn.Linear(width, dim))

    def forward(self, x, t, context):
        return self.net(torch.cat([x, expand_like(t, x).expand(*x.shape[:-1], 1)], -1))


def small(seed: int = 0) -> Flow:
    torch.manual_seed(seed)
    return Flow(Geodesic(Euclidean(2)), Normal(), Field().double())


def gradient(flow: Flow, steps: int, adjoint: bool) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.randn(6, 1, 2)
    rule = MaximumLikelihood(energy=0.1, jacobian=0.1, steps=steps, divergence=ExactTrace(), adjoint=adjoint)
    losses = rule(flow, x, Context.full(6))
    total = sum(loss.mean() for loss in losses.values())
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(flow.parameters()))])


def test_the_adjoint_gradient_is_that_of_backpropagation_up_to_the_error_of_the_solver():
    """Of order four: half the step, a sixteenth of the difference."""
    flow = small()
    right = gradient(flow, 32, adjoint=False)
    errors = [float((gradient(flow, n, adjoint=True) - right).norm() / right.norm()) for n in (2, 4, 8)]
    assert errors[2] < 1e-4
    assert errors[0] / errors[1] > 8
    assert errors[1] / errors[2] > 10


def test_steps_chosen_by_tolerance_give_the_same_gradient():
    flow, context = small(), Context.full(6)
    torch.manual_seed(1)
    x = torch.randn(6, 1, 2)
    found = []
    for solver in (RK4(), Adjoint(tuple(flow.parameters()), "dopri5", 1e-8, 1e-8)):
        loss = -flow.log_prob(x, context, solver, steps=24).mean()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(flow.parameters()))]))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_memory_does_not_grow_with_the_steps():
    flow = small()

    def saved(steps: int, adjoint: bool) -> int:
        """Operations that the graph of the loss keeps, with what each needs for its gradient."""
        torch.manual_seed(1)
        rule = MaximumLikelihood(steps=steps, divergence=ExactTrace(), adjoint=adjoint)
        loss = rule(flow, torch.randn(6, 1, 2), Context.full(6))["likelihood"]
        found, ahead = set(), [loss.grad_fn]
        while ahead:
            node = ahead.pop()
            if node is not None and node not in found:
                found.add(node)
                ahead += [other for other, _ in node.next_functions]
        return len(found)

    assert saved(8, adjoint=False) > 3.5 * saved(2, adjoint=False)
    assert saved(8, adjoint=True) == saved(2, adjoint=True)


def test_what_is_not_linear_and_other_methods_are_refused():
    flow = Flow(Geodesic(Torus(2)), Uniform(), lambda x, t, c: torch.zeros_like(x))
    with pytest.raises(TypeError, match="no linear space"):
        MaximumLikelihood(adjoint=True)(flow, torch.zeros(3, 1, 2), Context.full(3))
    with pytest.raises(ValueError, match="rk4"):
        Adjoint((), "leapfrog")


class Straight(nn.Module):
    """The potential s of the transport of N(0, 1) to N(2, 1/4): a (x - 2 t)² / 2 + 2 x - 2 t, a = -1 / (2 - t), which
    solves ds/dt + |grad s|² / 2 = 0 in one dimension; plus ``extra`` times t."""

    def __init__(self, extra: float) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x, t, context):
        y = x[:, 0, 0]
        return -0.5 * (y - 2 * t) ** 2 / (2 - t) + 2 * y - 2 * t + self.extra * t


@pytest.mark.parametrize("extra", [0.0, 0.7])
def test_the_residual_of_the_hamilton_jacobi_bellman_equation_vanishes_on_optimal_transport(extra):
    """A shift of s by extra t moves nothing, and leaves a residual of extra."""
    network = Potential(Straight(extra), Euclidean(1))
    flow, context = Flow(Geodesic(Euclidean(1)), Normal(), network), Context.full(5)
    x = 2 + 0.5 * torch.randn(5, 1, 1)
    path = flow.path.bind(context, flow.prior)
    predict, rate = lambda y, t: network(y, t, context), lambda y, t: network.rates(y, t, context)[1]
    walk = integrate_log_prob(path, predict, x, Normal(), RK4(), 20, rate=rate)
    assert torch.allclose(walk.hjb, torch.full((5,), extra), atol=1e-8)
    losses = MaximumLikelihood(hjb=0.5, steps=20, divergence=ExactTrace())(flow, x, context)
    assert torch.allclose(losses["hjb"], torch.full((5,), 0.5 * extra), atol=1e-8)
    exact = torch.distributions.Normal(2.0, 0.5).log_prob(x[:, 0, 0])
    assert torch.allclose(losses["likelihood"], -exact, atol=1e-5)


def test_the_residual_asks_for_a_potential():
    with pytest.raises(TypeError, match="Potential"):
        MaximumLikelihood(hjb=0.1)(small(), torch.zeros(3, 1, 2), Context.full(3))
