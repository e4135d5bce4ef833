"""Upright clouds and orders found piece by piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fm_science.couplings import Transport
from fm_science.priors import Normal
from fm_science.spaces import Centered
from fm_science.state import Context
from fm_science.symmetries import Permutations
from fm_science.testing import check_coupling, check_domain
from fm_science_domains.point_cloud import build, upright
from fm_science_domains.point_cloud.completion import partly
from fm_science_domains.point_cloud.files import Cloud, write
from fm_science_domains.point_cloud.halves import Halves

SMALL = {"kind": "transformer", "width": 12, "layers": 1}


@pytest.mark.parametrize("dim", [2, 3])
def test_a_cloud_stands_alike_in_whatever_pose_it_comes(dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 40, dim, dtype=torch.float64) * torch.tensor([1.0, 2.0, 4.0])[:dim]
    x = x - x.mean(1, keepdim=True)
    turn = upright.poses(5, dim).double()
    torch.testing.assert_close(turn @ turn.mT, torch.eye(dim, dtype=torch.float64).expand(5, -1, -1), atol=1e-6, rtol=0)
    assert bool((torch.linalg.det(turn) > 0).all())
    axes = upright.axes(x)
    assert bool((torch.linalg.det(axes) > 0).all())  # never mirrored
    stood = x @ axes
    torch.testing.assert_close(upright.axes(stood), torch.eye(dim, dtype=torch.float64).expand(5, -1, -1))
    again = (x + 3) @ turn
    moved = again @ upright.axes(again)
    torch.testing.assert_close(moved - moved.mean(1, keepdim=True), stood, atol=1e-5, rtol=1e-5)
    assert bool((stood.var(1).diff(dim=1) < 0).all())  # the longest axis first
    padded = torch.cat([x, 9 * torch.ones(5, 3, dim, dtype=torch.float64)], 1)
    torch.testing.assert_close(upright.axes(padded, torch.arange(43).expand(5, -1) < 40), axes)


def test_new_clouds_are_turned_at_random_and_completed_ones_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shapes = {"source": "shapes", "points": 24, "train": 30, "held_out": 10, "batch": 8, "upright": True}
    domain = build(data=shapes, network=SMALL, objective={"completion": 0.5}, coupling={"kind": "ordered", "piece": 8})
    check_domain(domain)
    assert [type(s).__name__ for s in domain.symmetries] == ["Permutations"]
    context = domain.request(3, points=3)
    drawn = domain.decode(torch.eye(3).expand(3, 3, 3), context)
    torch.testing.assert_close(torch.stack([c.points for c in drawn]), context.cond["turn"])
    part = torch.randn(9, 3) * torch.tensor([1.0, 2.0, 3.0]) + 7
    write([Cloud(part)], tmp_path)
    context = domain.request(2, points=24, known=str(next(tmp_path.glob("*.npz"))))
    assert context.known is not None
    torch.testing.assert_close(upright.axes(context.known[:, :9]), torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)
    for cloud in domain.decode(context.known, context):
        torch.testing.assert_close(cloud.points[:9], part, atol=1e-5, rtol=1e-5)


def test_completed_clouds_stand_on_the_axes_of_their_part() -> None:
    torch.manual_seed(0)
    x, seen = partly(torch.randn(4, 30, 3), Context.full(4, 30), upright=True)
    given = ~seen.free
    torch.testing.assert_close(upright.axes(x, given), torch.eye(3).expand(4, 3, 3), atol=1e-4, rtol=0)
    assert torch.equal(x, seen.known)


def test_orders_by_halves_are_legal_and_near_the_best() -> None:
    space, prior = Centered(3), Normal()
    check_coupling(Transport(Halves(4), across_batch=False), space, prior, sites=(16,) * 4)
    check_coupling(Transport(Halves(4), across_batch=False), space, prior, sites=(16, 9, 5, 16))  # padded: the whole
    torch.manual_seed(0)
    context = Context.full(6, 64)
    bound = space.bind(context)
    x, y = (bound.project(torch.randn(6, 64, 3, dtype=torch.float64)) for _ in range(2))
    apart = [(s.bind(bound, context).align(bound, x, y) - y).square().sum() for s in (Permutations(), Halves(16))]
    assert apart[0] <= apart[1] < 1.4 * apart[0]
    whole = Halves(64).bind(bound, context).align(bound, x, y)
    torch.testing.assert_close(whole, Permutations().align(bound, x, y))
