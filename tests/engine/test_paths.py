"""Paths and predictions: the laws of the shipped kit, exact conversions, refusals before the first step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_science.flow import Flow, Sampler
from fm_science.paths import Gaussian, Geodesic, Interpolant, ProductPath, brownian
from fm_science.predictions import Endpoint, Noise, Posterior, Score, Velocity
from fm_science.priors import Classes, Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import VE, VP, Cosine, Exponential, Linear, LipmanOT, Polynomial, SubVP, Trigonometric
from fm_science.solvers import Euler, Heun
from fm_science.spaces import SO3, Categorical, Centered, Euclidean, Hyperbolic, Sphere, Torus
from fm_science.state import Context, expand_like
from fm_science.testing import check_path

pytestmark = pytest.mark.usefixtures("double")
RAGGED = Context(torch.arange(4) < torch.tensor([2, 4, 3])[:, None])
SMOOTH = [
    (Euclidean(3), Normal()),
    (Centered(3), Normal()),
    (Torus(2), Uniform()),
    (Sphere(2), Uniform()),
    (SO3(), Uniform()),
    (Hyperbolic(2), Wrapped(0.7)),
]
GAUSSIANS = [Linear(), Trigonometric(), Polynomial(2.0), Cosine(), VP(), SubVP(), LipmanOT(0.01), VE(0.05, 150.0)]


@pytest.mark.parametrize("schedule", [Linear(), Polynomial(2.0), Exponential(5.0)], ids=str)
@pytest.mark.parametrize(("space", "prior"), SMOOTH, ids=lambda v: repr(v))
def test_geodesics_obey_the_laws_of_paths(space, prior, schedule):
    check_path(Geodesic(space, schedule, Endpoint()), prior, seeds=(0,))


@pytest.mark.parametrize("schedule", GAUSSIANS, ids=str)
@pytest.mark.parametrize("space", [Euclidean(2), Centered(3)], ids=str)
def test_gaussian_paths_obey_the_laws_of_paths(space, schedule):
    check_path(Gaussian(space, schedule, Endpoint()), Normal(1.3), seeds=(0,), tolerance=1e-5)


@pytest.mark.parametrize("on", ["nodes", "edges", "graph"])
def test_mixture_paths_obey_the_laws_of_paths(on):
    check_path(Geodesic(Categorical(4, on), Polynomial(2.0), Posterior()), Classes([0.1, 0.2, 0.3, 0.4]), seeds=(0,))


@pytest.mark.parametrize("schedule", GAUSSIANS, ids=str)
def test_steps_land_exactly_and_are_never_singular(schedule):
    path = Gaussian(Euclidean(2), schedule, Endpoint()).bind(Context.full(5), Normal())
    x, x1 = torch.randn(5, 1, 2), torch.randn(5, 1, 2)
    one = torch.ones(5)
    for t in (0.0, 0.3, 1 - 1e-9):
        y = path.step_to_endpoint(x, x1, t * one, one)
        alpha, sigma = path.schedule(one)
        before = path.endpoint_to_noise(x, x1, t * one)
        assert torch.allclose(y, expand_like(alpha, x) * x1 + expand_like(sigma, x) * before, atol=1e-12)
        assert y.isfinite().all()


@pytest.mark.parametrize("schedule", [Linear(), Polynomial(3.0), Exponential(10.0), Trigonometric()], ids=str)
def test_the_fraction_of_a_geodesic_step_composes_and_ends_at_one(schedule):
    path = Geodesic(Sphere(2), schedule, Endpoint()).bind(Context.full(4))
    x, x1 = Uniform().sample(Sphere(2), Context.full(4)), Uniform().sample(Sphere(2), Context.full(4))
    t, s, one = torch.full((4,), 0.2), torch.full((4,), 0.7), torch.ones(4)
    halfway = path.step_to_endpoint(x, x1, t, s)
    assert torch.allclose(path.step_to_endpoint(halfway, x1, s, one), x1, atol=1e-12)
    direct = path.step_to_endpoint(path.step_to_endpoint(x, x1, t, 0.5 * (t + s)), x1, 0.5 * (t + s), s)
    assert torch.allclose(direct, halfway, atol=1e-12)


@pytest.mark.parametrize("schedule", [VP(), SubVP(), LipmanOT(0.01), VE(0.05, 150.0)], ids=str)
def test_a_step_held_fixed_is_the_same_for_every_prediction(schedule):
    """DDIM, whatever the network predicts."""
    context = Context.full(6)
    x0, x1, t, s = torch.randn(6, 1, 2), torch.randn(6, 1, 2), torch.full((6,), 0.4), torch.full((6,), 0.6)
    path = Gaussian(Euclidean(2), schedule, Endpoint()).bind(context, Normal())
    x, exact = path.sample(x0, x1, t), path.sample(x0, x1, s)
    sigma = expand_like(schedule(t)[1], x)
    raws = {Velocity(): path.endpoint_to_velocity(x, x1, t), Endpoint(): x1, Noise(): x0, Score(): -x0 / sigma}
    for prediction, raw in raws.items():
        assert torch.allclose(replace(path, predicts=prediction).step(raw, x, t, s), exact, atol=1e-9)


def test_losses_of_all_predictions_vanish_at_the_truth_and_weigh_a_degree_of_freedom():
    path = Gaussian(Centered(3), Linear(), Score()).bind(RAGGED, Normal(2.0))
    prior = Normal(2.0)
    x0, x1 = prior.sample(Centered(3), RAGGED), prior.sample(Centered(3), RAGGED)
    t = torch.full((3,), 0.3)
    x = path.sample(x0, x1, t)
    score = -x0 / (0.7 * 4.0)
    assert path.loss(score, x0, x1, x, t).abs().max() < 1e-12
    wrong = path.space.tangent(x, torch.randn_like(x))
    off = path.loss(score + wrong / (0.7 * 2.0), x0, x1, x, t)
    assert torch.allclose(off, wrong.square().sum((1, 2)) / torch.tensor([3.0, 9.0, 6.0]))


def test_classes_are_not_averaged_into_velocities():
    with pytest.raises(TypeError, match="Posterior"):
        Geodesic(Categorical(5))
    with pytest.raises(TypeError, match=r"Velocity\(\) or Endpoint"):
        Geodesic(Sphere(2), predicts=Posterior())


@pytest.mark.parametrize("space", [Sphere(2), SO3(), Torus(1)], ids=str)
def test_noise_is_added_on_linear_spaces_only(space):
    with pytest.raises(TypeError, match="linear space"):
        Gaussian(space, Linear())
    with pytest.raises(TypeError, match="linear space"):
        Interpolant(space)
    path = Geodesic(space, predicts=Noise()).bind(Context.full(2), Uniform())
    x = Uniform().sample(space, Context.full(2))
    with pytest.raises(TypeError, match="linear spaces"):
        path.endpoint(path.space.log(x, x), x, torch.full((2,), 0.5))


@pytest.mark.parametrize("schedule", [VP(), VE(), LipmanOT(0.1)], ids=str)
def test_geodesics_must_go_all_the_way(schedule):
    if isinstance(schedule, LipmanOT):
        Geodesic(Euclidean(2), schedule)  # its alpha does run from 0 to 1
        return
    with pytest.raises(ValueError, match="all the way"):
        Geodesic(Euclidean(2), schedule)


def test_exploding_variance_warns_that_the_data_stay_visible_and_scales_its_prior():
    with pytest.warns(UserWarning, match="centre the data"):
        path = Gaussian(Euclidean(2), VE(0.01, 5.0), Endpoint())
    assert path.source(Normal(2.0)).std == pytest.approx(10.0)
    assert Gaussian(Euclidean(2), Linear()).source(Normal(2.0)) == Normal(2.0)


@pytest.mark.parametrize("prediction", [Noise(), Score()])
def test_noise_says_nothing_where_there_is_no_signal(prediction):
    calls = []

    def network(x, t, context):
        calls.append(float(t[0]))
        return torch.zeros_like(x)

    flow = Flow(Gaussian(Euclidean(2), Linear(), prediction), Normal(), network)
    with pytest.raises(ValueError, match="says nothing"):
        flow.sample(Context.full(2), Euler(), 4)
    assert calls == [], "the refusal comes before the first step"
    flow.sample(Context.full(2), Euler(), torch.tensor([0.01, 0.5, 1.0]))
    Flow(Gaussian(Euclidean(2), VP(), prediction), Normal(), network).sample(Context.full(2), Euler(), 4)


def test_another_schedule_at_sampling_is_refused_where_it_would_change_the_meaning():
    for prediction in (Velocity(), Noise()):
        path = Gaussian(Euclidean(2), Linear(), prediction)
        with pytest.raises(TypeError, match="Rescheduled"):
            Flow(path, Normal(), lambda x, t, c: x, Sampler(path=replace(path, schedule=Trigonometric())))
    path = Geodesic(SO3(), Linear(), Endpoint())
    Flow(path, Uniform(), lambda x, t, c: x, Sampler(path=replace(path, schedule=Exponential(10.0))))


def test_scores_need_a_gaussian_prior_that_is_known():
    path = Gaussian(Euclidean(2), Linear(), Endpoint())
    x, t = torch.randn(3, 1, 2), torch.full((3,), 0.5)
    with pytest.raises(TypeError, match="Gaussian prior"):
        path.bind(Context.full(3)).score(x, x, t)
    assert path.bind(Context.full(3), Normal()).has_score
    assert not Geodesic(Sphere(2)).bind(Context.full(3), Uniform()).has_score


@pytest.mark.parametrize("schedule", [Linear(), Trigonometric(), Polynomial(2.0), Cosine()], ids=str)
@pytest.mark.parametrize("make", [Geodesic, Gaussian])
def test_a_network_that_tells_the_score_is_taken_at_its_word(make, schedule):
    path = make(Euclidean(2), schedule, Score()).bind(Context.full(3), Normal(2.0))
    raw, x, t = torch.randn(3, 1, 2), torch.randn(3, 1, 2), torch.tensor([0.2, 0.5, 0.8])
    assert torch.allclose(path.score(raw, x, t), raw)


@pytest.mark.parametrize("mask", [-1, 3])
def test_a_mask_class_must_be_one_of_the_classes(mask):
    with pytest.raises(ValueError, match="one of 0 to 2"):
        Geodesic(Categorical(3), predicts=Posterior(mask=mask))


# --- classes


def masked(on="nodes"):
    context = Context(torch.arange(4) < torch.tensor([4, 3])[:, None])
    return Geodesic(Categorical(3, on), Polynomial(2.0), Posterior(mask=2)).bind(context, Classes([0, 0, 1.0]))


def test_data_are_never_masked_and_arrived_sites_stay():
    path = masked()
    x = torch.eye(3)[torch.tensor([[2, 0, 1, 2], [0, 2, 2, 0]])]
    p = path.endpoint(torch.randn(2, 4, 3), x, torch.full((2,), 0.5))
    assert (p[..., 2][x[..., 2] > 0] == 0).all()
    assert torch.allclose(p.sum(-1), torch.ones(2, 4))
    arrived = x[..., 2] == 0
    assert torch.equal(p[arrived], x[arrived])
    bare = Geodesic(Categorical(3), predicts=Posterior(mask=2)).bind(path.context)  # the same without the prior
    assert torch.equal(bare.endpoint(torch.randn(2, 4, 3), x, torch.ones(2))[arrived], x[arrived])


def test_noise_of_all_classes_lets_every_site_change():
    path = Geodesic(Categorical(3), predicts=Posterior()).bind(Context.full(2, 2), Classes([0.2, 0.3, 0.5]))
    raw = torch.randn(2, 2, 3)
    x = torch.eye(3)[torch.tensor([[0, 1], [2, 0]])]
    assert torch.equal(path.endpoint(raw, x, torch.ones(2)), raw.log_softmax(-1).exp())


def test_cross_entropy_is_the_mean_over_masked_sites():
    path = masked()
    x1 = torch.eye(3)[torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]])]
    x = torch.eye(3)[torch.tensor([[2, 0, 2, 1], [2, 2, 1, 0]])]
    raw = torch.randn(2, 4, 3, requires_grad=True)
    loss = path.loss(raw, x, x1, x, torch.full((2,), 0.5))
    log = raw[..., :2].log_softmax(-1)
    exact = torch.stack([-(log[0, 0, 0] + log[0, 2, 1]) / 2, -(log[1, 0, 0] + log[1, 1, 1]) / 2])
    assert torch.allclose(loss, exact)
    (gradient,) = torch.autograd.grad(loss.sum(), raw)
    assert gradient.isfinite().all()
    assert (gradient[..., 2] == 0).all()
    assert (gradient[x[..., 2] == 0] == 0).all()


def test_edges_are_symmetric_and_each_pair_counts_once():
    path = masked("edges")
    one = path.space.project(torch.randn(2, 4, 4, 3)[..., :2].softmax(-1) @ torch.eye(2, 3))
    x0 = path.prior.sample(Categorical(3, "edges"), path.context)
    raw = torch.randn(2, 4, 4, 3)
    t = torch.full((2,), 0.5)
    loss = path.loss(raw, x0, one, x0, t)
    swapped = path.loss(raw.transpose(1, 2), x0, one, x0, t)
    assert torch.allclose(loss, swapped)
    log = (0.5 * (raw + raw.transpose(1, 2)))[..., :2].log_softmax(-1)
    pairs = [(i, j) for i in range(3) for j in range(i)]  # the real pairs of the second graph
    exact = -sum((one[1, i, j, :2] * log[1, i, j]).sum() for i, j in pairs) / len(pairs)
    assert loss[1] == pytest.approx(float(exact))
    y = path.step(raw, x0, t, torch.ones(2))
    assert torch.equal(y, y.transpose(1, 2))
    assert (y[0].diagonal()[2] == 0).all(), "no mask is left"


def test_marginals_of_a_product_of_classes_are_exact():
    """Every site holds its datum with probability k(t) of its own clock, independently."""
    n = 40_000
    path = ProductPath(
        a=Geodesic(Categorical(3), Linear(), Posterior()), b=Geodesic(Categorical(2), Polynomial(2.0), Posterior())
    )
    prior = ProductPrior(a=Classes([0.2, 0.3, 0.5]), b=Classes([0.6, 0.4]))
    context = Context.full(n)
    bound = path.bind(context, prior)
    x1 = {"a": torch.eye(3)[0].expand(n, 1, 3), "b": torch.eye(2)[1].expand(n, 1, 2)}
    x = bound.sample(prior.sample(path.space, context), x1, torch.full((n,), 0.6))
    a, b = 0.4 * torch.tensor([0.2, 0.3, 0.5]) + torch.tensor([0.6, 0, 0]), torch.tensor([0.6 * 0.64, 1 - 0.6 * 0.64])
    joint = torch.einsum("nk,nl->kl", x["a"][:, 0], x["b"][:, 0]) / n
    assert (joint - a[:, None] * b).abs().max() < 4.5 * 0.5 / n**0.5


# --- interpolants


class Bump(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.size = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, t):
        return self.size * t * (1 - t)


def test_an_interpolant_has_its_law_and_its_loss_vanishes_at_the_truth():
    n = 20_000
    path = Interpolant(Euclidean(1), gamma=brownian(0.8)).bind(Context.full(n))
    x0, x1, t = torch.full((n, 1, 1), -1.0), torch.full((n, 1, 1), 2.0), torch.full((n,), 0.3)
    x = path.sample(x0, x1, t)
    spread = 0.8 * (0.3 * 0.7) ** 0.5
    assert float(x.mean()) == pytest.approx(-0.1, abs=4.5 * spread / n**0.5)
    assert float(x.std()) == pytest.approx(spread, abs=4.5 * spread / (2 * n) ** 0.5)
    z = (x + 0.1) / spread
    raw = {"velocity": 3 + 0.64 * 0.4 / (2 * spread) * z, "noise": z}
    assert all(v.abs().max() < 1e-12 for v in path.loss(raw, x0, x1, x, t).values())
    assert (path.endpoint(raw, x, t) - 2).abs().max() < 1e-12
    assert torch.allclose(path.score(raw, x, t), -z / spread)


def test_a_learned_spread_is_a_parameter_of_the_flow_and_gets_a_gradient():
    flow = Flow(Interpolant(Euclidean(1), gamma=Bump()), Normal(), lambda x, t, c: {"velocity": x, "noise": x})
    assert [tuple(p.shape) for p in flow.parameters()] == [()]
    x0, x1, t = torch.randn(4, 1, 1), torch.randn(4, 1, 1), torch.full((4,), 0.4)
    path = flow.path.bind(Context.full(4))
    x = path.sample(x0, x1, t)
    sum(v.sum() for v in path.loss({"velocity": x, "noise": x}, x0, x1, x, t).values()).backward()
    assert flow.learned[0].size.grad.abs() > 0


def test_the_ends_of_an_interpolant_are_the_ends_even_where_its_noise_starts():
    path = Interpolant(Euclidean(2)).bind(Context.full(3))
    x0, x1 = torch.randn(3, 1, 2), torch.randn(3, 1, 2)
    assert torch.equal(path.sample(x0, x1, torch.zeros(3)), x0)
    loss = path.loss({"velocity": x0, "noise": x0}, x0, x1, x0, torch.zeros(3))
    assert all(v.isfinite().all() for v in loss.values())


def test_heun_needs_no_score_but_an_interpolant_without_noise_head_has_none():
    path = Interpolant(Euclidean(2), predicts=(Velocity(),))
    flow = Flow(path, Normal(), lambda x, t, c: {"velocity": -x})
    flow.sample(Context.full(2), Heun(), 3)
    with pytest.raises(TypeError, match="predicts only the velocity"):
        path.bind(Context.full(2)).score({"velocity": torch.zeros(2, 1, 2)}, torch.zeros(2, 1, 2), torch.ones(2))


def test_products_nest_where_their_parts_all_flow_or_all_jump():
    kinds, lines = Geodesic(Categorical(3), predicts=Posterior()), Geodesic(Euclidean(1))
    path = ProductPath(flows=ProductPath(a=lines, b=lines), jumps=ProductPath(a=kinds, b=kinds))
    prior = ProductPrior(
        flows=ProductPrior(a=Normal(), b=Normal()), jumps=ProductPrior(a=Classes([0.5, 0.5, 0]), b=Classes([0, 0, 1]))
    )
    flow = Flow(path, prior, lambda x, t, c: x)
    sample = flow.sample(Context.full(4), Heun(), 5)
    assert torch.equal(sample["jumps"]["b"].sum(-1), torch.ones(4, 1))
    with pytest.raises(TypeError, match=r"within the part 'c' .* ProductPath\(c_x=..., c_kind=...\)"):
        ProductPath(c=ProductPath(x=lines, kind=kinds))
