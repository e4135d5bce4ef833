"""Projected endpoints: from a time on, what the walk heads for obeys a constraint."""

from __future__ import annotations

import torch

from fm_science import Context, Endpoint, Euclidean, Euler, Flow, Geodesic, Normal, ProjectedEndpoint


def test_the_walk_ends_on_the_constraint_and_starts_without_it():
    unit = ProjectedEndpoint(
        lambda x, t, context: x + 0.1, lambda x, context: x / x.norm(dim=-1, keepdim=True), start=0.5
    )
    flow = Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), unit)
    context = Context.full(64)
    x = flow.sample(context, Euler(), steps=8, seed=0)
    assert torch.allclose(x.norm(dim=-1), torch.ones(64, 1), atol=1e-6)
    points = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]]])
    raw = unit(points, torch.tensor([0.4, 0.5]), Context.full(2))
    assert torch.equal(raw[0], points[0] + 0.1)
    assert torch.allclose(raw[1].norm(), torch.tensor(1.0))


def test_it_declares_what_its_network_declares():
    class Remembers(torch.nn.Module):
        self_conditioned = True

        def forward(self, x, t, context):
            return x

    assert ProjectedEndpoint(Remembers(), lambda x, c: x).self_conditioned
    assert not ProjectedEndpoint(lambda x, t, c: x, lambda x, c: x).self_conditioned
