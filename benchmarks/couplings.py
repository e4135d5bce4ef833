"""What couplings cost, as ratios to the least that any implementation must pay, measured in the same run.

    python -m benchmarks.couplings [--quick]

Each row times two things in turns and prints the best CPU time of each and their ratio, so that a busy machine moves
both. One thread. The plain loops that serve as yardsticks are written here as a first version would be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment

from fm_science.couplings import ExactPlan, Transport
from fm_science.couplings.costs import groups, table
from fm_science.spaces import Centered, Euclidean
from fm_science.state import Context
from fm_science.symmetries import Permutations, Rotations


def best(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The least CPU time of each in milliseconds, measured in turns."""
    least = [float("inf")] * 2
    for _ in range(rounds):
        for k, work in enumerate((first, second)):
            start = time.process_time()
            work()
            least[k] = min(least[k], 1e3 * (time.process_time() - start))
    return least[0], least[1]


def clouds(n: int, sites: int):
    context = Context.full(n, sites)
    space = Centered().bind(context)
    return space, space.project(torch.randn(n, sites, 3)), space.project(1.5 * torch.randn(n, sites, 3)), context


def turned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Points ``a`` turned towards ``b`` (Kabsch 1976)."""
    u, _, v = torch.linalg.svd(b.T @ a)
    u = torch.cat([u[:, :2], u[:, 2:] * torch.linalg.det(u @ v)], 1)
    return a @ (u @ v).T


def rotation_loop(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    """The aligned cost of each pair, one singular value decomposition at a time (Kabsch 1976)."""
    cost = torch.empty(len(x0), len(x1))
    for i, a in enumerate(x0):
        for j, b in enumerate(x1):
            cost[i, j] = (turned(a, b) - b).square().sum()
    return cost


def ordered_loop(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    """The cost of each pair after reordering and rotation, each pair by itself: its table of distances, its assignment,
    its singular value decomposition."""
    cost = torch.empty(len(x0), len(x1))
    for i, a in enumerate(x0):
        for j, b in enumerate(x1):
            order = linear_sum_assignment(torch.cdist(b, a).square().numpy())[1]
            cost[i, j] = (turned(a[order], b) - b).square().sum()
    return cost


def equivariant(n: int, sites: int, rounds: int) -> tuple[str, float, float]:
    space, x0, x1, context = clouds(n, sites)
    group, copies = groups(context), (Permutations(), Rotations())
    assert torch.allclose(table(space, x0, x1, context, group, copies), ordered_loop(x0, x1), rtol=1e-3, atol=1e-3)
    coupling = Transport(*copies)
    times = best(
        lambda: coupling.pair(space, x0, x1, context),
        lambda: linear_sum_assignment(ordered_loop(x0, x1).numpy()),
        rounds,
    )
    return f"permutations and rotations, B={n} N={sites}", *times


def rotations(n: int, sites: int, rounds: int) -> tuple[str, float, float]:
    space, x0, x1, context = clouds(n, sites)
    group = groups(context)
    batched = lambda: table(space, x0, x1, context, group, (Rotations(),))  # noqa: E731
    assert torch.allclose(batched(), rotation_loop(x0, x1), rtol=1e-3)
    return f"rotations over all pairs, B={n} N={sites}", *best(batched, lambda: rotation_loop(x0, x1), rounds)


def permutations(n: int, sites: int, rounds: int) -> tuple[str, float, float]:
    space, x0, x1, context = clouds(n, sites)
    costs = -torch.einsum("ind,jmd->ijnm", x1, x0).reshape(-1, sites, sites).double().numpy()
    coupling = Transport(Permutations(), Rotations())
    times = best(
        lambda: coupling.pair(space, x0, x1, context),
        lambda: [linear_sum_assignment(cost) for cost in costs],
        rounds,
    )
    return f"permutations and rotations, B={n} N={sites}", *times


def exact(n: int, dim: int, rounds: int) -> tuple[str, float, float]:
    context = Context.full(n)
    space, x0 = Euclidean(dim).bind(context), torch.randn(n, 1, dim)
    x1 = 0.5 * torch.randn(n, 1, dim) + 2 * torch.randn(8, 1, dim)[torch.randint(8, (n,))]
    cost = torch.cdist(x0[:, 0], x1[:, 0]).square().double().numpy()
    best_cost = cost[linear_sum_assignment(cost)].sum()
    order, _ = ExactPlan()(torch.from_numpy(cost))
    assert abs(cost[order, range(n)].sum() / best_cost - 1) < 1e-9
    times = best(lambda: Transport().pair(space, x0, x1, context), lambda: linear_sum_assignment(cost), rounds)
    return f"exact transport, {n} points in {dim} dimensions", *times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    rounds = 4 if parser.parse_args().quick else 24
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [
        (*rotations(64, 50, min(rounds, 3)), "a loop over pairs"),
        (*permutations(64, 13, rounds), "the assignments alone"),
        (*permutations(16, 55, rounds), "the assignments alone"),
        (*equivariant(64, 13, min(rounds, 3)), "a loop over pairs"),
        (*equivariant(16, 55, min(rounds, 3)), "a loop over pairs"),
        (*exact(256, 64, rounds), "SciPy's assignment, costs given"),
        (*exact(1024, 64, min(rounds, 5)), "SciPy's assignment, costs given"),
        (*exact(1024, 2, min(rounds, 5)), "SciPy's assignment, costs given"),
    ]
    print(f"{'coupling':<46} {'ms':>8} {'yardstick ms':>13} {'ratio':>7}  yardstick")
    for name, ours, other, yardstick in rows:
        print(f"{name:<46} {ours:8.1f} {other:13.1f} {ours / other:7.3f}  {yardstick}")


if __name__ == "__main__":
    main()
