"""Meshes: walking, projecting and spectra, on surfaces whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.priors import Uniform
from fm_science.spaces import Mesh, Sphere
from fm_science.state import Context
from fm_science.testing import check_prior, check_space


def icosphere(splits: int) -> Mesh:
    """The unit sphere as 20 * 4^splits triangles."""
    g = (1 + 5**0.5) / 2
    v = torch.tensor([[s * a, 0.0, r * g] for s in (-1, 1) for r in (-1, 1) for a in (1.0,)], dtype=torch.float64)
    v = torch.cat([v, v.roll(1, 1), v.roll(2, 1)])
    edge = torch.cdist(v, v) < 2.1
    triples = torch.combinations(torch.arange(12), 3)
    near = edge[triples[:, 0], triples[:, 1]] & edge[triples[:, 1], triples[:, 2]] & edge[triples[:, 0], triples[:, 2]]
    f, v = triples[near], v / v.norm(dim=1, keepdim=True)
    for _ in range(splits):
        ends = torch.cat([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).sort(1).values
        edges, index = torch.unique(ends, dim=0, return_inverse=True)
        middle = v[edges].mean(1)
        ab, bc, ca = (len(v) + index).chunk(3)
        corners = [(f[:, 0], ab, ca), (f[:, 1], bc, ab), (f[:, 2], ca, bc), (ab, bc, ca)]
        f, v = (
            torch.cat([torch.stack(c, 1) for c in corners]),
            torch.cat([v, middle / middle.norm(dim=1, keepdim=True)]),
        )
    return Mesh(v, f, modes=8)


def square(n: int) -> Mesh:
    """The unit square in the plane z = 0, with a boundary."""
    axis = torch.linspace(0, 1, n, dtype=torch.float64)
    v = torch.nn.functional.pad(torch.cartesian_prod(axis, axis), (0, 1))
    i = torch.arange(n * n).reshape(n, n)
    a, b, c, d = i[:-1, :-1].flatten(), i[1:, :-1].flatten(), i[1:, 1:].flatten(), i[:-1, 1:].flatten()
    return Mesh(v, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]), modes=8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_laws():
    check_space(icosphere(0), sites=(1, 3), seeds=(0,), geodesic=False, spread=0.3)


def test_prior():
    check_prior(Uniform(), square(3), draws=5000)


def test_in_the_plane_straight_means_straight_and_walls_are_slid_along():
    mesh = square(6)
    x = mesh.uniform((300,), mesh.vertices)
    u = torch.nn.functional.pad(0.4 * torch.randn(300, 2, dtype=torch.float64), (0, 1))
    torch.testing.assert_close(mesh.exp(x, u), (x + u).clamp(0, 1))


def test_straight_lines_on_a_fine_sphere_are_great_circles():
    mesh, sphere = icosphere(2), Sphere(2)
    x = mesh.uniform((50,), mesh.vertices)
    u = mesh.tangent(x, torch.randn(50, 3, dtype=torch.float64))
    u = u / u.norm(dim=-1, keepdim=True)
    start = sphere.project(x)
    end = sphere.exp(start, sphere.tangent(start, u))
    assert (mesh.exp(x, u) - end).norm(dim=-1).max() < 0.06  # edges are 0.3 long


def test_spectrum_of_the_sphere():
    values, vectors = icosphere(2).spectrum
    torch.testing.assert_close(values, torch.tensor([2.0] * 3 + [6.0] * 5, dtype=torch.float64), rtol=0.03, atol=0)
    assert vectors.shape == (162, 8)


def test_spectral_distances_rise_with_the_angle_and_are_smooth_at_zero():
    mesh = icosphere(2)
    angle = torch.linspace(0, math.pi, 13, dtype=torch.float64)
    points = mesh.project(torch.stack([angle.cos(), angle.sin(), 0 * angle], -1))
    for distance in (mesh.biharmonic(), mesh.diffusion(0.25)):
        assert bool((distance(points, points[:1].expand_as(points)).diff() > 0).all())
    x = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mesh.biharmonic()(x, points).sum(), x)
    assert bool(torch.isfinite(gradient).all())


def test_neighbours_share_an_edge():
    mesh = square(3)
    assert int((mesh.neighbours < 0).sum()) == 8  # two edges on each of four sides
    assert bool((icosphere(1).neighbours >= 0).all())


def test_messages_say_what_to_do():
    mesh = square(2)
    with pytest.raises(TypeError, match="Simulated"):
        mesh.bind(Context.full(1)).log(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="without area"):
        Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="beyond"):
        Mesh(torch.eye(3), torch.tensor([[0, 1, 3]]))
