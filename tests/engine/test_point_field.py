"""The ready network keeps its promises on every space: shapes, padding, finite gradients, and it learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fm_science import (
    SO3,
    SPD,
    Categorical,
    Centered,
    Classes,
    Context,
    Endpoint,
    Euclidean,
    Flow,
    FlowMapMatching,
    FlowMatching,
    Functions,
    Gaussian,
    Geodesic,
    Hyperbolic,
    Interpolant,
    Leaf,
    Mesh,
    Noise,
    Normal,
    OptionError,
    Permutations,
    PointField,
    Posterior,
    Prior,
    Product,
    ProductPath,
    ProductPrior,
    Sphere,
    Torus,
    Uniform,
    Velocity,
    Wrapped,
)
from fm_science.contract import check_output
from fm_science.networks import Embedding, embedding
from fm_science.testing import check_network

TETRAHEDRON = Mesh(
    torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]),
    torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]), modes=2,
)  # fmt: skip
SPACES: dict[str, tuple[Leaf, Prior]] = {
    "vector": (Euclidean(3), Normal()),
    "matrix": (Euclidean((2, 3)), Normal()),
    "graph vector": (Euclidean(2, on="graph"), Normal()),
    "centred": (Centered(3), Normal()),
    "torus": (Torus(2), Uniform()),
    "circle": (Sphere(1), Uniform()),
    "sphere": (Sphere(2), Uniform()),
    "hyperbolic": (Hyperbolic(2), Wrapped(1.0)),
    "rotations": (SO3(), Uniform()),
    "spd": (SPD(3), Wrapped(0.5)),
    "mesh": (TETRAHEDRON, Uniform()),
    "classes": (Categorical(4), Classes([0.25] * 4)),
    "edges": (Categorical(3, on="edges"), Classes([1 / 3] * 3)),
}
SMOOTH = [name for name, (space, _) in SPACES.items() if space.smooth]


def ragged(**cond: Tensor) -> Context:
    return Context(torch.arange(4) < torch.tensor([[4], [2], [1]]), cond)


def shaken(network: PointField) -> PointField:
    """Without zeros in its heads."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("endpoint", [False, True])
def test_it_keeps_the_laws_of_networks_on_every_space(name: str, endpoint: bool) -> None:
    space, prior = SPACES[name]
    if endpoint and not (space.smooth and space.geodesic):
        pytest.skip("no endpoints here")
    predicts = Endpoint() if endpoint else Velocity() if space.smooth else Posterior()
    path = Geodesic(space, predicts=predicts) if space.geodesic else None
    network = PointField(space, 12, 3, waves=4, predicts=predicts, pooled=True)
    if path is None:
        x = prior.sample(space, ragged())
        assert network(x, torch.rand(3), ragged()).shape == x.shape
        return
    check_network(network, path, prior, ragged(), [Permutations()] if space.on == "nodes" else [])


def product() -> tuple[Product, ProductPath, ProductPrior]:
    kinds = {"place": "sphere", "turn": "torus", "kind": "classes", "bond": "edges", "size": "graph vector"}
    parts = {part: SPACES[name] for part, name in kinds.items()}
    path = ProductPath(
        **{k: Geodesic(s, predicts=Velocity() if s.smooth else Posterior()) for k, (s, _) in parts.items()}
    )
    return path.space, path, ProductPrior(**{k: prior for k, (_, prior) in parts.items()})


def test_it_keeps_the_laws_of_networks_on_a_product() -> None:
    _, path, prior = product()
    network = PointField.for_path(path, 12, 3, waves=4, conditions=("heat",), classes={"label": 3}, pooled=True)
    context = ragged(heat=torch.randn(3), label=torch.tensor([0, 2, -1]))
    check_network(network, path, prior, context, [Permutations()], reads=["heat", "label"])


