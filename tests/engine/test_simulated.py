"""Paths that descend a distance: their laws, their walks on meshes, and a flow that learns a density on one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic, ProductPath, Simulated
from fm_science.predictions import Endpoint, Noise
from fm_science.priors import Normal, ProductPrior, Uniform
from fm_science.schedules import VP, Polynomial
from fm_science.solvers import RK4, Euler, Heun
from fm_science.spaces import SO3, Categorical, Centered, Euclidean, Hyperbolic, Sphere, spectral_distance
from fm_science.state import Context
from fm_science.testing import check_path
from tests.oracles.meshes import doughnut, icosphere


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("space", "prior"), [(Sphere(2), Uniform()), (SO3(), Uniform()), (Euclidean(3), Normal())], ids=repr
)
def test_descending_the_distance_of_a_space_obeys_the_laws_of_paths(space, prior):
    check_path(Simulated(space, steps=4, schedule=Polynomial(2.0)), prior, seeds=(0,), tolerance=1e-6)


def test_on_a_mesh_the_laws_hold_up_to_the_size_of_a_step():
    mesh = icosphere(2)
    errors = check_path(Simulated(mesh, mesh.biharmonic(), steps=32), Uniform(), (1, 2), seeds=(0,), tolerance=0.25)
    assert errors["the path starts at the noise"] == errors["the path ends at the data point"] == 0
    assert errors["step_to_endpoint to t = 1 gives the end"] == 0


def test_the_great_circle_distance_gives_great_circles_on_ragged_and_frozen_sites(double):
    mask = torch.tensor([[True, True, True], [True, False, False]])
    known = Uniform().sample(Sphere(2), Context.full(2, 3))
    context = Context(mask, free=torch.tensor([[True, False, True], [True, True, True]]), known=known)
    x0, x1 = (Uniform().sample(Sphere(2), context) for _ in range(2))
    great = lambda x, y: 2 * torch.asin(((x - y).norm(dim=-1) / 2).clamp_max(1))  # noqa: E731
    exact = Geodesic(Sphere(2)).bind(context)
    found = Simulated(Sphere(2), great, steps=3).bind(context)
    for t in (torch.tensor([0.0, 0.3]), torch.tensor([0.7, 1.0])):
        torch.testing.assert_close(found.sample(x0, x1, t), exact.sample(x0, x1, t))
    t = torch.tensor([0.2, 0.7])
    x = exact.sample(x0, x1, t)
    torch.testing.assert_close(found.endpoint_to_velocity(x, x1, t), exact.endpoint_to_velocity(x, x1, t))
    torch.testing.assert_close(found.step_to_endpoint(x, x1, t, t + 0.1), exact.step_to_endpoint(x, x1, t, t + 0.1))


@pytest.mark.parametrize("kind", ["biharmonic", "commute", "diffusion"])
def test_on_a_mesh_the_distance_that_is_left_is_that_of_the_schedule(kind, double):
    mesh, context = icosphere(2), Context.full(40, 2)
    distance = spectral_distance(mesh, kind)
    x0, x1 = (Uniform().sample(mesh, context).double() for _ in range(2))
    t = torch.linspace(0, 1, 40)
    path = Simulated(mesh, distance, steps=48, schedule=Polynomial(2.0)).bind(context)
    x = path.sample(x0, x1, t)
    first = distance(x0, x1)
    error = (distance(x, x1) - (1 - t**2)[:, None] * first) / first
    # a step aims at its distance, so what is left is the bend of one step: d'' (1/48)² / 2 of the first distance,
    # with d'' of about ten where gradients double within a tenth of the way
    assert error.abs().mean() < 10 / 48**2
    torch.testing.assert_close(mesh.project(x), x)
    assert torch.equal(x[-1], x1[-1])
    assert torch.equal(x[0], x0[0])


def test_walks_that_cannot_arrive_say_so():
    mesh, context = icosphere(1), Context.full(60)
    features = torch.sin(5 * mesh.vertices)  # many minima
    distance = type(mesh.biharmonic())(mesh, features)
    x0, x1 = (Uniform().sample(mesh, context) for _ in range(2))
    with pytest.warns(UserWarning, match="minima"):
        Simulated(mesh, distance).bind(context).sample(x0, x1, torch.full((60,), 0.9))


def test_a_walk_knows_no_gradients_and_works_in_inference_mode():
    mesh, context = icosphere(1), Context.full(5)
    path = Simulated(mesh, mesh.biharmonic(), steps=4).bind(context)
    x0, x1 = (Uniform().sample(mesh, context) for _ in range(2))
    t = torch.rand(5)
    assert not path.sample(x0.requires_grad_(), x1, t).requires_grad
    with torch.inference_mode():
        x = path.sample(x0, x1, t)
        assert bool(path.loss(torch.zeros(5, 1, 3), x0, x1, x, t).isfinite().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mesh: Simulated(mesh), "distance of its own"),
        (lambda mesh: Geodesic(mesh), "Simulated"),
        (lambda mesh: Simulated(mesh, mesh.biharmonic(), predicts=Endpoint()), "Velocity"),
        (lambda mesh: Simulated(Euclidean(2), predicts=Noise()), "Velocity"),
        (lambda mesh: Simulated(Centered(3)), "on its own"),
        (lambda mesh: Simulated(Categorical(3)), "smooth|Posterior"),
        (lambda mesh: Simulated(mesh, mesh.biharmonic(), steps=0), "at least one"),
        (lambda mesh: Simulated(Sphere(2), schedule=VP()), "all the way"),
    ],
)
def test_what_has_no_meaning_is_refused_with_a_way_out(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make(icosphere(0)).bind(Context.full(1))


def test_solvers_and_densities_that_need_a_logarithm_are_refused_on_meshes():
    mesh, context = icosphere(0), Context.full(2)
    flow = Flow(Simulated(mesh, mesh.biharmonic()), Uniform(), lambda x, t, c: torch.zeros_like(x))
    x = flow.sample(context, Heun(), 2)
    torch.testing.assert_close(flow.sample(context, Euler(), 2, seed=1), flow.sample(context, Euler(), 1, seed=1))
    with pytest.raises(TypeError, match="Euler"):
        flow.sample(context, RK4(), 2)
    with pytest.raises(TypeError, match="density"):
        flow.log_prob(x, context)
    with pytest.raises(TypeError, match="Endpoint"):
        flow.path.bind(context).endpoint(x, x, torch.rand(2))


class Arrow(nn.Module):
    """A small network in the coordinates of the ambient space."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 3)
        )

    def forward(self, x, t, context):
        return self.net(torch.cat([x, t[:, None, None].expand(*x.shape[:-1], 1)], -1))


