"""The nearest copy of a small planar cloud is the exact optimum."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from fm_science import Centered, Context, Permutations, Rotations, Transport
from fm_science_domains.point_cloud.orbits import PlanarOrbits


def clouds(n: int, points: int) -> tuple[torch.Tensor, torch.Tensor, object]:
    torch.manual_seed(0)
    space = Centered(2).bind(Context.full(n, points))
    x, y = (space.project(torch.randn(n, points, 2, dtype=torch.float64)) for _ in range(2))
    return x, y, space


@pytest.mark.parametrize("points", [2, 3, 4])
def test_no_order_turn_or_mirror_image_comes_nearer(points: int) -> None:
    x, y, space = clouds(6, points)
    found = PlanarOrbits().cost(space, x, y)
    angles = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).unflatten(-1, (2, 2))
    best = torch.full((6,), math.inf, dtype=torch.float64)
    for order in permutations(range(points)):
        for sign in (1.0, -1.0):
            copies = (x[:, order] * torch.tensor([1.0, sign], dtype=torch.float64))[:, None] @ turns.mT
            best = torch.minimum(best, (copies - y[:, None]).square().sum((2, 3)).amin(1))
    assert bool((found <= best + 1e-9).all())
    # half a degree off costs |x| |y| angle² at most
    slack = x.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1) * math.radians(0.25) ** 2
    assert bool((best - found <= slack + 1e-9).all())


def test_the_copy_is_as_near_as_the_cost_says_and_a_copy_costs_nothing() -> None:
    x, y, space = clouds(50, 4)
    orbits = PlanarOrbits()
    moved = orbits.align(space, x, y)
    torch.testing.assert_close((moved - y).square().sum((1, 2)), orbits.cost(space, x, y))
    assert orbits.cost(space, orbits.randomise(space, x), x).max() < 1e-9
    torch.testing.assert_close(moved.norm(dim=2).sort().values, x.norm(dim=2).sort().values)


def test_turns_of_assignment_and_rotation_are_never_nearer() -> None:
    x, y, space = clouds(64, 4)
    context = Context.full(64, 4)
    exact, _, _ = Transport(PlanarOrbits(), across_batch=False).pair(space, x, y, context)
    turns, _, _ = Transport(Permutations(), Rotations(2), across_batch=False, starts=4).pair(space, x, y, context)
    gap = (turns - y).square().sum((1, 2)) - (exact - y).square().sum((1, 2))
    assert gap.min() > -1e-9


def test_clouds_of_many_points_are_sent_elsewhere() -> None:
    context = Context.full(2, 6)
    with pytest.raises(ValueError, match="at most 5 points"):
        PlanarOrbits().bind(Centered(2).bind(context), context)
