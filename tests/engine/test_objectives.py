"""Flow matching: conditions are dropped as often as asked, weights count, and pairs keep their meaning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from fm_science.couplings import Independent, Semidiscrete, Transport, Unbalanced
from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace
from fm_science.objectives import ActionMatching, FlowMapMatching, FlowMatching, MaximumLikelihood
from fm_science.paths import Geodesic, Interpolant, ProductPath
from fm_science.predictions import Posterior
from fm_science.priors import Classes, Normal, ProductPrior
from fm_science.spaces import Categorical, Euclidean
from fm_science.state import Context
from tests import toy


class Spy(nn.Module):
    """Predicts zero and remembers the contexts that it saw."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, t, context):
        self.seen.append(context)
        return torch.zeros_like(x)


def flow():
    return Flow(Geodesic(Euclidean(2)), Normal(), Spy())


def test_conditions_are_dropped_with_their_probability_and_independently():
    n, f = 4000, flow()
    context = Context.full(n, label=torch.zeros(n, dtype=torch.long), energy=torch.zeros(n))
    torch.manual_seed(0)
    FlowMatching(condition_dropout={"label": 0.1, "energy": 0.5})(f, torch.randn(n, 1, 2), context)
    gone = f.network.seen[0].cond["label"] < 0, f.network.seen[0].cond["energy"].isnan()
    for rows, p in ((gone[0], 0.1), (gone[1], 0.5), (gone[0] & gone[1], 0.05)):
        assert abs(float(rows.float().mean()) - p) < 5 * math.sqrt(p * (1 - p) / n)
    with pytest.raises(ValueError, match="lable"):
        FlowMatching(condition_dropout={"lable": 0.1})(f, torch.randn(n, 1, 2), context)


def test_pairs_are_made_before_conditions_are_dropped():
    n, f = 60, flow()
    context = Context.full(n, label=torch.arange(n))
    x1 = torch.randn(n, 1, 2)
    losses = []
    for drop in ({}, {"label": 1.0}):
        torch.manual_seed(0)
        losses.append(FlowMatching(coupling=Transport(within="label"), condition_dropout=drop)(f, x1, context)["loss"])
    torch.manual_seed(0)
    losses.append(FlowMatching(coupling=Independent())(f, x1, context)["loss"])
    assert torch.equal(losses[0], losses[2]), "no two labels are equal, so nothing is exchanged"
    assert f.network.seen[1].cond["label"].tolist() == [-1] * n


def test_weights_of_a_coupling_multiply_the_loss():
    f, x1 = flow(), torch.randn(30, 1, 2)
    x1[0] = 50.0
    torch.manual_seed(0)
    loss = FlowMatching(coupling=Transport(plan=Unbalanced(0.05, keep_data=0.05)))(f, x1, Context.full(30))["loss"]
    assert loss[0] < 1e-3 * 50**2
    assert bool((loss[1:] > 0).all())
    own = torch.rand(30)
    torch.manual_seed(0)
    weighted = FlowMatching()(f, x1, Context.full(30, weight=own))["loss"]
    torch.manual_seed(0)
    assert torch.allclose(weighted, own * FlowMatching()(f, x1, Context.full(30))["loss"])


def test_transport_lowers_the_loss_of_a_network_that_knows_nothing():
    """With velocity zero the loss is the mean squared length of the pairs."""
    f, x1 = flow(), torch.randn(256, 1, 2) + 3
    losses = []
    for coupling in (Independent(), Transport()):
        torch.manual_seed(0)
        losses.append(float(FlowMatching(coupling=coupling)(f, x1, Context.full(256))["loss"].mean()))
    assert losses[1] < 0.95 * losses[0]


def test_a_coupling_that_brings_its_own_context_is_seen_by_the_network():
    data, number = torch.randn(5, 1, 2), torch.arange(5)
    coupling = Semidiscrete(data, Context.full(5, number=number))
    coupling.fit(Euclidean(2), Normal(), iterations=300, tolerance=1.0)
    f = flow()
    FlowMatching(coupling=coupling)(f, data[[0] * 50], Context.full(50, number=number[[0] * 50]))
    assert len(f.network.seen[0].cond["number"].unique()) > 2