def patches(mesh, n):
    """Two caps of a torus, on opposite sides, one of them three times as likely: ``(n, 1, 3)``."""
    x = mesh.uniform((40 * n,), torch.empty(()))
    first, second = ((x + s * torch.tensor([1.4, 0, 0])).norm(dim=-1) < 0.5 for s in (-1, 1))
    keep = first | (second & (torch.rand(len(x)) < 1 / 3))
    return x[keep][:n, None]


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, zero for equal laws (Székely & Rizzo 2013)."""
    x, y = x[:, 0], y[:, 0]
    n, m = len(x), len(y)
    within = torch.cdist(x, x).sum() / (n * (n - 1)) + torch.cdist(y, y).sum() / (m * (m - 1))
    return float(2 * torch.cdist(x, y).mean() - within)


def train(flow, data, pool=2048, steps=400):
    """Regression on walks that are simulated once."""
    context = Context.full(pool)
    path = flow.path.bind(context, flow.prior)
    x0, x1, t = Uniform().sample(flow.path.space, context), data[torch.randint(0, len(data), (pool,))], torch.rand(pool)
    x, u = path.sample_with_velocity(x0, x1, t)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(0, pool, (256,))
        error = flow.network(x[rows], t[rows], context) - u[rows]
        loss = flow.path.space.tangent(x[rows], error).square().clamp_max(100).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()


def test_a_flow_learns_a_density_on_a_torus_in_space():
    """Energy distance to held-out data: the trained flow far below the untrained one, and near a fresh draw of data."""
    mesh = doughnut(16, 8)
    data, validation, fresh = patches(mesh, 2000), patches(mesh, 500), patches(mesh, 500)
    flow = Flow(Simulated(mesh, mesh.biharmonic(), steps=16), Uniform(), Arrow())
    context = Context.full(500)
    untrained = energy_distance(flow.sample(context, Euler(), 20, seed=0), validation)
    train(flow, data)
    x = flow.sample(context, Euler(), 40, seed=0)
    torch.testing.assert_close(mesh.project(x), x)
    trained, floor = energy_distance(x, validation), energy_distance(fresh, validation)
    print(f"energy distance to held-out data: untrained {untrained:.3f}, trained {trained:.3f}, fresh data {floor:.3f}")
    assert FlowMatching()(flow, validation, context)["loss"].mean() > 0
    assert trained < 0.15 * untrained
    assert abs(floor) < 0.05 * untrained


def test_meshes_stand_in_products():
    mesh = icosphere(1)
    path = ProductPath(place=Simulated(mesh, mesh.biharmonic(), steps=4, tolerance=1.0), turn=Geodesic(SO3()))
    prior = ProductPrior(place=Uniform(), turn=Uniform())
    flow = Flow(path, prior, lambda x, t, c: {"place": torch.zeros_like(x["place"]), "turn": x["turn"][..., 0]})
    x1 = flow.sample(Context.full(4, 2), steps=2)
    losses = FlowMatching()(flow, x1, Context.full(4, 2))
    assert set(losses) == {"place", "turn"}


def test_a_step_is_refused_where_points_have_no_way(double):
    """At the datum there is no way to go, and at the far pole any way will do: nothing is infinite."""
    mesh, context = icosphere(2), Context.full(2)
    x1 = mesh.project(torch.tensor([[[0.1, 0.2, 1.0]], [[0.1, 0.2, 1.0]]]))
    x0 = torch.cat([x1[:1], mesh.project(-x1[1:])])
    path = Simulated(mesh, mesh.biharmonic()).bind(context)
    t = torch.full((2,), 0.5)
    x = path.sample(x0, x1, t)
    assert bool(x.isfinite().all())
    assert bool(path.endpoint_to_velocity(x0, x1, t).isfinite().all())
    torch.testing.assert_close(x[0], x1[0])
    ratio = mesh.biharmonic()(x, x1)[1] / mesh.biharmonic()(x0, x1)[1]
    assert abs(float(ratio) - 0.5) < 0.02


def test_hyperbolic_gradients_are_those_of_the_metric(double):
    context = Context.full(8)
    space = Hyperbolic(2).bind(context)
    origin = Hyperbolic(2).origin(torch.zeros(())).expand(8, 1, 3)
    x = space.exp(origin, space.gaussian(origin))
    slope = torch.func.grad(lambda y: space.distance(origin, y).sum())(x)
    away = -space.log(x, origin) / space.distance(origin, x)[:, None, None]
    torch.testing.assert_close(space.gradient(x, slope), away)
