"""Paths of rows with noise in the middle: stochastic interpolants and the Schrödinger bridge."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.data import collate
from fm_science.errors import OptionError
from fm_science.paths import Interpolant, bump
from fm_science.schedules import Linear
from fm_science.spaces import Euclidean
from fm_science.state import Context
from fm_science_domains.table import Table
from fm_science_domains.table.network import unit_interpolant
from fm_science_domains.table.paths import NOISY

from .test_domain import SMALL

N = 4000


def moons(way: str, **objective: object) -> Table:
    path = {"kind": way}
    return Table(data={"source": "moons", "train": 40, "test": 20}, network=SMALL, path=path, objective=objective)


@pytest.mark.parametrize("kind", list(NOISY))
@pytest.mark.parametrize("time", [0.25, 0.5, 0.9])
def test_an_untrained_network_tells_the_velocity_and_the_noise_of_unit_gaussian_ends(kind: str, time: float) -> None:
    """Both are regressions on x_t: with v = t² + (1-t)² + gamma² the slopes are cov(x, dx/dt) / v and gamma / v, and
    the slope of a regression of N points has a standard error of (rest / v / N)^1/2."""
    torch.manual_seed(0)
    path = Interpolant(Euclidean(1), gamma=NOISY[kind](1.0)).bind(Context.full(N))
    t, x0, x1 = torch.full((N,), time), torch.randn(N, 1, 1), torch.randn(N, 1, 1)
    x = path.sample(x0, x1, t)
    (pull, _), (share, _) = unit_interpolant(Linear(), NOISY[kind](1.0), t)
    raw = {"velocity": pull[:, None, None] * x, "noise": share[:, None, None] * x}
    for name, other in (("velocity", {**raw, "velocity": 1.3 * raw["velocity"]}), ("noise", {**raw, "noise": 0 * x})):
        right, wrong = (path.loss(output, x0, x1, x, t)[name] for output in (raw, other))
        gain = ((raw[name] - other[name]) ** 2).mean()  # by how much the right slope is better, in the mean
        error = float((wrong - right).std()) / N**0.5
        assert float((wrong - right).mean()) == pytest.approx(float(gain), abs=5 * error)


def test_the_noise_of_an_interpolant_begins_and_ends_at_rest() -> None:
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    value, rate = torch.func.jvp(bump(2.0), (t,), (torch.ones_like(t),))
    assert torch.allclose(value, torch.tensor([0.0, 1.0, 2.0, 0.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rate, torch.tensor([0.0, 2 * math.pi, 0.0, 0.0], dtype=torch.float64), atol=1e-12)


def test_ends_are_paired_as_the_bridge_of_brownian_motion_pairs_gaussians() -> None:
    """Standard normal noise and rows of spread one: the covariance c of the entropic plan solves c² + sigma² c = 1
    (Janati et al. 2020, theorem 1), so c = .618 at sigma = 1."""
    domain, n = moons("schroedinger", given=0.0), 1500
    context = Context.full(n, 2, observed=torch.ones(n, 2, dtype=torch.bool))
    torch.manual_seed(0)
    x0, x1 = ({"numbers": torch.randn(n, 2, 1)} for _ in range(2))
    space = domain.path.bind(context, domain.prior).space
    x0, x1, _ = domain.objective.coupling.pair(space, x0, x1, context)
    found = float((x0["numbers"] * x1["numbers"]).mean())
    # 2 n products of variance 1 + c², and the bias of a plan of n points, of the order 1 / n^1/2
    assert found == pytest.approx((5**0.5 - 1) / 2, abs=4 * (1.4 / (2 * n)) ** 0.5 + 1 / n**0.5)


@pytest.mark.parametrize("kind", list(NOISY))
def test_rows_are_learned_drawn_and_have_a_density(kind: str) -> None:
    domain = moons(kind, given=0.0)
    flow = domain.flow()
    x1, context = collate(flow.path.space, [domain.data.train[i] for i in range(32)])
    torch.manual_seed(0)
    losses = domain.objective(flow, x1, context)
    assert set(losses) == {"numbers/velocity", "numbers/noise"}
    sum(loss.mean() for loss in losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
    assert flow.log_prob(x1, context, steps=10).isfinite().all()
    drawn = flow.sample(domain.request(400), seed=0)["numbers"]
    assert float(drawn.detach().std()) == pytest.approx(1.0, abs=4 / 800**0.5)


def test_what_a_noisy_path_does_not_go_with_gets_one_line() -> None:
    with pytest.raises(OptionError, match="flow_matching"):
        moons("interpolant", kind="action_matching")
    with pytest.raises(OptionError, match=r"objective\.given=0"):
        _ = moons("schroedinger").objective
