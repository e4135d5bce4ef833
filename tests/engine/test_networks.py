"""Point networks keep the promises they make, with padding, conditions, labels and frozen sites."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science import (
    EGNN,
    Centered,
    Context,
    ExactTrace,
    Flow,
    Geodesic,
    MessagePassing,
    Normal,
    Permutations,
    Rotations,
    SetTransformer,
    TensorField,
)  # fmt: skip
from fm_science.networks.graphs import _by_cells, envelope, radius_graph
from fm_science.networks.sites import remove_mean
from fm_science.solvers import Euler
from fm_science.testing import check_network

KINDS = {
    "egnn": lambda **o: EGNN(width=12, layers=2, num_rbf=6, **o),
    "mutual": lambda **o: EGNN(width=12, layers=2, num_rbf=6, symmetric_messages=True, **o),
    "message_passing": lambda **o: MessagePassing(width=12, layers=2, num_rbf=6, radius=2.0, **o),
    "tensor_field": lambda **o: TensorField(width=8, layers=2, num_rbf=6, radius=3.0, **o),
    "transformer": lambda **o: SetTransformer(width=16, layers=2, heads=2, **o),
}
COMMUTES = [k for k in KINDS if k != "transformer"]


def ragged(**cond: torch.Tensor) -> Context:
    return Context(torch.arange(6) < torch.tensor([[6], [3], [4], [2]]), cond)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_commute_with_their_symmetries_in_space(kind: str) -> None:
    symmetric = kind in COMMUTES
    symmetries = (Permutations(), *((Rotations(),) if symmetric else ()))
    mirrors = True if symmetric else None
    network = KINDS[kind](conditions=("heat",), classes={"label": 3}, scale=1.7)
    context = ragged(heat=torch.randn(4), label=torch.tensor([0, 2, -1, 1]))
    check_network(network, Geodesic(Centered()), Normal(), context, symmetries, reflections=mirrors)


@pytest.mark.parametrize("kind", ["mutual", "message_passing", "transformer"])
def test_networks_work_in_the_plane(kind: str) -> None:
    more = {"dim": 2} if kind == "transformer" else {}
    symmetries = (Permutations(), *((Rotations(2),) if kind in COMMUTES else ()))
    check_network(KINDS[kind](**more), Geodesic(Centered(2)), Normal(), ragged(), symmetries)


def test_a_chiral_network_tells_mirror_images_apart() -> None:
    network = TensorField(width=8, layers=2, num_rbf=6, chiral=True)
    check_network(network, Geodesic(Centered()), Normal(), ragged(), (Rotations(),), reflections=False)
    with pytest.raises(ValueError, match="three dimensions"):
        network(torch.randn(2, 3, 2), torch.rand(2), Context.full(2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_have_features_and_points_keep_theirs(kind: str) -> None:
    more = {} if kind == "transformer" else {"features": True}
    network, context = KINDS[kind](edges=2, **more), ragged()
    width = 16 if kind == "transformer" else 8 if kind == "tensor_field" else 12
    x, h, edges = torch.randn(4, 6, 3), torch.randn(4, 6, width), torch.randn(4, 6, 6, 2)
    u, features = network.trunk(x, h, context.mask, edges)
    again, _ = network.trunk(x, h, context.mask, torch.randn(4, 6, 6, 2))
    assert u.shape == x.shape
    assert features.shape == h.shape
    assert not torch.allclose(u, again)
    assert remove_mean(u, context).sum(1).abs().max() < 1e-4
    sum(v.square().sum() for v in (u, features)).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None and not n.startswith("sites")]
    assert not silent


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_sites_are_seen_as_arrived_and_a_missing_condition_is_named(kind: str) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](conditions=("heat",))
    context = Context.full(2, 5, heat=torch.tensor([0.3, torch.nan]))
    x, t = torch.randn(2, 5, 3), torch.rand(2)
    free = torch.arange(5).expand(2, 5) > 1
    partly_fixed = network(x, t, replace(context, free=free, known=x))
    assert partly_fixed.isfinite().all()
    free_now = network(x, t, replace(context, free=torch.ones_like(free), known=x))
    assert not torch.allclose(partly_fixed, free_now)
    with pytest.raises(ValueError, match="reads the condition 'heat'"):
        network(x, t, Context.full(2, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_densities_have_the_exact_trace_of_every_network(kind: str) -> None:
    """Directions carried together or one by one give the same trace, also where the graph depends on the cloud."""
    torch.manual_seed(0)
    flow, context = Flow(Geodesic(Centered()), Normal(), KINDS[kind]()), Context.full(3, 4)
    x = flow.path.space.bind(context).project(torch.randn(3, 4, 3))
    with torch.no_grad():
        together, alone = (flow.log_prob(x, context, Euler(), 2, ExactTrace(chunk)) for chunk in (None, 1))
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_cells_find_the_same_pairs_as_a_look_at_all(dim: int) -> None:
    torch.manual_seed(0)
    x = 1.2 * torch.randn(3, 40, dim)
    x[0, 0] = 1e9  # far away, like a sample that went astray
    mask = torch.arange(40) < torch.tensor([[40], [25], [1]])
    by_all, by_cells = radius_graph(x, mask, 0.7), _by_cells(x, mask, 0.7)
    assert by_all.shape[1] > 10
    assert torch.equal(by_all, by_cells)
    assert radius_graph(x, mask, None).shape[1] == 40 * 39 + 25 * 24


def test_messages_fade_before_their_edge_is_lost() -> None:
    square = torch.tensor([0.0, 3.9999, 4.0001])
    assert envelope(square, 2.0)[0] == 1
    assert envelope(square, 2.0)[1] < 1e-8
    assert envelope(square, 2.0)[2] == 0


def test_far_points_reach_each_other_through_the_whole_alone() -> None:
    torch.manual_seed(0)
    network = MessagePassing(width=8, layers=2, radius=1.0).double()
    x, t, context = torch.zeros(1, 4, 3, dtype=torch.float64), torch.rand(1, dtype=torch.float64), Context.full(1, 4)
    x[0, 2:] = 10
    x = x + 0.1 * torch.randn_like(x)
    moved = x.clone()
    moved[0, 2:] += 5.0
    assert not torch.allclose(network(x, t, context)[0, :2], network(moved, t, context)[0, :2])
    assert len(radius_graph(x, context.mask, 1.0)[0]) == 4
