"""Adaptive steps of each sample's own: the same walk as alone in a batch, and no batch lost to one sample."""

from __future__ import annotations

import pytest
import torch

from fm_science.flow import Flow
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Posterior
from fm_science.priors import Classes, Normal, ProductPrior
from fm_science.solvers import Adaptive, failed
from fm_science.spaces import Categorical, Euclidean, Sphere
from fm_science.state import Context, expand_like, take


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


APART = Adaptive(1e-6, 1e-6, per_sample=True)
PATH = ProductPath(a=Geodesic(Euclidean(2)), b=Geodesic(Sphere(2)))


def field(x, t, context):
    """Turns that are the faster the farther out a sample starts, so that samples need different steps."""
    speed = 1 + 8 * context.cond["speed"]
    turn = torch.stack([-x["a"][..., 1], x["a"][..., 0]], -1)
    around = torch.linalg.cross(torch.tensor([0.0, 0, 1]).expand_as(x["b"]), x["b"])
    return {"a": expand_like(speed, turn) * turn, "b": expand_like(speed * torch.cos(5 * t), around) * around}


def batch(n):
    context = Context.full(n, speed=torch.linspace(0, 1, n) ** 2)
    space = PATH.space.bind(context)
    return space.project({"a": torch.randn(n, 1, 2), "b": torch.randn(n, 1, 3)}), context


def test_each_sample_walks_as_if_it_were_alone():
    x, context = batch(5)
    flow = Flow(PATH, ProductPrior(a=Normal(), b=Normal()), field)
    together = flow.transport(x, context, APART)
    shared = flow.transport(x, context, Adaptive(1e-6, 1e-6))
    for i in range(5):
        row = torch.tensor([i])
        alone = flow.transport(take(x, row), context.take(row), Adaptive(1e-6, 1e-6))
        assert all(torch.allclose(together[k][row], alone[k], rtol=0, atol=1e-12) for k in x)
    assert not all(torch.allclose(together[k], shared[k], rtol=0, atol=1e-12) for k in x)
    assert all(torch.allclose(together[k], shared[k], rtol=0, atol=1e-4) for k in x)
    back = flow.transport(together, context, APART, reverse=True)
    assert all(torch.allclose(back[k], x[k], rtol=0, atol=1e-4) for k in x)


def test_a_sample_that_fails_is_marked_and_the_others_arrive():
    """dx/dt = x² ends at x / (1 - x), but leaves every bound before t = 1 from 2."""
    start = torch.tensor([0.5, 2.0, -1.0, 0.0]).reshape(4, 1, 1)
    broken = torch.tensor([0.0, 0, 0, torch.nan]).reshape(4, 1, 1)
    flow = Flow(Geodesic(Euclidean(1)), Normal(), lambda x, t, c: x.square() + broken[: len(x)])
    with pytest.warns(RuntimeWarning, match=r"2 of 4 samples failed.*1 \(t = 0\.5\), 3 \(t = 0\)"):
        end = flow.transport(start, Context.full(4), APART, 3)
    assert failed(end).tolist() == [False, True, False, True]
    assert torch.allclose(end[[0, 2], 0, 0], torch.tensor([1.0, -0.5]), atol=1e-5)
    with pytest.raises(RuntimeError, match="vanishes"):
        flow.transport(start[:2], Context.full(2), Adaptive(1e-6, 1e-6))
    with pytest.warns(RuntimeWarning, match="samples failed"):
        few = flow.transport(start[:1], Context.full(1), Adaptive(1e-10, 1e-10, most=2, per_sample=True))
    assert failed(few).tolist() == [True]


def test_densities_keep_the_good_samples_and_classes_never_see_the_bad_ones():
    flow = Flow(Geodesic(Euclidean(1)), Normal(), lambda x, t, c: -x.square())  # backwards, dx/dt = x²
    x = torch.tensor([0.5, 2.0]).reshape(2, 1, 1)
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        logp = flow.log_prob(x, Context.full(2), APART)
    want = torch.distributions.Normal(0, 1).log_prob(torch.tensor(1.0)) + torch.log(torch.tensor(4.0))
    assert torch.allclose(logp[0], want, atol=1e-5)
    assert logp.isnan().tolist() == [False, True]

    path = ProductPath(x=Geodesic(Euclidean(1)), c=Geodesic(Categorical(2), predicts=Posterior()))
    network = lambda x, t, c: {"x": x["x"].square(), "c": torch.cat([x["x"], -x["x"]], -1)}  # noqa: E731
    both = Flow(path, ProductPrior(x=Normal(), c=Classes([0.5, 0.5])), network)
    start = {"x": x, "c": torch.eye(2)[:, None]}
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        end = both.transport(start, Context.full(2), APART, 4)  # NaN logits would raise
    assert failed(end).tolist() == [False, True]
    first = torch.tensor([0])
    alone = both.transport(take(start, first), Context.full(1), Adaptive(1e-6, 1e-6), 4)
    assert torch.allclose(end["x"][first], alone["x"], rtol=0, atol=1e-12)
    assert float(end["c"][0].sum()) == 1
