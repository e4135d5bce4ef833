"""Variants of data: carried back to a time, and from there to new data, by flows known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.flow import Flow
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, ProductPrior, Uniform
from fm_science.solvers import RK4, Euler, grid_after, power_grid, uniform_grid
from fm_science.spaces import Categorical, Centered, Euclidean, frames
from fm_science.state import Context, expand_like, leaves
from tests import toy

MEAN, STD = 1.0, 0.5


def posterior_mean(x, t, context):
    """E[x1 | x_t] of the straight path from N(0, 1) to N(MEAN, STD²)."""
    a, s = expand_like(t, x), expand_like(1 - t, x)
    return MEAN + a * STD**2 / (a * a * STD**2 + s * s) * (x - a * MEAN)


def gaussian():
    return Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), posterior_mean)


@pytest.mark.parametrize("time", [0.3, 0.7])
def test_variants_of_gaussian_data_are_gaussian_and_correlated_as_the_path_says(time):
    """The walk from t carries N(t m, t² s² + (1 - t)²) to N(m, s²) by a straight map, so that x1 and its variant have
    the correlation t s / sqrt(t² s² + (1 - t)²)."""
    n = 20_000
    torch.manual_seed(0)
    x1 = MEAN + STD * torch.randn(n, 1, 1, dtype=torch.float64)
    flow, context = gaussian(), Context.full(n)
    found = flow.sample(context, RK4(), 20, seed=1, start=x1, from_time=time)
    error = 5 / math.sqrt(n)
    assert abs(float(found.mean()) - MEAN) < error * STD
    assert abs(float(found.std()) - STD) < error * STD
    spread = math.hypot(time * STD, 1 - time)
    r = time * STD / spread
    assert abs(float(torch.corrcoef(torch.stack([x1, found]).flatten(1))[0, 1]) - r) < error * (1 - r * r)
    x = flow.add_noise(x1, context, time)
    exact = MEAN + STD * (x - time * MEAN) / spread
    torch.testing.assert_close(flow.transport(x, context, RK4(), flow.grid(200, time)), exact, atol=1e-3, rtol=0)


def test_from_time_zero_is_plain_sampling():
    flow, context = gaussian(), Context.full(4)
    x1 = torch.zeros(4, 1, 1)
    assert torch.equal(flow.sample(context, steps=8, seed=2, start=x1), flow.sample(context, steps=8, seed=2))


def test_late_variants_keep_their_data_and_early_ones_do_not():
    torch.manual_seed(0)
    x1 = MEAN + STD * torch.randn(512, 1, 1)
    flow, context = gaussian(), Context.full(512)
    apart = [
        (flow.sample(context, steps=20, seed=1, start=x1, from_time=t) - x1).square().mean() for t in (0.2, 0.6, 0.99)
    ]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 1e-3


def test_the_grid_of_variants_is_the_rest_of_the_whole_one():
    whole = power_grid(10)
    rest = grid_after(whole, 0.5)
    assert float(rest[0]) == 0.5
    assert torch.equal(rest[1:], whole[whole > 0.5])
    assert torch.equal(grid_after(uniform_grid(4), 0.25), uniform_grid(4)[1:])
    assert torch.equal(grid_after(uniform_grid(4), 0), uniform_grid(4))
    for wrong in (-0.1, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="from_time"):
            grid_after(whole, wrong)


def test_a_time_needs_data_to_start_from():
    with pytest.raises(ValueError, match="give start"):
        toy.build().flow().sample(Context.full(2), from_time=0.5)


def test_frozen_sites_and_known_endpoints_stay_on_frames_and_classes():
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.tensor([3, 6])[:, None]
    prior = ProductPrior(translations=Normal(), rotations=Uniform())
    target = prior.sample(frames().bind(Context(mask)), Context(mask))
    free = torch.ones_like(mask)
    free[:, 0] = False
    context = Context(mask, free=free, known=target)
    parts = {k: Geodesic(s, predicts=Endpoint()) for k, s in frames().parts.items()}
    flow = Flow(ProductPath(**parts), prior, lambda x, t, c: target)
    x = flow.add_noise(target, context, 0.4)
    for part, whole in zip(leaves(x), leaves(target), strict=True):
        assert torch.equal(part[:, 0], whole[:, 0])
        assert (part[:, 1] - whole[:, 1]).abs().amax() > 0.01
    found = flow.sample(context, Euler(), 10, seed=0, start=target, from_time=0.4)
    for part, whole in zip(leaves(found), leaves(target), strict=True):
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_a_share_of_classes_as_the_clock_says_is_kept():
    n, time = 4000, 0.6
    path = Geodesic(Categorical(4), predicts=Posterior(3))
    flow = Flow(path, Classes([0, 0, 0, 1]), lambda x, t, c: torch.zeros_like(x))
    x1 = torch.nn.functional.one_hot(torch.arange(n) % 3, 4).float()[:, None]
    torch.manual_seed(0)
    kept = (flow.add_noise(x1, Context.full(n), time)[..., 3] == 0).float().mean()
    assert abs(float(kept) - time) < 5 * math.sqrt(time * (1 - time) / n)


def test_a_centred_space_stays_centred():
    flow = Flow(Geodesic(Centered(), predicts=Endpoint()), Normal(), lambda x, t, c: x)
    context = Context.full(3, 5)
    x1 = Centered().bind(context).project(torch.randn(3, 5, 3))
    assert flow.add_noise(x1, context, 0.5).mean(1).abs().max() < 1e-6
