"""Every space keeps the laws of spaces; each also agrees with formulas that are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.spaces import (
    SO3,
    SPD,
    Categorical,
    Centered,
    Euclidean,
    Functions,
    Hyperbolic,
    Product,
    Sphere,
    Torus,
    frames,
)
from fm_science.spaces.eigen import sym_exp, sym_log1p, sym_sqrt
from fm_science.spaces.rotations import nearest_rotation, rotation_exp, rotation_log
from fm_science.state import Context
from fm_science.testing import check_space

SPACES = [
    Euclidean(2), Euclidean((2, 3)), Euclidean(3, vector=True), Euclidean(2, on="graph"), Euclidean(2, on="edges"),
    Centered(), Functions(2), Torus(2), Sphere(1), Sphere(2), Sphere(3), Hyperbolic(2), Hyperbolic(3), SO3(), SPD(2),
    SPD(3), Categorical(4), Categorical(3, on="edges"), Categorical(3, on="graph"), frames(),
    Product(angles=Torus(1), bonds=Categorical(2, on="edges"), more=Product(direction=Sphere())),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_laws(space):
    check_space(space, seeds=(0,))


@pytest.mark.parametrize("space", [Sphere(2), SO3(), Centered(), Torus(2)], ids=repr)
def test_laws_in_single_precision(space):
    check_space(space, seeds=(1,), dtype=torch.float32)


def test_functions_with_quadrature_weights():
    weights = torch.rand(4, 5, dtype=torch.float64)
    check_space(Functions(2), seeds=(0,), cond={"weights": weights})
    context = Context(torch.ones(4, 5, dtype=torch.bool), {"weights": weights})
    space, f = Functions(2).bind(context), torch.randn(4, 5, 2, dtype=torch.float64)
    expected = (weights[..., None] * f * f).sum((1, 2))
    torch.testing.assert_close(space.inner(f, f, f), expected)
    with pytest.raises(ValueError, match="one weight a sensor"):
        Functions(1).bind(Context(torch.ones(4, 5, dtype=torch.bool), {"weights": weights[:, :3]}))


def test_twice_the_sensors_cost_the_same():
    x = {n: torch.linspace(0, 1, n)[None, :, None] for n in (1000, 2000)}
    norms = [Functions(1).bind(Context.full(1, n)).inner(f, f, f) for n, f in x.items()]
    torch.testing.assert_close(norms[0], norms[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("gap", [1e-4, 1e-3, 0.1, math.pi - 1e-3, math.pi - 1e-4])
def test_spherical_distances_keep_their_accuracy_in_single_precision(gap):
    s = Sphere(2)
    x = s.uniform((2000,), torch.empty(0))
    u = s.gaussian(x)
    y = s.exp(x, gap * u / u.norm(dim=-1, keepdim=True))
    single = s.log(x, y)
    double = s.log(s.project(x.double()), s.project(y.double()))
    assert ((single - double).norm(dim=-1) / double.norm(dim=-1)).max() < 1e-5


@pytest.mark.parametrize("space", [Sphere(1), Sphere(2), SO3(), Torus(1)], ids=repr)
def test_the_cut_locus_is_pi_away(space):
    x = space.uniform((50,), torch.empty(0, dtype=torch.float64))
    u = space.gaussian(x)
    y = space.exp(x, math.pi * u / u.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(space.log(x, y).norm(dim=-1), torch.full((50,), math.pi, dtype=torch.float64))


def test_angles_lie_in_a_half_open_interval():
    edges = torch.tensor([math.pi, -math.pi, 3 * math.pi, 0.0, math.nextafter(math.pi, 0)], dtype=torch.float64)
    wrapped = Torus(1).project(edges[:, None])[:, 0]
    assert bool((wrapped >= -math.pi).all() & (wrapped < math.pi).all())
    assert wrapped[0] == -math.pi
    assert wrapped[4] == edges[4]  # angles in range come back to the bit


def test_hyperbolic_distance():
    s = Hyperbolic(3)
    x, y = (s.project(torch.randn(100, 4, dtype=torch.float64)) for _ in range(2))
    product = (x[:, 1:] * y[:, 1:]).sum(-1) - x[:, 0] * y[:, 0]
    u = s.log(x, y)
    torch.testing.assert_close(s.dot(x, u, u).sqrt(), torch.acosh(-product))


def test_distance_of_positive_matrices():
    s = SPD(3)
    x, y = (_positive(20, 3) for _ in range(2))
    u = s.log(x, y)
    eigenvalues = torch.linalg.eigvals(torch.linalg.solve(x, y)).real
    torch.testing.assert_close(s.dot(x, u, u), eigenvalues.log().square().sum(-1))
    a = torch.randn(20, 3, 3, dtype=torch.float64)  # congruence is an isometry
    v = s.log(a @ x @ a.mT, a @ y @ a.mT)
    torch.testing.assert_close(s.dot(a @ x @ a.mT, v, v), s.dot(x, u, u))


def _positive(n: int, size: int) -> torch.Tensor:
    a = torch.randn(n, size, size, dtype=torch.float64)
    return a @ a.mT + 0.1 * torch.eye(size)


@pytest.mark.parametrize("f", [sym_exp, lambda a: sym_log1p(0.2 * a)], ids=["exp", "log1p"])
def test_matrix_functions_have_derivatives_at_equal_eigenvalues(f):
    for a in (torch.eye(3, dtype=torch.float64), torch.diag(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))):
        x = a[None].requires_grad_()

        def even(m):
            return f(0.5 * (m + m.mT))

        assert torch.autograd.gradcheck(even, x, check_forward_ad=True)
    distinct = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))[None].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda m: f(0.5 * (m + m.mT)), distinct)


def test_matrix_functions_are_batched():
    a = _positive(6, 3)
    root = torch.func.vmap(sym_sqrt)(a)
    torch.testing.assert_close(root @ root, a)


def test_rotations_agree_with_roma():
    roma = pytest.importorskip("roma")
    angle = torch.tensor([0.0, 1e-9, 1e-4, 1.0, 3.0, math.pi - 1e-4, math.pi - 1e-9, math.pi], dtype=torch.float64)
    axis = torch.nn.functional.normalize(torch.randn(200, 1, 3, dtype=torch.float64), dim=-1)
    w = axis * angle[:, None]
    r = rotation_exp(w)
    torch.testing.assert_close(r, roma.rotvec_to_rotmat(w), atol=1e-14, rtol=0)
    torch.testing.assert_close(rotation_log(r).norm(dim=-1), angle.expand(200, -1), atol=1e-12, rtol=0)
    torch.testing.assert_close(rotation_log(r)[:, :6], roma.rotmat_to_rotvec(r)[:, :6], atol=1e-11, rtol=0)
    x, y = roma.random_rotmat(500, dtype=torch.float64), roma.random_rotmat(500, dtype=torch.float64)
    torch.testing.assert_close(SO3().log(x, y).norm(dim=-1), roma.rotmat_geodesic_distance(x, y))


def test_projection_finds_the_nearest_rotation():
    roma = pytest.importorskip("roma")
    m = torch.randn(5000, 3, 3, dtype=torch.float64)
    ours, best = nearest_rotation(m), roma.special_procrustes(m)
    excess = (m - ours).square().sum((1, 2)) - (m - best).square().sum((1, 2))
    assert excess.max() < 1e-12
    torch.testing.assert_close(torch.linalg.det(ours), torch.ones(5000, dtype=torch.float64))


def test_mirrored_frames_stay_right_handed():
    x = SO3().uniform((4, 3), torch.empty(0, dtype=torch.float64))
    mirror = torch.diag(torch.tensor([1.0, 1, -1], dtype=torch.float64)).expand(4, 3, 3)
    y = SO3().rotate(x, mirror)
    torch.testing.assert_close(torch.linalg.det(y), torch.ones(4, 3, dtype=torch.float64))
    torch.testing.assert_close(y[..., :2], mirror[:, None] @ x[..., :2])


@pytest.mark.parametrize(("dim", "volume"), [(1, 2 * math.pi), (2, 4 * math.pi), (3, 2 * math.pi**2)])
def test_volumes_of_spheres(dim, volume):
    assert Sphere(dim).volume == pytest.approx(volume)


class TestEdges:
    context = Context(torch.arange(5) < torch.tensor([5, 3])[:, None])
    space = Categorical(3, on="edges").bind(context)

    def test_each_pair_counts_once(self):
        assert self.space.dimension.tolist() == [10, 3]
        x = self.space.project(torch.randn(2, 5, 5, 3))
        y = self.space.project(torch.randn(2, 5, 5, 3))
        differ = (x.argmax(-1) != y.argmax(-1)).triu(1).sum((1, 2))
        torch.testing.assert_close(self.space.distance(x, y).square(), differ.float())

    def test_one_draw_serves_both_triangles(self):
        p = torch.rand(2, 5, 5, 3)
        x = self.space.project(p)
        y = self.space.exp(x, self.space.log(x, p / p.sum(-1, keepdim=True)))
        assert torch.equal(y, y.transpose(1, 2))
        assert bool((y.diagonal(dim1=1, dim2=2).argmax(1) == 0).all())  # the diagonal holds class 0

    def test_lopsided_rates_are_averaged(self):
        many = Categorical(2, on="edges").bind(Context.full(4000, 2))
        x = many.project(torch.tensor([1.0, 0.0]).expand(4000, 2, 2, 2))
        u = torch.zeros_like(x)
        u[:, 0, 1] = torch.tensor([-0.8, 0.8])  # one triangle says 0.8, the other 0: both mean 0.4
        share = many.exp(x, u)[:, 0, 1, 1].mean()
        assert abs(float(share) - 0.4) < 5 * (0.24 / 4000) ** 0.5

    def test_an_edge_is_frozen_with_both_its_ends(self):
        free = torch.tensor([[False, False, True, True, True], [True, True, True, True, True]])
        known = self.space.project(torch.randn(2, 5, 5, 3))
        space = Categorical(3, on="edges").bind(Context(self.context.mask, free=free, known=known))
        assert space.dimension.tolist() == [9, 3]


def test_impossible_classes_are_never_drawn():
    s = Categorical(3).bind(Context.full(2000, 1))
    x = s.project(torch.tensor([1.0, 0, 0]).expand(2000, 1, 3))
    y = s.exp(x, torch.tensor([-0.5, 0.5, 0.0]).expand(2000, 1, 3))
    assert float(y[..., 2].sum()) == 0


def test_messages_say_what_to_do():
    with pytest.raises(TypeError, match="Wrapped"):
        Hyperbolic(2).uniform((3,), torch.empty(0))
    with pytest.raises(TypeError, match="cannot diffuse"):
        Categorical(3).gaussian(torch.zeros(1, 1, 3))
    with pytest.raises(ValueError, match="at least two"):
        Categorical(1)
