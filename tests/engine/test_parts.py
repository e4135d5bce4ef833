"""Couplings of one part of a state, and samples that start with frozen sites."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fm_science.couplings import PartCoupling, PrefetchedCoupling, Transport
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, ProductPrior
from fm_science.sampling import start
from fm_science.solvers import Langevin
from fm_science.spaces import Categorical, Centered, Euclidean
from fm_science.state import Context
from fm_science.symmetries import Permutations


def test_one_part_can_be_paired_alone_and_the_others_stay_independent():
    torch.manual_seed(0)
    parts = ("kind",)
    kinds = Geodesic(Categorical(3), predicts=Posterior(2))
    path = ProductPath(x=Geodesic(Centered(), predicts=Endpoint()), kind=kinds)
    prior = ProductPrior(x=Normal(), kind=Classes([0, 0, 1]))
    context = Context.full(6, 4)
    x1 = path.space.bind(context).project({"x": torch.randn(6, 4, 3), "kind": torch.randn(6, 4, 3)})
    x1["kind"][..., 2] = 0
    x1["kind"][..., 0] = 1 - x1["kind"][..., 1]
    law = PrefetchedCoupling(PartCoupling("x", Transport(Permutations()), parts))
    x0 = prior.sample(path.space, context)
    y0, y1, _ = law.pair(path.space.bind(context), x0, x1, context)
    alone, _, _ = Transport(Permutations()).pair(path.space.bind(context).parts["x"], x0["x"], x1["x"], context)
    assert torch.equal(y0["x"], alone)
    assert y0["kind"] is x0["kind"]
    assert y1 is x1
    flow = Flow(path, prior, lambda x, t, c: {"x": 0 * x["x"], "kind": torch.zeros_like(x["kind"])})
    FlowMatching(coupling=law)(flow, x1, context)
    flow.sample(context, Langevin({"kind": 5.0}), 4, seed=0)  # the noise of this part knows nothing of the data
    for heat in ({"x": 1.0}, 1.0):
        with pytest.raises(TypeError, match="coupling"):
            flow.sample(context, Langevin(heat), 4)


def test_pairing_one_part_leaves_frozen_sites():
    torch.manual_seed(0)
    path = ProductPath(x=Geodesic(Euclidean(2, vector=True)), y=Geodesic(Euclidean(1)))
    prior = ProductPrior(x=Normal(), y=Normal())
    x1 = {"x": torch.randn(3, 4, 2), "y": torch.randn(3, 4, 1)}
    free = torch.tensor([False, True, True, True]).expand(3, 4)
    context = Context(torch.ones(3, 4).bool(), free=free, known=x1)
    x0 = prior.sample(path.space, context)
    y0, _, after = PartCoupling("x", Transport(Permutations(), across_batch=False)).pair(
        path.space.bind(context), x0, x1, context
    )
    assert after is context
    assert torch.equal(y0["x"][:, 0], x1["x"][:, 0])


def test_samples_of_many_sizes_keep_their_frozen_sites():
    path = ProductPath(x=Geodesic(Euclidean(2)), bond=Geodesic(Categorical(3, on="edges"), predicts=Posterior(2)))
    prior = ProductPrior(x=Normal(), bond=Classes([0, 0, 1]))

    def request(n):
        size = int(torch.randint(3, 7, ()))
        known = {"x": torch.full((n, size, 2), 5.0), "bond": torch.eye(3)[1].expand(n, size, size, 3)}
        return Context(torch.ones(n, size).bool(), free=torch.arange(size).expand(n, size) >= 2, known=known)

    flow = Flow(path, prior, lambda x, t, c: x)
    x, context = start(SimpleNamespace(request=request, numbered=False), flow, range(8), seed=3)
    assert len(set(context.mask.sum(1).tolist())) > 1
    assert context.free[:, :2].any().item() is False
    assert (x["x"][:, :2] == 5).all()
    bound = path.bind(context, prior).space
    assert all(torch.equal(bound.project(x)[k], x[k]) for k in x)
    assert (x["bond"][:, 0, 1, 1] == 1).all()


@pytest.mark.parametrize("whole", [False, True], ids=["free by part", "one free for all"])
def test_values_are_needed_only_of_parts_with_frozen_sites(whole):
    path = ProductPath(p=Geodesic(Euclidean(2)), g=Geodesic(Euclidean(1, on="graph")))
    prior = ProductPrior(p=Normal(), g=Normal())

    def request(n):
        free = torch.tensor([False, True, True]).expand(n, 3)
        known = {"p": torch.full((n, 3, 2), 5.0)}
        return Context(torch.ones(n, 3).bool(), free=free if whole else {"p": free}, known=known)

    flow = Flow(path, prior, lambda x, t, c: {k: torch.ones_like(v) for k, v in x.items()})
    x, context = start(SimpleNamespace(request=request, numbered=False), flow, range(4), seed=3)
    assert set(context.known) == {"p"}
    for sample, noise in ((flow.transport(x, context, steps=2), x), (flow.sample(request(4), steps=2), None)):
        assert (sample["p"][:, 0] == 5).all()
        assert noise is None or torch.allclose(sample["g"], noise["g"] + 1)


def test_a_part_that_is_frozen_as_a_whole_stays_in_every_sample():
    path = ProductPath(p=Geodesic(Euclidean(2)), g=Geodesic(Euclidean(1, on="graph")))

    def request(n):
        frozen = torch.zeros(n, dtype=torch.bool)
        return Context(torch.ones(n, 3).bool(), free={"g": frozen}, known={"g": torch.full((n, 1), 7.0)})

    flow = Flow(path, ProductPrior(p=Normal(), g=Normal()), lambda x, t, c: x)
    x, context = start(SimpleNamespace(request=request, numbered=False), flow, range(4), seed=3)
    assert (flow.transport(x, context, steps=2)["g"] == 7).all()
