"""Meshes: walking, projecting and spectra, on surfaces whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.priors import Uniform
from fm_science.spaces import Mesh, Sphere, spectral_distance
from fm_science.spaces.mesh import closest
from fm_science.state import Context
from fm_science.testing import check_prior, check_space
from tests.oracles.meshes import doughnut, icosphere, square


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
    with pytest.raises(ValueError, match="biharmonic"):
        spectral_distance(mesh, "geodesic")
    with pytest.raises(ValueError, match="positive time"):
        spectral_distance(mesh, "diffusion", time=0.0)


@pytest.mark.parametrize(
    "mesh", [icosphere(1), doughnut(12, 6, bumps=0.5), square(4)], ids=["sphere", "torus", "square"]
)
def test_the_nearest_face_is_that_of_a_search_among_all(mesh):
    near = mesh.uniform((60,), mesh.vertices) + 0.02 * torch.randn(60, 3, dtype=torch.float64)
    far = 3 * torch.randn(60, 3, dtype=torch.float64)
    for x in (torch.cat([near, far, mesh.vertices[:5]]), near.float(), torch.zeros(0, 3, dtype=torch.float64)):
        corners = mesh._corners.to(x)
        gap = ((closest(x[:, None], corners)[..., None] * corners).sum(-2) - x[:, None]).norm(dim=-1)
        found = gap.gather(1, mesh.locate(x)[:, None])[:, 0]
        tolerance = 1e-12 if x.dtype == torch.float64 else 1e-5
        assert bool((found <= gap.amin(1) + tolerance).all()) if len(x) else mesh.locate(x).shape == (0,)


def test_doughnuts_are_closed_and_have_their_area():
    mesh = doughnut(60, 40, 0.4)
    assert bool((mesh.neighbours >= 0).all())
    assert abs(mesh.volume / (4 * math.pi**2 * 0.4) - 1) < 0.01


def test_spectral_distances_keep_the_dtype_and_know_their_derivative_at_corners():
    mesh = icosphere(1)
    distance = spectral_distance(mesh, "commute", modes=12)
    assert distance.features.shape == (42, 12)
    x, y = mesh.uniform((7,), mesh.vertices), mesh.vertices[:7].clone()
    assert distance(x.float(), y.float()).dtype == torch.float32
    torch.testing.assert_close(distance(x.float(), y.float()).double(), distance(x, y), rtol=1e-4, atol=1e-5)
    start = y.requires_grad_()
    (slope,) = torch.autograd.grad(distance(start, x).sum(), start)
    u = mesh.tangent(y, torch.randn_like(y)).detach()
    ahead, behind = (mesh.exp(y.detach(), h * u) for h in (0.02, -0.02))
    rate = (distance(ahead, x) - distance(behind, x)) / 0.04
    torch.testing.assert_close((slope * u).sum(-1), rate, rtol=0.3, atol=0.05)  # both are of the order of an edge, 0.6
