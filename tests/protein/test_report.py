"""Pictures are drawn for anything that has chains, and drawing mirrors nothing."""

from __future__ import annotations

import pytest
import torch

from fm_science_domains.protein import drawing
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.report import report
from fm_science_domains.protein.structure import Backbone, dihedral

pytest.importorskip("pydssp")


def test_pictures(tmp_path):
    natives = list(backbones(True)[:3])
    bad = Backbone(torch.full((40, 4, 3), torch.nan))
    rows = {"samples": [*natives[:2], bad], "held-out natives": natives, "random coil": []}
    paths = report(rows, tmp_path / "report")
    assert [p.name for p in paths] == ["overview.png", "traces.png", "contacts.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 20_000 for p in paths)


def test_nothing_to_draw(tmp_path):
    assert report({"samples": []}, tmp_path) == []
    assert report({"samples": [Backbone(torch.full((40, 4, 3), torch.nan))]}, tmp_path) == []


@pytest.mark.parametrize("length", [3, 5])
def test_short_chains_and_a_single_row(tmp_path, length):
    points = torch.randn(length, 4, 3, generator=torch.Generator().manual_seed(0))
    assert len(report({"samples": [Backbone(points), Backbone(points * 0)]}, tmp_path)) == 3


def test_upright_is_a_rigid_motion_without_reflection():
    for chain in backbones(True)[:5]:
        flat = drawing.upright(chain.ca)
        torch.testing.assert_close(torch.pdist(flat), torch.pdist(chain.ca.double()))
        turns = [dihedral(x[:-3], x[1:-2], x[2:-1], x[3:]) for x in (flat, chain.ca.double())]
        torch.testing.assert_close(*turns)
        assert flat[:, 0].abs().max() >= flat[:, 2].abs().max()


def test_the_curve_runs_through_its_points():
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawing.curve(points, 5)[::5], points)