@pytest.mark.parametrize("name", ["vector", "sphere", "rotations", "spd"])
def test_it_is_a_flow_map_where_it_is_told_two_times(name: str) -> None:
    space, prior = SPACES[name]
    network = PointField(space, 12, 2, waves=4, two_times=True)
    check_network(network, Geodesic(space), prior, Context.full(3))
    flow = Flow(Geodesic(space), prior, shaken(network))
    losses = FlowMapMatching()(flow, prior.sample(space, Context.full(8)), Context.full(8))
    torch.stack([loss.mean() for loss in losses.values()]).sum().backward()  # through derivatives by time
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_scales_and_predictions_are_said_by_part() -> None:
    space = product()[0]
    network = PointField(space, 8, 2, scales={"place": (2.0,)}, predicts={"place": Endpoint()}, waves=3, pooled=True)
    by_name = dict(zip(space.parts, network.parts, strict=True))
    assert by_name["place"].embed.features == 3 + 2 * 3
    assert by_name["place"].predicts == Endpoint()
    assert by_name["turn"].predicts == Velocity()
    for what in ({"scales": {"plaec": (1.0,)}}, {"predicts": {"plaec": Velocity()}}):
        with pytest.raises(OptionError, match="'plaec'"):
            PointField(space, 8, 2, **what)


def test_parts_within_parts_are_read_and_answered_by_name() -> None:
    space = Product(outer=Product(inner=Torus(1), kind=Categorical(2)), size=Euclidean(1))
    kinds = torch.eye(2)[[0, 1, 0]][:, None]
    x = {"outer": {"inner": torch.zeros(3, 1, 1), "kind": kinds}, "size": torch.ones(3, 1, 1)}
    raw = PointField(space, 8, 2, scales={"outer/inner": (1.0,)})(x, torch.rand(3), Context.full(3))
    assert raw["outer"]["inner"].shape == (3, 1, 1)
    assert raw["outer"]["kind"].shape == (3, 1, 2)
    assert raw["size"].shape == (3, 1, 1)


def test_every_prediction_of_a_path_is_answered_in_its_shape() -> None:
    for predicts in (Velocity(), Endpoint(), Noise()):
        path = Gaussian(Euclidean(2), predicts=predicts)
        x = torch.randn(5, 1, 2)
        raw = PointField.for_path(path, 8, 2)(x, torch.rand(5), Context.full(5))
        check_output(path.bind(Context.full(5)), raw)
    with pytest.raises(TypeError, match="gives one"):
        PointField.for_path(Interpolant(Euclidean(2)))


@pytest.mark.parametrize("name", SMOOTH)
def test_the_untrained_velocity_is_zero_and_the_endpoint_the_point(name: str) -> None:
    space, prior = SPACES[name]
    x = prior.sample(space, Context.full(6, 2))
    for predicts, raw in ((Velocity(), 0.0), (Endpoint(), x)):
        if predicts == Endpoint() and not space.geodesic:
            continue
        found = PointField(space, 8, 2, predicts=predicts, pooled=True)(x, torch.rand(6), Context.full(6, 2))
        assert torch.allclose(found, torch.as_tensor(raw).expand_as(found), atol=1e-5)


@pytest.mark.parametrize("name", SMOOTH)
def test_single_precision_is_finite_at_origins_and_cut_loci(name: str) -> None:
    space, prior = SPACES[name]
    like = torch.empty(())
    o = space.origin(like)
    points = [o, *prior.sample(space, Context.full(3)).reshape(3, *space.event)]
    if space.injectivity < math.inf:  # as far from the origin as can be, and nearly
        u = torch.zeros(space.tangent_event).index_fill(-1, torch.tensor(space.tangent_event[-1] - 1), 1.0)
        points += [space.exp(o, space.injectivity * factor * u) for factor in (1.0, 1 - 1e-7)]
    if space.geodesic and not space.linear and space.injectivity == math.inf:  # far away
        u = space.tangent(o, torch.ones(space.tangent_event))
        points += [space.exp(o, 3 * u), space.exp(o, 1e-12 * u)]
    x = torch.stack(points)
    x = (x if space.on == "graph" else x[:, None]).requires_grad_()
    network = shaken(PointField(space, 8, 2, predicts=Velocity(), waves=4))
    raw = network(x, torch.linspace(0, 1, len(x)), Context.full(len(x)))
    raw.square().sum().backward()
    assert x.grad is not None
    assert bool(raw.isfinite().all() and x.grad.isfinite().all())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@dataclass(frozen=True)
