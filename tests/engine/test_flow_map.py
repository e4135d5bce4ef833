"""Flow maps: exact maps obey every law, wrong ones do not, learnt ones jump well, and what has no map is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from fm_science.flow import Flow
from fm_science.networks import EGNN, Guided, SetTransformer, TemperatureScaled, TimeEmbedding
from fm_science.networks.message_passing import MessagePassing
from fm_science.networks.tensor_field import TensorField
from fm_science.objectives import FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Semigroup, TimePairs
from fm_science.objectives.laws import Map
from fm_science.paths import Gaussian, Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VP
from fm_science.solvers import RK4, Churn, Euler, FlowMap, Heun
from fm_science.spaces import SO3, Categorical, Centered, Euclidean, Hyperbolic, Product, Sphere, Torus
from fm_science.spaces.rotations import rotation_exp
from fm_science.state import Context, expand_like, take, tree_map
from fm_science.testing import check_network
from tests import toy

LAWS = [Lagrangian(), MeanFlow(), Semigroup(), Semigroup(halves=False)]
RAGGED = Context(torch.tensor([[True] * 4, [True] * 3 + [False], [True, True, False, False]] * 10))
W, V = torch.tensor([0.4, -0.7, 0.5]), torch.tensor([-0.3, 0.9, 0.2])


class Exact:
    """The two-time network of a flow that is known: its jump X_{s,t} and its velocity."""

    two_times = True

    def __init__(self, space, jump, velocity):
        self.space, self.jump, self.velocity = space, jump, velocity

    def __call__(self, x, t, context):
        t_end = t if context.t_end is None else context.t_end
        space, gap = self.space.bind(context), t_end - t
        same = gap == 0
        mean = tree_map(lambda u: u / expand_like(torch.where(same, 1.0, gap), u), space.log(x, self.jump(x, t, t_end)))
        here = space.tangent(x, self.velocity(x, t))
        return tree_map(lambda u, b: torch.where(expand_like(same, u), b, u), mean, here)


def turned(axis, t, s):
    """The rotation by a rate 1 + t about an axis, from time t to s."""
    return rotation_exp(expand_like((s - t) + 0.5 * (s**2 - t**2), axis[None]) * axis.to(t))


def boost(angle):
    """A boost of the hyperbolic plane along its first axis."""
    c, h, zero, one = angle.cosh(), angle.sinh(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, h, zero, h, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))[:, None]


def matvec(m, x):
    return (m @ x[..., None])[..., 0]


def shear(x, rate):
    """(a, b) to (a, b + rate sin a): velocities of any size that never change."""
    return torch.stack([torch.zeros_like(x[..., 0]), expand_like(rate, x[..., 0]) * x[..., 0].sin()], -1)


EXACT = {
    "sphere": (
        Sphere(2), Uniform(),
        lambda x, t, s: matvec(turned(W, t, s)[:, None], x),
        lambda x, t: torch.linalg.cross(expand_like(1 + t, x) * W.to(x).expand_as(x), x),
    ),
    "rotations": (
        SO3(), Uniform(),
        lambda x, t, s: rotation_exp(expand_like(s - t, W[None]) * W.to(x))[:, None] @ x @ turned(V, t, s)[:, None],
        lambda x, t: matvec(x.mT, W.to(x).expand(x.shape[:-1])) + expand_like(1 + t, x[..., 0]) * V.to(x),
    ),
    "hyperbolic": (
        Hyperbolic(2), Wrapped(0.7),
        lambda x, t, s: matvec(boost(0.5 * (s**2 - t**2)), x),
        lambda x, t: expand_like(t, x) * torch.stack([x[..., 1], x[..., 0], torch.zeros_like(x[..., 0])], -1),
    ),
    "torus": (
        Torus(2), Uniform(),
        lambda x, t, s: Torus(2).exp(x, shear(x, 2 * (s - t))),
        lambda x, t: shear(x, 2 * torch.ones_like(t)),
    ),
    "centred": (
        Centered(3), Normal(),
        lambda x, t, s: expand_like(torch.exp(0.5 * (s**2 - t**2)), x) * x,
        lambda x, t: expand_like(t, x) * x,
    ),
}  # fmt: skip
NAMES = [*EXACT, "product"]


def exact(name):
    """A path, a prior and the exact network of a known flow."""
    if name != "product":
        space, prior, jump, velocity = EXACT[name]
        return Geodesic(space), prior, Exact(space, jump, velocity)
    space = Product(**{k: EXACT[k][0] for k in ("rotations", "centred")})
    prior = ProductPrior(**{k: EXACT[k][1] for k in space.parts})
    network = Exact(
        space,
        lambda x, t, s: {k: EXACT[k][2](x[k], t, s) for k in space.parts},
        lambda x, t: {k: EXACT[k][3](x[k], t) for k in space.parts},
    )
    return ProductPath(**{k: Geodesic(s) for k, s in space.parts.items()}), prior, network


@dataclass(frozen=True)
class Along(Geodesic):
    """Pairs whose path is the flow itself."""

    jump: object = None

    def sample(self, x0, x1, t):
        return self.space.project(self.jump(x0, torch.zeros_like(t), t))


def draw(path, prior, context):
    bound = path.bind(context, prior)
    return bound, prior.sample(path.space, context), prior.sample(path.space, context)


def sizes(path, x, residual):
    return path.space.inner(x, residual, residual).clamp_min(0).sqrt()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", NAMES)
def test_exact_maps_obey_every_law_on_every_space(name):
    path, prior, network = exact(name)
    if name == "product":
        path = ProductPath(**{k: Along(p.space, jump=EXACT[k][2]) for k, p in path.parts.items()})
    else:
        path = Along(path.space, jump=network.jump)
    bound, x0, x1 = draw(path, prior, RAGGED)
    s, t = TimePairs()(RAGGED.size)
    seen = Map.of(network, bound, RAGGED, x0, x1, s)
    wrong = replace(seen, raw=lambda x, s, t: tree_map(lambda u: expand_like(1 + t - s, u) * u, seen.raw(x, s, t)))
    for law in LAWS:
        x, residual = law(seen, s, t)
        assert float(sizes(bound, x, residual).max()) < 1e-10, law
        assert float(sizes(bound, *law(wrong, s, t)).mean()) > 1e-3, law


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", NAMES)
def test_one_jump_is_the_whole_walk(name):
    path, prior, network = exact(name)
    flow = Flow(path, prior, network)
    x = flow.noise(RAGGED)
    few = RAGGED.take(torch.arange(6))
    x, space = take(x, torch.arange(6)), path.space.bind(few)
    far = flow.transport(x, few, RK4(), 40)
    for steps in (1, 3):
        near = flow.transport(x, few, FlowMap(), steps)
        assert float(space.distance(near, far).max()) < 1e-5  # the error of the walk: a few times 40^-4
        assert float(space.distance(near, space.project(near)).max()) < 1e-12


def gaussian(mean=2.0, std=0.5):
    """The flow map of independent pairs from N(0, 1) to N(mean, std²): t mean + c_t / c_s (x - s mean) with
    c_t² = (1 - t)² + (t std)²."""

    def spread(t):
        return ((1 - t) ** 2 + (t * std) ** 2).sqrt()

    def jump(x, s, t):
        return expand_like(t * mean, x) + expand_like(spread(t) / spread(s), x) * (x - expand_like(s * mean, x))

    def velocity(x, t):
        return mean + expand_like((t * std**2 - (1 - t)) / spread(t) ** 2, x) * (x - expand_like(t * mean, x))

    return Exact(Euclidean(1), jump, velocity)


@pytest.mark.usefixtures("double")
def test_gaussian_to_gaussian_with_independent_pairs():
    n = 40_000
    context = Context.full(n)
    flow = Flow(Geodesic(Euclidean(1)), Normal(), gaussian())
    x1 = 2 + 0.5 * torch.randn(n, 1, 1)
    for law in (Lagrangian(), Semigroup(), Semigroup(halves=False)):
        losses = FlowMapMatching(law=law)(flow, x1, context)
        assert set(losses) == {"loss", "map"}
        assert float(losses["map"].max()) < 1e-20
    # single pairs are noisy: their residual is zero in the mean at each point, here against 1 and x
    bound = flow.path.bind(context, flow.prior)
    s, t = torch.full((n,), 0.3), torch.full((n,), 0.9)
    seen = Map.of(flow.network, bound, context, torch.randn(n, 1, 1), x1, s)
    x, r = (v.flatten() for v in MeanFlow()(seen, s, t))
    for test in (torch.ones(n), x - x.mean(), (x - x.mean()) ** 2):
        assert abs(float((r * test).mean())) < 5 * float((r * test).std()) / math.sqrt(n)
    assert float(r.std()) > 0.1
    samples = flow.sample(context, FlowMap(), 1, seed=0)
    assert torch.allclose(samples, flow.sample(context, RK4(), 100, seed=0), atol=1e-6)


class Wild(nn.Module):
    """A two-time network without any meaning, for tangents of ambient shape or rotation vectors."""

    two_times = True

    def __init__(self, inputs, outputs):
        super().__init__()
        self.time = TimeEmbedding(8, 5.0, two_times=True)
        self.net = nn.Sequential(nn.Linear(inputs + 16, 32), nn.Tanh(), nn.Linear(32, outputs))

    def forward(self, x, t, context):
        time = self.time(t, context.t_end)[:, None].expand(-1, x.shape[1], -1)
        return self.net(torch.cat([x.flatten(2), time], -1))


WILD = [(Sphere(2), Uniform(), 3, 3), (SO3(), Uniform(), 9, 3), (Hyperbolic(2), Wrapped(0.5), 3, 3),
        (Torus(2), Uniform(), 2, 2), (Euclidean(2), Normal(), 2, 2)]  # fmt: skip


@dataclass(frozen=True)
class Leaving(Geodesic):
    """A path that passes x0 at time 1/2 with velocity x1."""

    def sample(self, x0, x1, t):
        return self.space.exp(x0, expand_like(t - 0.5, x1) * self.space.tangent(x0, x1))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("space", "prior", "inputs", "outputs"), WILD)
def test_mean_flow_is_linear_in_the_motion_of_a_pair_on_every_space(space, prior, inputs, outputs):
    context = Context.full(20)
    network, path = Wild(inputs, outputs), Leaving(space).bind(context)
    x, s, t = prior.sample(space, context), torch.full((20,), 0.5), torch.full((20,), 0.9)
    u, v = path.space.gaussian(x), path.space.gaussian(x)

    def residual(motion):
        return MeanFlow()(Map.of(network, path, context, x, motion, s), s, t)[1]

    mixed = residual(0.3 * u + 0.7 * v)
    assert torch.allclose(mixed, 0.3 * residual(u) + 0.7 * residual(v), atol=1e-12)
    # on the diagonal it is flow matching: v - x'
    here = MeanFlow()(Map.of(network, path, context, x, u, s), s, s)[1]
    expected = path.space.tangent(x, network(x, s, replace(context, t_end=s))) - path.space.tangent(x, u)
    assert torch.allclose(here, expected, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("space", "prior", "inputs", "outputs"), WILD)
def test_the_gradient_of_the_lagrangian_law_is_that_of_its_residual_with_the_target_held(space, prior, inputs, outputs):
    """Both derivatives of log at coinciding points are right: autograd agrees with central differences."""
    context = Context.full(6)
    network, path = Wild(inputs, outputs), Geodesic(space).bind(context)
    x0, x1 = prior.sample(space, context), prior.sample(space, context)
    s, t = torch.full((6,), 0.2), torch.full((6,), 0.8)
    seen = Map.of(network, path, context, x0, x1, s)
    weight = network.net[0].weight
    y0, residual = Lagrangian()(seen, s, t)
    gradient = torch.autograd.grad(path.space.inner(y0, residual, residual).sum(), weight)[0]
    with torch.no_grad():
        b, x = seen.velocity(y0, t, t), seen.at(s)
        direction, step = torch.randn_like(weight), 1e-4

        def loss(size):
            weight.add_(size * direction)
            ahead, behind = (path.space.log(y0, seen(x, s, t + h)) for h in (step, -step))
            weight.sub_(size * direction)
            r = (ahead - behind) / (2 * step) - b
            return path.space.inner(y0, r, r).sum()

        numeric = (loss(step) - loss(-step)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-5)


def test_the_network_is_its_own_teacher_and_the_teacher_gets_no_gradient():
    class Line(nn.Module):
        two_times = True

        def __init__(self):
            super().__init__()
            self.p, self.q = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-0.3))

        def forward(self, x, t, context):
            return (self.p + self.q * expand_like(context.t_end - t, x)) * x

    context, x, net = Context.full(5), torch.randn(5, 1, 1), Line()
    s, t = torch.full((5,), 0.25), torch.full((5,), 0.75)
    seen = Map.of(net, Geodesic(Euclidean(1)).bind(context), context, x, x, s)
    _, residual = Lagrangian()(seen, s, t)
    p, q = torch.autograd.grad(residual.square().sum(), [net.p, net.q])
    gap = 0.5  # d/dt X = x (p + 2 q gap), and the held target is p X = p x (1 + gap (p + q gap))
    r = x * (0.5 - 0.6 * gap - 0.5 * (1 + gap * (0.5 - 0.3 * gap)))
    assert torch.allclose(residual, r, atol=1e-6)
    assert torch.allclose(p, (2 * r * x).sum(), atol=1e-5)
    assert torch.allclose(q, (4 * r * x * gap).sum(), atol=1e-5)


def test_spans_are_ordered_and_may_go_all_the_way():
    torch.manual_seed(0)
    s, t = TimePairs(whole=0.25)(4000)
    assert bool((s <= t).all())
    assert bool((s >= 0).all() and (t <= 1).all())
    whole = (s == 0) & (t == 1)
    assert abs(float(whole.float().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert abs(float((t - s)[~whole].mean()) - 1 / 3) < 0.03


def test_a_share_of_the_batch_gives_the_same_mean_and_other_samples_nothing():
    flow = Flow(Geodesic(Euclidean(2)), Normal(), toy.MLP(8, two_times=True))
    torch.manual_seed(0)
    odd = torch.arange(4000) % 2
    x1, context = torch.randn(4000, 1, 2), Context.full(4000, weight=4.0 * odd)
    whole = FlowMapMatching(share=1.0)(flow, x1, context)["map"].detach()
    part = FlowMapMatching(share=0.25)(flow, x1, context)["map"].detach()
    assert part.shape == whole.shape
    taught = int((part != 0).sum())
    assert abs(taught - 500) < 5 * math.sqrt(500 / 2)  # a thousand samples, half of which weigh nothing
    assert not part[odd == 0].any(), "a loss stays with its sample"
    assert abs(int((part[:2000] != 0).sum()) - taught / 2) < 5 * math.sqrt(taught / 4), "anywhere in the batch"
    assert float(part.mean()) == pytest.approx(float(whole.mean()), rel=0.2)
    halved = FlowMapMatching(weight=0.5)(flow, x1, Context.full(4000))["map"].detach()
    assert float(halved.mean()) == pytest.approx(float(whole.mean()) / 4, rel=0.2)


def mixture(n):
    """Four small clusters on a circle of radius two."""
    angle = 0.5 * math.pi * torch.randint(4, (n,))
    return (2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.2 * torch.randn(n, 2))[:, None]


def spread_from(data, samples):
    """The energy distance, squared."""
    a, b = data[:, 0], samples[:, 0]
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


@pytest.mark.parametrize("law", [Lagrangian(), MeanFlow(), Semigroup()])
def test_a_learnt_map_jumps_where_a_velocity_cannot(law):
    torch.manual_seed(0)
    flow = Flow(Geodesic(Euclidean(2)), Normal(), toy.MLP(64, two_times=True))
    objective, optimizer = FlowMapMatching(law=law), torch.optim.Adam(flow.parameters(), 3e-3)
    for _ in range(400):
        loss = sum(v.mean() for v in objective(flow, mixture(128), Context.full(128)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context, data = Context.full(1000), mixture(1000)
    jump, step, walk = (spread_from(data, flow.sample(context, solver, n, seed=1))
                        for solver, n in ((FlowMap(), 1), (Euler(), 1), (Heun(), 20)))  # fmt: skip
    assert jump < 0.4 * step, "far nearer than a step along the velocity, after four hundred steps of training"
    assert walk < 0.1 * step, "the diagonal is an ordinary velocity field"


@pytest.mark.usefixtures("double")
def test_a_map_beside_classes_moves_the_smooth_part_and_jumps_by_the_posterior():
    mean = torch.tensor([-1.0, 2.0])

    class Both:
        """The class does not depend on the point, the point moves to the mean of its class: x' = mean_c."""

        two_times = True

        def __call__(self, x, t, context):
            logits = torch.tensor([0.3, 0.7]).log().expand(len(t), 1, 2)
            return {"x": (x["c"] @ mean)[..., None], "c": logits}

    path = ProductPath(x=Geodesic(Euclidean(1)), c=Geodesic(Categorical(2), predicts=Posterior()))
    prior = ProductPrior(x=Normal(), c=Classes((0.5, 0.5)))
    flow, context = Flow(path, prior, Both()), Context.full(20_000)
    x = flow.sample(context, FlowMap(), 8, seed=0)
    share = float(x["c"][..., 1].mean())
    assert abs(share - 0.7) < 5 * math.sqrt(0.21 / 20_000)
    # the class at time t is 1 with probability 0.5 + 0.2 t: its mean over the ends of the steps, since it goes first
    expected = -1 + 3 * (0.5 + 0.2 * 4.5 / 8)
    assert abs(float(x["x"].mean()) - expected) < 5 * float(x["x"].std()) / math.sqrt(20_000)
    x1 = {"x": torch.randn(64, 1, 1), "c": torch.eye(2)[torch.randint(2, (64, 1))]}
    losses = FlowMapMatching()(flow, x1, Context.full(64))
    assert set(losses) == {"x", "c", "map_x"}
    assert float(losses["map_x"].max()) < 1e-20, "with the class held, this is the exact map"


