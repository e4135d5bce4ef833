"""The mixture of many equal Gaussians is the general mixture, and its distance from samples has no floor."""

from __future__ import annotations

import pytest
import torch

from fm_science.schedules import VP, Linear
from fm_science.state import Context
from tests.oracles.closed_forms import Mixture
from tests.oracles.kernels import Kernels, ring


@pytest.mark.parametrize("schedule", [Linear(), VP()])
@pytest.mark.parametrize("kind", ["velocity", "noise", "endpoint"])
def test_kernels_are_the_mixture(schedule, kind) -> None:
    law = Kernels(torch.randn(5, 2).double(), 0.3)
    known = Mixture(torch.full((5,), 0.2, dtype=torch.float64), law.mean, torch.full((5,), 0.3, dtype=torch.float64))
    x, t = torch.randn(64, 1, 2).double(), 0.05 + 0.9 * torch.rand(64).double()
    expected = known.network(schedule, kind)(x, t, Context.full(64))
    torch.testing.assert_close(law.network(schedule, kind)(x, t), expected, rtol=1e-9, atol=1e-9)
    density = known.log_prob(x, torch.ones(64), torch.zeros(64))
    torch.testing.assert_close(law.log_prob(x), density, rtol=1e-9, atol=1e-9)


def test_discrepancy_has_no_floor() -> None:
    """Own draws give 0 within five standard errors of 40 repetitions; a wider law does not."""
    law, wide = ring(), ring(std=0.3)
    torch.manual_seed(0)
    own = torch.tensor([law.discrepancy(law.draw(400)) for _ in range(40)])
    assert own.mean().abs() < 5 * own.std() / 40**0.5
    assert law.discrepancy(wide.draw(2000)) > 5 * own.std()