class Disc(Leaf):
    """A third party's space of five methods: the unit disc of the hyperbolic plane is not needed here, R² will do."""

    event = (2,)
    dimension = 2

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return 4 * (u * v).flatten(1).sum(1)


class Polar(Embedding):
    """The square of the radius beside the coordinates."""

    def coordinates(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.square().sum(-1, keepdim=True)], -1)


@dataclass(frozen=True)
class Registered(Disc):
    """Such a space with an embedding of its own."""


embedding.register(Registered, Polar)


def test_a_space_of_five_methods_is_shown_by_its_coordinates_or_by_what_it_registers() -> None:
    x = torch.randn(4, 1, 2)
    assert type(embedding(Disc())) is Embedding
    assert torch.equal(embedding(Disc())(x)[..., :2], x)
    assert isinstance(embedding(Registered()), Polar)
    assert embedding(Registered(), (1.0,), 5).features == 3 + 2 * 5
    for space in (Disc(), Registered()):
        assert PointField(space, 8, 2)(x, torch.rand(4), Context.full(4)).shape == x.shape


def test_waves_on_a_torus_are_periodic() -> None:
    embed = embedding(Torus(3))
    x = 2 * math.pi * torch.rand(7, 3, dtype=torch.float64)
    turn = 2 * math.pi * torch.randint(-2, 3, (7, 3)).double()
    assert torch.allclose(embed(x), embed(x + turn), atol=1e-10)
    assert embed.directions.T.unique(dim=0).shape == embed.directions.T.shape  # no wave twice


def test_tangents_have_the_length_of_their_coefficients() -> None:
    torch.manual_seed(0)
    for space in (Hyperbolic(2), SPD(3)):
        x = Wrapped(1.0).sample(space, Context.full(9)).double()
        embed = embedding(space)
        raw = torch.randn(9, 1, embed.coefficients, dtype=torch.float64)
        u = embed.tangent(x, raw)
        assert torch.allclose(space.dot(x, u, u), raw.square().sum(-1), rtol=1e-5)  # points are of single precision


def test_the_coordinates_of_hyperbolic_space_are_normal_ones() -> None:
    space, v = Hyperbolic(2), torch.tensor([[0.3, -2.0], [5.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    x = space.exp(space.origin(v).expand(3, 3), torch.nn.functional.pad(v, (1, 0)))
    assert torch.allclose(embedding(space).coordinates(x), v, atol=1e-9)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TypeError, match="LatentOperator"):
        PointField(Functions(1))
    with pytest.raises(TypeError, match="no leaf space"):
        embedding(Product(a=Torus(1)))
    with pytest.raises(TypeError, match="Posterior"):
        PointField(Categorical(3), predicts=Velocity())
    with pytest.raises(OptionError, match="positive"):
        PointField(Sphere(2), scales=(1.0, -1.0))
    with pytest.raises(ValueError, match="pooled=True"):
        PointField(Torus(1), 8, 2)(torch.zeros(2, 3, 1), torch.rand(2), Context.full(2, 3))


def test_it_learns_a_law_on_the_circle() -> None:
    """Half of the points within 0.05 of each of 0 and 2, on a circle: after 150 steps the log-likelihood of new points
    is far above the uniform law's, -log(2 pi) = -1.84, and at most the entropy of the law allows."""
    torch.manual_seed(0)
    data = lambda n: 2.0 * torch.randint(2, (n, 1, 1)) + 0.05 * torch.randn(n, 1, 1)  # noqa: E731
    flow = Flow(Geodesic(Torus(1)), Uniform(), PointField(Torus(1), 32, 2, waves=8))
    optimizer, objective = torch.optim.Adam(flow.parameters(), 1e-2), FlowMatching()
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        loss = objective(flow, data(256), Context.full(256))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = float(flow.log_prob(data(400), Context.full(400), steps=20).mean())
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.05**2)
    best = -entropy + 4 * math.sqrt(0.5 / 400)  # the mean of log p over 400 points, of variance 1/2
    assert -0.5 < found < best
