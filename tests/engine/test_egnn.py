"""The equivariant network keeps its promises in the plane and in space, with padding and with conditions."""

from __future__ import annotations

import pytest
import torch

from fm_science import EGNN, Centered, Context, Geodesic, Normal, Permutations, Rotations
from fm_science.testing import check_network


def ragged(**cond: torch.Tensor) -> Context:
    return Context(torch.arange(6) < torch.tensor([[6], [3], [4], [2]]), cond)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_network_commutes_with_its_symmetries(dim: int) -> None:
    network = EGNN(width=16, layers=2, num_rbf=8, scale=1.7)
    mirrors = True if dim == 3 else None
    check_network(
        network, Geodesic(Centered(dim)), Normal(), ragged(), (Permutations(), Rotations(dim)), reflections=mirrors
    )


def test_conditions_reach_the_points() -> None:
    network = EGNN(width=16, layers=2, num_rbf=8, conditions=("charge", "heat"))
    context = ragged(charge=torch.randn(4, 6), heat=torch.randn(4))
    check_network(network, Geodesic(Centered()), Normal(), context, (Rotations(),), reflections=True)


def test_shifting_a_cloud_does_not_change_its_velocity_and_the_velocity_has_no_mean() -> None:
    torch.manual_seed(0)
    network, context = EGNN(width=16, layers=2).double(), ragged()
    x, t = torch.randn(4, 6, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    u = network(x, t, context)
    torch.testing.assert_close(network(x + torch.randn(4, 1, 3, dtype=torch.float64), t, context), u)
    torch.testing.assert_close(u.sum(1), torch.zeros(4, 3, dtype=torch.float64))
    assert not u[~context.mask].any()