def test_what_has_no_map_is_refused():
    context, x1 = Context.full(4), torch.randn(4, 1, 2)
    plain = Flow(Geodesic(Euclidean(2)), Normal(), toy.MLP(8))
    known = Flow(Geodesic(Euclidean(2)), Normal(), toy.MLP(8, two_times=True))
    with pytest.raises(TypeError, match="two_times = True"):
        plain.sample(context, FlowMap(), 1)
    with pytest.raises(TypeError, match="two_times = True"):
        FlowMapMatching()(plain, x1, context)
    with pytest.raises(TypeError, match="two_times = True"):
        Flow(known.path, Normal(), Guided(known.network, 2.0)).sample(context, FlowMap(), 1)
    with pytest.raises(TypeError, match="to go back"):
        known.transport(x1, context, FlowMap(), 1, reverse=True)
    with pytest.raises(TypeError, match="a density follows"):
        known.log_prob(x1, context, FlowMap(), 2)
    with pytest.raises(TypeError, match="self_condition=0"):
        FlowMapMatching(FlowMatching(self_condition=0.5))(known, x1, context)
    for path in (Geodesic(Euclidean(2), predicts=Endpoint()), Gaussian(Euclidean(2), VP())):
        far = Flow(path, Normal(), toy.MLP(8, two_times=True))
        with pytest.raises(TypeError, match="until t = 1"):
            FlowMapMatching()(far, x1, context)
        with pytest.raises(TypeError, match="until t = 1"):
            far.sample(context, FlowMap(), 2)
    network = TemperatureScaled(lambda x, t, c: x, 0.5)
    network.network.two_times = True
    classes = Flow(Geodesic(Categorical(2), predicts=Posterior()), Classes((0.5, 0.5)), network)
    with pytest.raises(TypeError, match="no flow map"):
        FlowMapMatching()(classes, torch.eye(2)[[0, 1, 0, 1], None], context)
    with pytest.raises(TypeError, match="smooth space"):
        classes.sample(context, FlowMap(), 1)


