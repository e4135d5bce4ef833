"""Shapes lie where they say, their parameters are found again, and sets of shapes are told apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fm_science.errors import UserError
from fm_science.state import Context
from fm_science.testing import check_domain
from fm_science_domains.point_cloud import build
from fm_science_domains.point_cloud.completion import partly
from fm_science_domains.point_cloud.files import Cloud, read, write
from fm_science_domains.point_cloud.fits import fit, recognised
from fm_science_domains.point_cloud.likeness import chamfer, earth_mover, likeness
from fm_science_domains.point_cloud.reference import poses
from fm_science_domains.point_cloud.shapes import FAMILIES, drawn

SMALL = {"width": 12, "layers": 2, "bumps": 6}
SHAPES = {"source": "shapes", "points": 24, "train": 60, "held_out": 24, "batch": 8}


def made(name: str, n: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    family = FAMILIES[name]
    parameters = family.draw(n, generator)
    return parameters, family.points(parameters, points, generator) @ poses(n, 3, generator)


@pytest.mark.parametrize("name", FAMILIES)
def test_points_lie_on_the_surface_and_tell_its_parameters_in_any_pose(name: str) -> None:
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(0)
    parameters = family.draw(6, generator)
    x = family.points(parameters, 64, generator)
    assert family.distance(parameters, x).abs().max() < 1e-5
    found = fit(family, x @ poses(6, 3, generator) + 7)
    assert found.error.median() < 1e-3
    assert (found.parameters - parameters).abs().median(0).values.max() < 0.01


def test_points_are_spread_by_area() -> None:
    """The faces of a box hold points in proportion to their areas; a torus in proportion to ring + tube cos v."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([[1.0, 0.6, 0.3]], dtype=torch.float64)
    x = FAMILIES["box"].points(sides, 6000, generator)[0]
    on = (x.abs() > sides - 1e-9).double().mean(0)
    area = torch.tensor([0.6 * 0.3, 1.0 * 0.3, 1.0 * 0.6], dtype=torch.float64)
    torch.testing.assert_close(on, area / area.sum(), atol=4 * 0.5 / math.sqrt(6000), rtol=0)
    x = FAMILIES["torus"].points(torch.tensor([[0.8, 0.4]], dtype=torch.float64), 6000, generator)[0]
    outer = (x[:, :2].norm(dim=1) > 0.8).double().mean().item()
    assert outer == pytest.approx(0.5 + 0.4 / (math.pi * 0.8), abs=4 * 0.5 / math.sqrt(6000))


def test_families_are_recognised() -> None:
    clouds = torch.cat([made(name, 4, 96)[1] for name in FAMILIES])
    found, fits = recognised(clouds)
    assert (found == torch.arange(3).repeat_interleave(4)).double().mean() >= 11 / 12
    assert set(fits) == set(FAMILIES)


def test_distances_between_clouds_have_their_closed_forms() -> None:
    x = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    y = x + torch.tensor([0.0, 0.1, 0])
    assert chamfer(x, y) == pytest.approx(2 * 0.01)
    assert earth_mover(x, y) == pytest.approx(0.1)
    assert chamfer(x, x[:1]) == pytest.approx(0.5)  # the second point has squared distance 1, half of the points
    assert earth_mover(x, x.flip(0)) == 0


def test_equal_laws_cannot_be_told_apart_and_different_ones_can() -> None:
    clouds = [Cloud(x) for x, _ in drawn(["torus"], 32, 150)]
    boxes = [Cloud(x) for x, _ in drawn(["box"], 16, 150)]
    same, other = likeness(clouds[:16], clouds[16:]), likeness(boxes, clouds[16:])
    for d in ("cd", "emd"):
        assert abs(same[f"1nna_{d}"] - 0.5) < 4 * 0.5 / math.sqrt(32)
        assert other[f"1nna_{d}"] > 0.85
        assert same[f"mmd_{d}"] < other[f"mmd_{d}"]
    halves = likeness(clouds[16:], clouds[16:])
    assert 0.1 < halves["1nna_cd"] < 0.9  # a set compared with itself is cut in two
    grown = [Cloud(3 * c.points) for c in clouds[:16]]
    assert likeness(grown, clouds[16:], normalise="set")["1nna_cd"] > 0.9
    assert likeness(grown, clouds[16:], normalise="cloud")["1nna_cd"] < 0.9