def test_maximum_likelihood_knows_the_entropy_and_the_transport_energy_of_gaussians():
    """N(0, 1) to N(2, 1/4) by x_t = 2 t + (1 - t / 2) x0: velocity 2 - x0 / 2, energy E|2 - x0 / 2|²."""
    torch.set_default_dtype(torch.float64)
    try:
        network = lambda x, t, c: 2 - 0.5 * (x - 2 * t[:, None, None]) / (1 - 0.5 * t[:, None, None])  # noqa: E731
        flow, x0 = Flow(Geodesic(Euclidean(3)), Normal(), network), torch.randn(50, 1, 3)
        x1 = 2 + 0.5 * x0
        losses = MaximumLikelihood(energy=0.1, steps=16, divergence=ExactTrace())(flow, x1, Context.full(50))
        logp = torch.distributions.Normal(2.0, 0.5).log_prob(x1).flatten(1).mean(1)
        assert torch.allclose(losses["likelihood"], -logp, atol=1e-5)
        assert torch.allclose(losses["energy"], 0.1 * (2 - 0.5 * x0).square().flatten(1).mean(1), atol=1e-5)
        assert set(MaximumLikelihood()(flow, x1, Context.full(50))) == {"likelihood"}
        assert not flow.independent
    finally:
        torch.set_default_dtype(torch.float32)


def test_maximum_likelihood_trains():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.v = nn.Parameter(torch.zeros(2))

        def forward(self, x, t, context):
            return self.v.expand_as(x)

    torch.manual_seed(0)
    x1 = torch.randn(256, 1, 2) + torch.tensor([1.0, -2.0])
    flow = Flow(Geodesic(Euclidean(2)), Normal(), Shift())
    loss = MaximumLikelihood(steps=1)(flow, x1, Context.full(256))["likelihood"].mean()
    (gradient,) = torch.autograd.grad(loss, flow.network.v)
    assert torch.allclose(gradient, -x1.mean((0, 1)) / 2, atol=1e-4), "d/dv of |x1 - v|² / 2, a degree of freedom"
    classes = Flow(Geodesic(Categorical(3), predicts=Posterior()), Classes((1 / 3,) * 3), lambda x, t, c: x)
    with pytest.raises(TypeError, match="smooth"):
        MaximumLikelihood()(classes, torch.eye(3)[:, None], Context.full(3))


@pytest.mark.parametrize(
    ("objective", "independent"),
    [
        (FlowMatching(), True),
        (FlowMatching(Transport()), False),
        (FlowMapMatching(), True),
        (FlowMapMatching(FlowMatching(Transport())), False),
        (MaximumLikelihood(), False),
        (ActionMatching(), False),
    ],
    ids=repr,
)
def test_a_domain_knows_from_its_objective_whether_its_flow_has_a_score(objective, independent):
    assert replace(toy.build(), objective=objective).flow().independent is independent


def test_losses_of_nested_parts_are_named_by_their_place_and_weighted_by_all_around_them():
    inner = ProductPath(b=Geodesic(Euclidean(1)), c=Geodesic(Euclidean(1)))
    path = ProductPath(a=inner, d=Interpolant(Euclidean(1)), e=Geodesic(Euclidean(1)))
    prior = ProductPrior(a=ProductPrior(b=Normal(), c=Normal()), d=Normal(), e=Normal())

    def network(x, t, context):
        return {"a": x["a"], "d": {"velocity": x["d"], "noise": 0 * x["d"]}, "e": x["e"]}

    x1 = {"a": {"b": torch.randn(5, 1, 1), "c": torch.randn(5, 1, 1)}, "d": torch.randn(5, 1, 1)}
    x1["e"] = torch.randn(5, 1, 1)
    f, context = Flow(path, prior, network), Context.full(5)
    weight = {"a": lambda t: 1 + t, "d/noise": lambda t: 7 + 0 * t}
    heavy = FlowMatching(parts={"a": 2.0, "a/b": 3.0, "d": 5.0}, weight=weight, times=lambda n: torch.full((n,), 0.5))
    pairs = heavy.pairs(f, x1, context)
    torch.manual_seed(1)  # the interpolant draws noise of its own
    plain = FlowMatching(times=heavy.times).losses(f, pairs)
    torch.manual_seed(1)
    losses = heavy.losses(f, pairs)
    ratios = {name: float((losses[name] / plain[name]).mean()) for name in losses}
    expected = {"a/b": 9.0, "a/c": 3.0, "d/velocity": 5.0, "d/noise": 35.0, "e": 1.0}
    assert ratios == pytest.approx(expected)
    assert all(v.shape == (5,) for v in losses.values())