@pytest.mark.usefixtures("double")
def test_a_two_time_network_is_also_a_velocity_and_bears_renoising():
    flow, context = Flow(Geodesic(Euclidean(1)), Normal(), gaussian()), Context.full(4000)
    x = 2 + 0.5 * torch.randn(100, 1, 1)
    truth = torch.distributions.Normal(2.0, 0.5).log_prob(x)[:, 0, 0]
    assert torch.allclose(flow.log_prob(x, Context.full(100), steps=50), truth, atol=1e-6)
    samples = flow.sample(context, Churn(FlowMap(), 1.0), 4, seed=0)
    assert abs(float(samples.mean()) - 2) < 5 * 0.5 / math.sqrt(4000)
    assert abs(float(samples.std()) - 0.5) < 5 * 0.5 / math.sqrt(8000)
    with pytest.raises(TypeError, match="two_times = True"):
        Flow(flow.path, Normal(), lambda x, t, c: x).sample(context, Churn(FlowMap()), 4)


@pytest.mark.parametrize("kind", [EGNN, MessagePassing, TensorField, SetTransformer])
def test_networks_of_the_engine_read_the_second_time(kind):
    context = Context(torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    torch.manual_seed(0)
    network, one = kind(8, 2, two_times=True), kind(8, 2)
    check_network(network, Geodesic(Centered(3)), Normal(), context)
    assert not any(name.endswith("gaps") for name in network.state_dict())
    x, t = torch.randn(2, 5, 3), torch.tensor([0.1, 0.6])
    later = replace(context, t_end=t + 0.3)
    assert not torch.allclose(network(x, t, context), network(x, t, later))
    assert torch.equal(one(x, t, context), one(x, t, later))
    assert later.take(torch.tensor([1])).t_end.tolist() == [pytest.approx(0.9)]
