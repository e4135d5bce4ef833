"""Losses beside torchcfm's matchers, on equal random streams."""

from __future__ import annotations

import pytest
import torch

from fm_science.couplings import Independent, Transport
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Gaussian, Geodesic
from fm_science.priors import Normal
from fm_science.schedules import Linear, Trigonometric
from fm_science.spaces import Euclidean
from fm_science.state import Context

torchcfm = pytest.importorskip("torchcfm", reason="needs pip install 'fm-science[peers]'")
pytestmark = pytest.mark.peers

BATCH, DIM = 256, 6


def network(x, t):
    return torch.sin(3 * x) * t[:, None] + x.roll(1, -1)


def our_loss(path, x1, coupling):
    flow = Flow(path, Normal(), lambda x, t, context: network(x[:, 0], t)[:, None])
    torch.manual_seed(7)
    return FlowMatching(coupling)(flow, x1[:, None], Context.full(BATCH))["loss"]


@pytest.mark.parametrize(
    ("path", "matcher"),
    [
        (Geodesic(Euclidean(DIM)), torchcfm.ConditionalFlowMatcher),
        (Gaussian(Euclidean(DIM), Linear()), torchcfm.ConditionalFlowMatcher),
        (Gaussian(Euclidean(DIM), Trigonometric()), torchcfm.VariancePreservingConditionalFlowMatcher),
    ],
    ids=["geodesic", "gaussian", "trigonometric"],
)
def test_losses_with_independent_noise_agree(path, matcher):
    x1 = 2 + torch.randn(BATCH, DIM)
    ours = our_loss(path, x1, Independent())
    torch.manual_seed(7)
    t, x, target = matcher(sigma=0.0).sample_location_and_conditional_flow(torch.randn(BATCH, DIM), x1)
    torch.testing.assert_close(ours, (network(x, t) - target).square().mean(1), rtol=1e-12, atol=1e-12)


def test_losses_with_optimal_transport_agree():
    """torchcfm draws pairs from its plan with replacement; here each pair of the plan is taken once."""
    x1 = 2 + torch.randn(BATCH, DIM)
    ours = our_loss(Geodesic(Euclidean(DIM)), x1, Transport())
    torch.manual_seed(7)
    x0 = torch.randn(BATCH, DIM)
    plan = torch.from_numpy(torchcfm.OTPlanSampler(method="exact").get_map(x0, x1))
    torch.testing.assert_close(plan.max(0).values, torch.full((BATCH,), 1 / BATCH))
    t, x, target = torchcfm.ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(
        x0[plan.argmax(0)], x1
    )  # fmt: skip
    torch.testing.assert_close(ours, (network(x, t) - target).square().mean(1), rtol=1e-12, atol=1e-12)
