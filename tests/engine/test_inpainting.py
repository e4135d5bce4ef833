"""Partial observation: what is given stays, the rest starts from noise, and the share is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science import (
    Centered,
    Context,
    Euclidean,
    Flow,
    FlowMatching,
    Geodesic,
    Independent,
    Inpainting,
    Normal,
    Permutations,
    Product,
    ProductPath,
    ProductPrior,
    Torus,
    Transport,
    Uniform,
)


def first_given(x1, context):
    """The first site of every sample is given, and the others are not."""
    free = torch.arange(context.mask.shape[1]) > 0
    return x1, replace(context, free=free.expand(context.mask.shape), known=x1)


def moved(x1, context):
    """As above, in the frame of the given point."""
    return first_given(x1 - x1[:, :1], context)


def test_given_sites_keep_their_values_at_all_times_and_cost_nothing() -> None:
    torch.manual_seed(0)
    path, context = Geodesic(Euclidean(2)), Context.full(6, 4)
    x1 = torch.randn(6, 4, 2).double()
    x0 = torch.randn(6, 4, 2).double()
    space = path.space.bind(context)
    noise, data, seen = Inpainting(first_given).pair(space, x0, x1, context)
    assert torch.equal(data, x1)
    assert torch.equal(noise[:, 1:], x0[:, 1:])
    bound = path.bind(seen)
    for t in (0.0, 0.3, 1.0):
        assert torch.equal(bound.sample(noise, data, torch.full((6,), t).double())[:, 0], x1[:, 0])
    t = torch.rand(6).double()
    x, raw = bound.sample(noise, data, t), torch.randn(6, 4, 2).double()
    other = raw.clone()
    other[:, 0] += 7.0
    assert torch.equal(bound.loss(raw, noise, data, x, t), bound.loss(other, noise, data, x, t))
    assert torch.equal(bound.space.dimension, torch.full((6,), 6))


def test_the_share_of_batches_is_the_fraction() -> None:
    torch.manual_seed(0)
    context, x = Context.full(2, 3), torch.randn(2, 3, 1)
    coupling = Inpainting(first_given, fraction=0.3)
    n = 2000
    given = sum(coupling.pair(Euclidean(1).bind(context), x, x, context)[2].free is not None for _ in range(n))
    assert abs(given / n - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    assert Inpainting(first_given, fraction=0.0).pair(Euclidean(1).bind(context), x, x, context)[2] is context


def test_noise_is_drawn_anew_where_the_frame_matters() -> None:
    """Centred clouds have centred noise; around a given point nothing is centred, and the noise must not be either."""
    torch.manual_seed(0)
    space, context = Centered(2).bind(Context.full(4000, 3)), Context.full(4000, 3)
    x1 = space.project(torch.randn(4000, 3, 2))
    x0 = Normal().sample(space, context)
    kept = Inpainting(moved).pair(space, x0, x1, context)[0]
    fresh = Inpainting(moved, prior=Normal()).pair(space, x0, x1, context)[0]
    scatter = (2 / (4000 * 2 * 2)) ** 0.5
    assert abs(float(kept[:, 1:].square().mean()) - 2 / 3) < 5 * scatter  # centring took a third of the variance
    assert abs(float(fresh[:, 1:].square().mean()) - 1) < 5 * scatter
    assert torch.equal(fresh[:, 0], torch.zeros(4000, 2))


def test_parts_may_be_given_each_by_itself() -> None:
    path = ProductPath(line=Geodesic(Euclidean(1)), angle=Geodesic(Torus(1, on="graph")))
    prior, context = ProductPrior(line=Normal(), angle=Uniform()), Context.full(5, 2)
    x1 = {"line": torch.randn(5, 2, 1), "angle": torch.rand(5, 1)}

    def some(x1, context):
        free = {"line": torch.tensor([[True, False]]).expand(5, 2), "angle": torch.arange(5) > 2}
        return x1, replace(context, free=free, known=x1)

    flow = Flow(path, prior, lambda x, t, c: {k: torch.zeros_like(v) for k, v in x.items()})
    losses = FlowMatching(coupling=Inpainting(some))(flow, x1, context)
    assert float(losses["angle"][:3].abs().max()) == 0  # frozen
    assert float(losses["angle"][3:].min()) > 0
    assert isinstance(flow.path.space, Product)


def test_independence_is_that_of_the_couplings_that_are_used() -> None:
    order = Transport(Permutations(), across_batch=False)
    assert Inpainting(first_given).independent
    assert not Inpainting(first_given, partial=order).independent
    assert not Inpainting(first_given, coupling=order, fraction=0.5).independent
    assert Inpainting(first_given, coupling=order, fraction=1.0).independent
    assert Inpainting(first_given, coupling=Independent(), partial=order, fraction=0.0).independent
    with pytest.raises(ValueError, match="from 0 to 1"):
        Inpainting(first_given, fraction=1.2)
