"""Action matching: potentials, what is refused, and a potential that is learned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace
from fm_science.networks import Potential
from fm_science.objectives import ActionMatching, Stratified
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, ProductPrior, Uniform
from fm_science.solvers import Euler, EulerMaruyama, Heun
from fm_science.spaces import SO3, Categorical, Euclidean, Product, Sphere
from fm_science.state import Context


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def bowl(x, t, context):
    """(1 + t) |x|² / 2 over all sites."""
    return 0.5 * (1 + t) * x.square().flatten(1).sum(1)


def test_a_potential_is_its_gradient_in_the_metric_of_the_space(double):
    context = Context.full(5, 2)
    x, t = torch.randn(5, 2, 3), torch.rand(5)
    network = Potential(bowl, Euclidean(3))
    torch.testing.assert_close(network(x, t, context), (1 + t)[:, None, None] * x)
    u, rate = network.rates(x, t, context)
    torch.testing.assert_close(u, network(x, t, context))
    torch.testing.assert_close(rate, 0.5 * x.square().sum((1, 2)))
    height = Potential(lambda x, t, c: x[:, :, 2].sum(1), Sphere(2))
    y = Uniform().sample(Sphere(2), context).double()
    up = torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(height(y, t, context), up - y[..., 2:] * y)


def test_a_potential_keeps_its_geometry_exact_in_mixed_precision():
    torch.manual_seed(0)
    network = Potential(lambda x, t, context: x.square().sum((-1, -2, -3)) + x[..., 0, 1].sum(-1), SO3())
    context, t = Context.full(8), torch.rand(8)
    x = Uniform().sample(SO3(), context)
    plain = network(x, t, context), *network.rates(x, t, context)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(x, t, context), *network.rates(x, t, context)
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def test_on_a_product_each_part_gets_its_gradient(double):
    context = Context.full(4)
    space = Product(place=Euclidean(2), turn=SO3())
    network = Potential(
        lambda x, t, c: bowl(x["place"], t, c) + x["turn"].diagonal(dim1=-2, dim2=-1).sum((1, 2)), space
    )
    x = {"place": torch.randn(4, 1, 2), "turn": Uniform().sample(SO3(), context).double()}
    t = torch.zeros(4)
    u = network(x, t, context)
    torch.testing.assert_close(u["place"], x["place"])
    r = x["turn"]
    skew = torch.stack([r[..., 1, 2] - r[..., 2, 1], r[..., 2, 0] - r[..., 0, 2], r[..., 0, 1] - r[..., 1, 0]], -1)
    torch.testing.assert_close(u["turn"], skew)  # d/dw tr(R expm(hat w)) at w = 0
    path = ProductPath(place=Geodesic(Euclidean(2)), turn=Geodesic(SO3()))
    flow = Flow(path, ProductPrior(place=Normal(), turn=Uniform()), network)
    assert ActionMatching(times=Stratified())(flow, x, context)["action"].shape == (4,)


def test_a_constant_weight_changes_the_loss_by_its_factor_and_a_weight_by_parts_adds_up(double):
    """With w the loss is that of w (|grad s|² / 2 - <grad s, dx/dt>), so for straight lines and s = a . x known."""
    flow = Flow(Geodesic(Euclidean(2)), Normal(), Potential(lambda x, t, c: x[..., 0].sum(1), Euclidean(2)))
    x1, context = torch.randn(6, 1, 2), Context.full(6)
    x0 = torch.randn(6, 1, 2)
    node = 0.5 * (1 + torch.tensor([-0.6, 0.0, 0.6]).sign() * torch.tensor([0.6, 0.0, 0.6]).sqrt())  # Gauss's rule
    share = torch.tensor([5.0, 8.0, 5.0]) / 18
    for weight, mean in ((lambda t: 1 + t, 1.5), (lambda t: 3 * t**0, 3.0)):
        loss = torch.zeros(6)
        for t, w in zip(node, share, strict=True):
            objective = ActionMatching(times=lambda n, t=t: t.expand(n).clone(), weight=weight)
            loss += 2 * w * objective(flow, x1, context, x0)["action"]
        torch.testing.assert_close(loss, mean * (0.5 - (x1 - x0)[:, 0, 0]))


class Hill(nn.Module):
    """A small scalar network."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, context):
        return self.net(torch.cat([x[:, 0], t[:, None]], -1))[:, 0]


