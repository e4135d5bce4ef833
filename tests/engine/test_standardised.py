"""Data in their own units: with a flow that moves nothing, standardised data are those of the prior, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import (
    Centered,
    Context,
    Euclidean,
    Flow,
    FlowMatching,
    Geodesic,
    Normal,
    Paired,
    PointField,
    Product,
    ProductPath,
    ProductPrior,
    Sphere,
    Standardised,
    Uniform,
)
from fm_science.state import tree_map

MEAN, STD = torch.tensor([300.0, -2.0]).double(), torch.tensor([20.0, 1e-3]).double()


def still(path: object, prior: object) -> Flow:
    return Flow(path, prior, lambda x, t, context: tree_map(torch.zeros_like, x))


def gaussian() -> Standardised:
    return Standardised(still(Geodesic(Euclidean(2)), Normal()), [MEAN], [STD])


def test_the_density_is_that_of_the_data_in_their_units() -> None:
    torch.manual_seed(0)
    x = MEAN + STD * torch.randn(7, 1, 2, dtype=torch.float64)
    law = torch.distributions.Normal(MEAN, STD)
    expected = law.log_prob(x).sum((1, 2))
    assert torch.allclose(gaussian().log_prob(x, Context.full(7), steps=4), expected, atol=1e-9)


def test_samples_have_the_moments_of_the_data_and_their_density() -> None:
    n = 4000
    x, logp = gaussian().sample_with_log_prob(Context.full(n), steps=2, seed=0)
    assert torch.equal(x, gaussian().sample(Context.full(n), steps=2, seed=0))
    z = (x[:, 0] - MEAN) / STD
    assert bool((z.mean(0).abs() < 4 / math.sqrt(n)).all())
    assert bool(((z.std(0) - 1).abs() < 4 / math.sqrt(2 * n)).all())
    assert torch.allclose(logp.double(), gaussian().log_prob(x.double(), Context.full(n), steps=2), atol=1e-3)


def test_padding_and_frozen_sites_count_no_volume() -> None:
    context = Context(torch.tensor([[True, True, True], [True, False, False]]))
    scaled = gaussian()
    once = STD.log().sum()
    assert torch.allclose(scaled.log_det(context), torch.tensor([3.0, 1.0]).double() * once)
    x = scaled.sample(context, steps=2, seed=0)
    assert torch.equal(x[1, 1:], torch.zeros(2, 2))
    free = torch.tensor([[True, False, True], [False, False, False]])
    partly_fixed = Context(context.mask, free=free, known=x)
    assert torch.allclose(scaled.log_det(partly_fixed), torch.tensor([2.0, 0.0]).double() * once)
    again = scaled.sample(partly_fixed, steps=2, seed=1)
    assert torch.allclose(again[~free], x[~free], rtol=1e-6)
    assert not torch.allclose(again[0, 0], x[0, 0], rtol=1e-6)


def test_what_is_fitted_standardises_flat_parts_alone() -> None:
    torch.manual_seed(0)
    path = ProductPath(heat=Geodesic(Euclidean(2)), place=Geodesic(Sphere(2)), cloud=Geodesic(Centered(3)))
    prior = ProductPrior(heat=Normal(), place=Uniform(), cloud=Normal())
    context = Context(torch.arange(5) < torch.tensor([[5], [3], [2], [4]]))
    space = path.space.bind(context)
    x = space.project({"heat": MEAN + STD * torch.randn(4, 5, 2).double(), "place": torch.randn(4, 5, 3).double(),
                       "cloud": 7 * torch.randn(4, 5, 3).double()})  # fmt: skip
    scaled = Standardised.fitted(still(path, prior), x, context)
    y = scaled.encode(x, context)
    real = y["heat"][context.mask]
    assert torch.allclose(real.mean(0), torch.zeros(2).double(), atol=1e-9)
    assert torch.allclose(real.std(0, correction=0), torch.ones(2).double())
    assert torch.equal(y["place"], x["place"])
    assert torch.allclose(y["cloud"], x["cloud"] / x["cloud"][context.mask].square().mean().sqrt())
    for name, value in scaled.decode(y, context).items():
        assert torch.allclose(value, x[name], atol=1e-9)
    sites = context.mask.sum(1)
    expected = sites * scaled.std_0.log().sum() + 3 * (sites - 1) * scaled.std_2.log()
    assert torch.allclose(scaled.log_det(context), expected)


def test_training_is_in_the_units_of_the_data_and_scales_are_saved() -> None:
    torch.manual_seed(0)
    x = (MEAN + STD * torch.randn(64, 1, 2)).float()
    flow = Flow(Geodesic(Euclidean(2)), Normal(), PointField(Euclidean(2), 8, 2))
    scaled = Standardised.fitted(flow, x, Context.full(64))
    loss = scaled.losses(FlowMatching(), x, Context.full(64))["loss"].mean().detach()
    assert 1 < float(loss) < 3  # of velocities of variance two, where the untrained one is zero
    assert float(scaled.losses(FlowMatching(Paired()), x, Context.full(64), x)["loss"].mean().detach()) == 0
    other = Standardised(flow, [torch.zeros(2)], [torch.ones(2)])
    other.load_state_dict(scaled.state_dict())
    assert torch.equal(other.encode(x, Context.full(64)), scaled.encode(x, Context.full(64)))


def test_a_constant_coordinate_keeps_its_scale_and_no_scale_is_zero() -> None:
    flow, x = still(Geodesic(Euclidean(2)), Normal()), torch.tensor([[[1.0, 5.0]], [[2.0, 5.0]]])
    assert Standardised.fitted(flow, x, Context.full(2)).std_0.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="positive"):
        Standardised(flow, [MEAN], [0 * STD])


def test_a_product_of_two_kinds_has_one_volume() -> None:
    space = Product(heat=Euclidean(2), place=Sphere(2))
    path = ProductPath(heat=Geodesic(space.parts["heat"]), place=Geodesic(space.parts["place"]))
    flow = still(path, ProductPrior(heat=Normal(), place=Uniform()))
    scaled = Standardised(flow, [MEAN, torch.zeros(())], [STD, torch.ones(())])
    x = {"heat": MEAN.expand(3, 1, 2), "place": Sphere(2).project(torch.ones(3, 1, 3).double())}
    expected = -math.log(2 * math.pi) - STD.log().sum() - math.log(4 * math.pi)
    assert torch.allclose(scaled.log_prob(x, Context.full(3), steps=2), expected.expand(3), atol=1e-9)
