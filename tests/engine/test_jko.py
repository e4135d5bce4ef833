"""Steps down the relative entropy, one block after another."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace
from fm_science.networks import Blocks
from fm_science.objectives import JKO
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean
from fm_science.state import Context

pytestmark = pytest.mark.usefixtures("double")
N, STD = 200, 0.4


class Stretch(nn.Module):
    """The velocity a x: a block of it multiplies by exp(a)."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate))

    def forward(self, x, s, context):
        return self.rate * x


def minimiser(std: float, h: float) -> float:
    """The spread s' at which s'² / 2 - log s' + (s' - s)² / (2 h) is least."""
    return (std + math.sqrt(std**2 + 4 * h * (1 + h))) / (2 * (1 + h))


def data() -> torch.Tensor:
    """Points of spread STD to the last bit."""
    x = torch.randn(N, 1, 2, generator=torch.Generator().manual_seed(0))
    return STD * x / x.square().mean().sqrt()


def flow_of(*rates: float) -> Flow:
    return Flow(Geodesic(Euclidean(2)), Normal(), Blocks([Stretch(a) for a in rates]))


@pytest.mark.parametrize("h", [0.3, 2.0])
def test_each_step_is_the_closed_form_on_gaussian_data(h):
    """The loss is the functional, and stands still at its minimiser, block after block."""
    spreads = [STD, minimiser(STD, h)]
    spreads.append(minimiser(spreads[1], h))
    rates = [math.log(b / a) for a, b in itertools.pairwise(spreads)]
    flow = flow_of(*rates)
    rule = JKO(h, block_steps=1, steps=12, divergence=ExactTrace())
    for block in range(2):
        losses = rule(flow, data(), Context.full(N))
        before, after = spreads[block : block + 2]
        entropy = 0.5 * after**2 + 0.5 * math.log(2 * math.pi) - rates[block]
        assert float(losses["entropy"].detach().mean()) == pytest.approx(entropy, abs=1e-5)
        cost = (after - before) ** 2 / (2 * h)
        assert float(losses["transport"].detach().mean()) == pytest.approx(cost, abs=1e-5)
        total = sum(loss.mean() for loss in losses.values())
        moved, other = torch.autograd.grad(
            total, [flow.network.blocks[k].rate for k in (block, 1 - block)], allow_unused=True
        )
        assert abs(float(moved)) < 1e-4
        assert other is None  # blocks before and after do not learn


def test_blocks_are_trained_in_turn_and_the_last_goes_on():
    flow, rule = flow_of(0.0, 0.0), JKO(1.0, block_steps=15, steps=4, divergence=ExactTrace())
    optimizer = torch.optim.SGD(flow.parameters(), 0.3)
    found = []
    for _ in range(35):
        losses = rule(flow, data(), Context.full(N))
        optimizer.zero_grad()
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()
        found.append([float(block.rate.detach()) for block in flow.network.blocks])
    assert found[14][1] == 0
    assert found[14][0] == found[-1][0]
    first = minimiser(STD, 1.0)
    assert math.exp(found[-1][0]) * STD == pytest.approx(first, abs=0.02)
    assert math.exp(sum(found[-1])) * STD == pytest.approx(minimiser(first, 1.0), abs=0.02)
    flow.eval()
    assert int(flow.network.seen) == 35
    rule(flow, data(), Context.full(N))
    assert int(flow.network.seen) == 35  # only training counts


def test_samples_and_densities_go_through_all_blocks():
    flow, context = flow_of(0.2, 0.5, -0.1), Context.full(8)
    std = math.exp(-0.6)
    x = torch.randn(8, 1, 2)
    # the pace is smooth, so the error is that of order four with 8 steps a block
    assert torch.allclose(flow.transport(x, context, RK4(), 24), std * x, rtol=1e-4)
    exact = torch.distributions.Normal(0.0, std).log_prob(x).sum((1, 2))
    assert torch.allclose(flow.log_prob(x, context, RK4(), 24), exact, atol=2e-3)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="positive"):
        JKO(0.0)
    plain = Flow(Geodesic(Euclidean(2)), Normal(), Stretch())
    with pytest.raises(TypeError, match="Blocks"):
        JKO()(plain, data(), Context.full(N))