@pytest.mark.parametrize(("space", "prior"), [(Euclidean(2), Normal()), (Sphere(2), Uniform())], ids=repr)
def test_a_learned_potential_moves_noise_to_data(space, prior):
    """A shifted Gaussian, and a cap of the sphere: means of samples come near those of the data."""
    context = Context.full(256)

    def draw() -> torch.Tensor:
        start = torch.tensor([2.0, -1.0]) if space.linear else torch.tensor([0.0, 0.6, 0.8])
        return space.project(start + 0.4 * torch.randn(256, 1, len(start)))

    flow = Flow(Geodesic(space), prior, Potential(Hill(space.event[0]), space))
    optimizer, objective = torch.optim.Adam(flow.parameters(), 3e-3), ActionMatching(times=Stratified())
    for _ in range(120):
        loss = objective(flow, draw(), context)["action"].mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    assert not flow.independent
    x, data = flow.sample(context, Heun(), 20, seed=0), draw()
    untrained = (flow.noise(context) - data).mean(0).norm()
    assert (x.mean(0) - data.mean(0)).norm() < 0.2 * untrained


def test_the_dynamics_of_euler_maruyama_diffuse_on_every_smooth_space(double):
    """Without a drift the plane gives N(0, 1 + sigma²), and the sphere keeps its uniform law."""
    still = lambda x, t, c: torch.zeros_like(x)  # noqa: E731
    flow = Flow(Geodesic(Euclidean(1)), Normal(), still)
    x = flow.sample(Context.full(20_000), EulerMaruyama(0.75), 5, seed=0)
    assert abs(float(x.std()) - 1.25) < 5 * 1.25 / (2 * 20_000) ** 0.5
    ball = Flow(Geodesic(Sphere(2)), Uniform(), still).sample(Context.full(5000), EulerMaruyama(lambda t: 1 + t), 5)
    assert (ball.mean((0, 1)).abs() < 5 * (1 / 3 / 5000) ** 0.5).all()
    classes = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes((0.5, 0.5)), still)
    with pytest.raises(TypeError, match="smooth"):
        classes.sample(Context.full(1), EulerMaruyama(1.0), 1)


def test_what_action_matching_cannot_train_is_refused():
    x, context = torch.randn(2, 1, 2), Context.full(2)
    with pytest.raises(TypeError, match="Potential"):
        ActionMatching()(Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: x), x, context)
    network = Potential(bowl, Euclidean(2))
    with pytest.raises(TypeError, match="Velocity"):
        ActionMatching()(Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), network), x, context)
    with pytest.raises(TypeError, match="smooth"):
        Potential(bowl, Categorical(2))
    with pytest.raises(ValueError, match="one number a sample"):
        Potential(lambda x, t, c: x, Euclidean(2))(x, torch.rand(2), context)


def test_a_potential_has_a_density(double):
    """s = -|x|² t / 2 shrinks noise: x_1 = x_0 exp(-1/2)."""
    flow = Flow(
        Geodesic(Euclidean(2)), Normal(), Potential(lambda x, t, c: -t * x.square().sum((1, 2)) / 2, Euclidean(2))
    )
    x = torch.randn(8, 1, 2)
    exact = torch.distributions.Normal(0.0, torch.tensor(-0.5).exp()).log_prob(x).sum((1, 2))
    torch.testing.assert_close(
        flow.log_prob(x, Context.full(8), steps=40, divergence=ExactTrace()), exact, atol=1e-6, rtol=0
    )
    assert flow.transport(x, Context.full(8), Euler(), 1).equal(x)
