"""Laws of times have the distribution functions of their names."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.objectives import BetaTime, InverseSquare, LogitNormalTime, Mixture, Stratified, UniformTime

N = 20_000
LAWS = [
    (UniformTime(), lambda t: t),
    (UniformTime(0.2, 0.7), lambda t: ((t - 0.2) / 0.5).clamp(0, 1)),
    (Stratified(), lambda t: t),
    (BetaTime(2.0, 1.0), lambda t: t**2),
    (BetaTime(1.0, 3.0), lambda t: 1 - (1 - t) ** 3),
    (LogitNormalTime(m=0.3, s=0.8), lambda t: torch.special.ndtr((torch.logit(t) - 0.3) / 0.8)),
    (Mixture(UniformTime(), BetaTime(2.0, 1.0), 0.25), lambda t: 0.75 * t + 0.25 * t**2),
]


@pytest.mark.parametrize(("law", "cdf"), LAWS, ids=[repr(law)[:40] for law, _ in LAWS])
def test_times_follow_their_law(law, cdf):
    """Kolmogorov's distance at the level 0.001; strata are at most one over their number away."""
    torch.manual_seed(0)
    t = law(N).double().sort().values
    assert bool((t >= 0).all())
    assert bool((t < 1).all())
    gap = float((cdf(t) - (torch.arange(N) + 0.5) / N).abs().max())
    assert gap < (1.01 / N if isinstance(law, Stratified) else 1.95 / math.sqrt(N))


def test_the_inverse_square_turns_endpoint_errors_into_velocity_errors_up_to_its_bound():
    t = torch.tensor([0.0, 0.5, 0.9, 0.99])
    torch.testing.assert_close(InverseSquare(0.9)(t), torch.tensor([1.0, 4.0, 100.0, 100.0]))
