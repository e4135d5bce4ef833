"""Couplings beside another library, beside the least that any implementation must pay, and beside plain loops.

The loops are written here as a first version would be, each pair by itself. Both sides find the same costs.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.compare.duel import Duel, Times, guarded, times
from fm_science.couplings import ExactPlan, Transport
from fm_science.couplings.costs import groups, table
from fm_science.spaces import Centered, Euclidean, Space
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations


def clouds(n: int, sites: int) -> tuple[Space, Tensor, Tensor, Context]:
    """A space of centred clouds bound to a batch, the batch as noise and data ``(n, sites, 3)``, and its context."""
    context = Context.full(n, sites)
    space = Centered().bind(context)
    return space, space.project(torch.randn(n, sites, 3)), space.project(1.5 * torch.randn(n, sites, 3)), context


def turned(a: Tensor, b: Tensor) -> Tensor:
    """Points ``a`` turned towards ``b`` (Kabsch 1976)."""
    u, _, v = torch.linalg.svd(b.T @ a)
    u = torch.cat([u[:, :2], u[:, 2:] * torch.linalg.det(u @ v)], 1)
    return a @ (u @ v).T


def loop(x0: Tensor, x1: Tensor, ordered: bool) -> Tensor:
    """The cost of each pair after rotation, and after reordering before it: one pair at a time, each with its own table
    of distances, assignment and singular value decomposition."""
    cost = torch.empty(len(x0), len(x1))
    for i, a in enumerate(x0):
        for j, b in enumerate(x1):
            same = a[linear_sum_assignment(torch.cdist(b, a).square().numpy())[1]] if ordered else a
            cost[i, j] = (turned(same, b) - b).square().sum()
    return cost


def alignments(runs: int, batch: int = 64, sites: int = 50) -> list[Duel]:
    """Each noise turned towards each datum, all pairs of a batch, and the cheapest pairing."""
    name, goal = f"rotation and pairing of all pairs, B={batch} N={sites}", 1 / 50
    row = guarded(name, "bionemo-moco", goal, lambda: _beside_moco(runs, batch, sites))
    if not row.absent:
        return [row]
    space, x0, x1, context = clouds(batch, sites)
    batched = lambda: table(space, x0, x1, context, groups(context), (Rotations(),))  # noqa: E731
    assert torch.allclose(batched(), loop(x0, x1, False), rtol=1e-3)
    found = times(batched, lambda: loop(x0, x1, False), runs)
    return [row, Duel(f"rotation of all pairs, B={batch} N={sites}", "a plain loop (Kabsch)", goal, *found)]


def _beside_moco(runs: int, batch: int, sites: int) -> Times:
    from bionemo.moco.interpolants.continuous_time.continuous.data_augmentation import equivariant_ot_sampler

    peer = equivariant_ot_sampler.EquivariantOTSampler(method="exact")
    space, x0, x1, context = clouds(batch, sites)
    coupling = Transport(Rotations())
    costs = table(space, x0, x1, context, groups(context), (Rotations(),))
    assert torch.allclose(costs.sqrt(), peer._calculate_cost_matrix(x0, x1)[0], rtol=1e-3)
    return times(lambda: coupling.pair(space, x0, x1, context), lambda: peer.apply_augmentation(x0, x1), runs)


def couplings(runs: int) -> list[Duel]:
    """Equivariant and plain transport; all rows are for information."""
    rows = [row for size in ((64, 13), (16, 55)) for row in equivariant(*size, runs)]
    return rows + [exact(n, dim, runs) for n, dim in ((256, 64), (1024, 64), (1024, 2))]


def equivariant(n: int, sites: int, runs: int) -> list[Duel]:
    """Each noise ordered and turned towards each datum, all pairs of a batch, and the cheapest pairing."""
    space, x0, x1, context = clouds(n, sites)
    symmetries, name = (Permutations(), Rotations()), f"permutations and rotations, B={n} N={sites}"
    found, expected = table(space, x0, x1, context, groups(context), symmetries), loop(x0, x1, True)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)
    costs = -torch.einsum("ind,jmd->ijnm", x1, x0).reshape(-1, sites, sites).double().numpy()
    coupling = Transport(*symmetries)
    pair = lambda: coupling.pair(space, x0, x1, context)  # noqa: E731
    least = times(pair, lambda: [linear_sum_assignment(cost) for cost in costs], runs)
    plain = times(pair, lambda: linear_sum_assignment(loop(x0, x1, True).numpy()), min(runs, 3))
    return [Duel(name, "the assignments alone", None, *least), Duel(name, "a loop over pairs", None, *plain)]


def exact(n: int, dim: int, runs: int) -> Duel:
    """Exact transport of points, beside SciPy's assignment of costs that are given."""
    context = Context.full(n)
    space, x0 = Euclidean(dim).bind(context), torch.randn(n, 1, dim)
    x1 = 0.5 * torch.randn(n, 1, dim) + 2 * torch.randn(8, 1, dim)[torch.randint(8, (n,))]
    cost = torch.cdist(x0[:, 0], x1[:, 0]).square().double().numpy()
    order, _ = ExactPlan()(torch.from_numpy(cost))
    assert abs(cost[order, range(n)].sum() / cost[linear_sum_assignment(cost)].sum() - 1) < 1e-9
    found = times(lambda: Transport().pair(space, x0, x1, context), lambda: linear_sum_assignment(cost), min(runs, 5))
    return Duel(f"exact transport, {n} points in {dim} dimensions", "SciPy, costs given", None, *found)