@pytest.mark.parametrize("kind", ["egnn", "message_passing", "tensor_field", "transformer"])
def test_shapes_are_a_domain_with_classes_for_every_network(kind: str) -> None:
    domain = build(
        data=SHAPES, network={**SMALL, "kind": kind, "radius": 1.5}, metrics={"shapes": 3 if kind == "egnn" else 0},
        objective={"completion": 0.5}, coupling={"kind": "ordered"},
    )  # fmt: skip
    check_domain(domain)
    assert domain.equivariant == (kind != "transformer")
    context = domain.request(4, label="box")
    assert context.cond["label"].tolist() == [1] * 4
    assert domain.decode(torch.zeros(4, 24, 3), context)[0].label == "box"


def test_guidance_pushes_along_the_class_when_clouds_are_drawn() -> None:
    torch.manual_seed(0)
    domain = build(data=SHAPES, network=SMALL, sample={"guidance": 3.0})
    network, context = domain.network, domain.request(2, label="torus")
    x, t = torch.randn(2, 24, 3), torch.rand(2)
    plain = network(x, t, context)
    off = network(x, t, replace(context, cond={"label": torch.full((2,), -1)}))
    torch.testing.assert_close(domain.sampler.wrap_network(network)(x, t, context), off + 3 * (plain - off))
    assert build(data=SHAPES, network=SMALL).sampler.wrap_network is None


def test_a_part_is_frozen_and_becomes_the_origin() -> None:
    torch.manual_seed(0)
    context = Context(torch.arange(30) < torch.tensor([[30], [12]]))
    x, seen = partly(torch.randn(2, 30, 3), context)
    given = ~seen.free & seen.mask
    assert bool(given.any(1).all())
    assert bool((given.sum(1) < context.mask.sum(1)).all())
    for cloud, some in zip(x, given, strict=True):
        assert cloud[some].mean(0).abs().max() < 1e-5


def test_a_partial_cloud_is_completed_where_it_stands(tmp_path: Path) -> None:
    from fm_science.sampling import Drawing, draw

    part = torch.randn(9, 3) + 20
    write([Cloud(part)], tmp_path)
    file = str(next(tmp_path.glob("*.npz")))
    domain = build(data=SHAPES, network=SMALL, sample={"known": file, "points": 24, "steps": 2})
    for _, clouds, _ in draw(domain, domain.flow(), Drawing(3, batch=2)):
        for cloud in clouds:
            assert len(cloud) == 24
            torch.testing.assert_close(cloud.points[:9], part, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="9 points already"):
        domain.request(1, points=9)


def test_folders_of_folders_are_classes(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        write([Cloud(torch.randn(n, 3)) for n in (5, 7, 6)], tmp_path / name)
    domain = build(data={"source": str(tmp_path), "batch": 2}, network=SMALL, metrics={"shapes": 2})
    check_domain(domain)
    with pytest.raises(UserError, match="did you mean 'cats'"):
        domain.request(1, label="cat")


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_polygon_files_give_their_vertices(tmp_path: Path, kind: str) -> None:
    import numpy as np

    rows = np.array(
        [(1.0, 2.0, 3.0, 9), (4.0, 5.0, 6.0, 8)], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4"), ("r", "u1")]
    )
    head = f"ply\nformat {kind} 1.0\ncomment made here\nelement vertex 2\nproperty float x\nproperty float y\n"
    head += "property float z\nproperty uchar red\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"1 2 3 9\n4 5 6 8\n" if kind == "ascii" else rows.tobytes()
    if kind == "binary_big_endian":
        body = rows.astype([("x", ">f4"), ("y", ">f4"), ("z", ">f4"), ("r", "u1")]).tobytes()
    (tmp_path / "a.ply").write_bytes(head.encode() + body)
    assert read([tmp_path / "a.ply"])[0].points.tolist() == [[1, 2, 3], [4, 5, 6]]
