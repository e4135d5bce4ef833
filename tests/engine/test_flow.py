"""Flows with networks known in closed form: sampling, seeds, reversal, self-conditioning, saving."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fm_science.couplings import Independent, PartCoupling, Transport
from fm_science.errors import UserError
from fm_science.flow import Flow, Sampler
from fm_science.objectives import FlowMatching, InverseSquare
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint, Velocity
from fm_science.priors import Normal, ProductPrior, Uniform, Wrapped
from fm_science.schedules import Exponential, Linear, Polynomial, Trigonometric
from fm_science.solvers import RK4, Euler, Heun, Langevin
from fm_science.spaces import SO3, Centered, Euclidean, Hyperbolic, Sphere, frames
from fm_science.state import Context, expand_like, leaves
from tests import toy

RAGGED = Context(torch.arange(6) < torch.tensor([3, 6])[:, None])
MEAN, STD = 1.0, 0.5


def posterior_mean(x, t, context):
    """E[x1 | x_t] of the straight path from N(0, 1) to N(MEAN, STD²)."""
    a, s = expand_like(t, x), expand_like(1 - t, x)
    return MEAN + a * STD**2 / (a * a * STD**2 + s * s) * (x - a * MEAN)


def frames_flow(target, schedule, solver):
    path = ProductPath(
        translations=Geodesic(Centered(), predicts=Endpoint()), rotations=Geodesic(SO3(), predicts=Endpoint())
    )
    walk = path.replaced(rotations=Geodesic(SO3(), schedule, Endpoint()))
    prior = ProductPrior(translations=Normal(), rotations=Uniform())
    return Flow(path, prior, lambda x, t, c: target, Sampler(solver, 10, walk))


@pytest.mark.parametrize("solver", [Euler(), Heun()])
@pytest.mark.parametrize("schedule", [Linear(), Exponential(10.0), Polynomial(2.0), Trigonometric()])
def test_sampling_lands_on_a_known_endpoint_whatever_the_clock(solver, schedule):
    prior = ProductPrior(translations=Normal(), rotations=Uniform())
    target = prior.sample(frames(), RAGGED)
    sample = frames_flow(target, schedule, solver).sample(RAGGED, seed=0)
    for x, y in zip(leaves(sample), leaves(target), strict=True):
        assert (x - y).abs().max() < 2e-6


def test_heun_carries_a_gaussian_to_a_gaussian_by_the_exact_map():
    torch.manual_seed(0)
    flow = Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), posterior_mean)
    x0 = torch.randn(64, 1, 2, dtype=torch.float64)
    context = Context.full(64)
    exact = MEAN + STD * x0
    errors = [(flow.transport(x0, context, Heun(), n) - exact).abs().max() for n in (50, 100)]
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] > 3  # second order


def test_the_same_seed_gives_the_same_draw_and_leaves_the_global_generator_alone():
    flow = toy.build().flow()
    context = flow.domain.request(5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b = flow.sample(context, seed=1), flow.sample(context, seed=1)
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(a, flow.sample(context, seed=2))


class Remembering(torch.nn.Module):
    self_conditioned = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, t, context):
        self.seen.append((float(t[0]), None if context.previous is None else float(context.previous[0, 0, 0])))
        return torch.full_like(x, float(t[0]))


@pytest.mark.parametrize(("solver", "evaluations"), [(Euler(), 4), (Heun(), 7)])
def test_a_self_conditioned_network_sees_the_first_prediction_of_the_step_before(solver, evaluations):
    network = Remembering()
    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), network)
    flow.sample(Context.full(2), solver, 4, seed=0)
    assert len(network.seen) == evaluations  # the last step of Heun lands with one evaluation
    starts = {0.0: None, 0.25: 0.0, 0.5: 0.25, 0.75: 0.5}
    assert all(previous == starts[t] for t, previous in network.seen[:: 1 if evaluations == 4 else 2])
    assert network.seen[-1] == (0.75, 0.5)


def test_weights_that_do_not_fit_or_do_not_exist_are_refused_in_one_line(tmp_path):
    flow = toy.build().flow()
    flow.save(tmp_path / "weights.pt")
    toy.build().flow().load(tmp_path / "weights.pt")
    with pytest.raises(UserError, match="do not fit"):
        toy.build(network={"width": 8}).flow().load(tmp_path / "weights.pt")
    with pytest.raises(UserError, match="no weights"):
        flow.load(tmp_path / "nothing.pt")


@pytest.mark.parametrize("steps", [0, torch.tensor([0.0, 0.5, 0.4]), torch.tensor([0.0])])
def test_grids_of_times_must_increase(steps):
    with pytest.raises(ValueError, match="steps"):
        toy.build().flow().sample(Context.full(1), steps=steps)


def test_the_loss_of_a_perfect_network_is_zero_by_part_and_padding_does_not_count():
    prior = ProductPrior(translations=Normal(), rotations=Uniform())
    torch.manual_seed(0)
    x1 = prior.sample(frames(), RAGGED)
    flow = frames_flow(x1, Linear(), Euler())
    losses = FlowMatching(weight=InverseSquare(), self_condition=0.5)(flow, x1, RAGGED)
    assert set(losses) == {"translations", "rotations"}
    assert all(v.shape == (2,) and v.max() < 1e-9 for v in losses.values())


def test_parts_and_extras_shape_the_loss():
    x1 = torch.ones(3, 1, 2)
    flow = Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), lambda x, t, c: torch.zeros_like(x))
    plain = FlowMatching()(flow, x1, Context.full(3))["loss"]
    assert torch.allclose(plain, torch.ones(3))  # mean square of (0 - 1)
    extra = FlowMatching(
        parts={"loss": 3.0},
        auxiliary_losses={"far": lambda x1hat, x1, t, c: (x1hat - x1).abs().amax((1, 2))},
    )(flow, x1, Context.full(3))
    assert torch.allclose(extra["loss"], torch.full((3,), 3.0))
    assert torch.allclose(extra["far"], torch.ones(3))


@pytest.mark.parametrize("end", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("network", [lambda x, t, c: 0.3 * x, posterior_mean], ids=["regular", "singular"])
def test_there_and_back_returns_wherever_the_grid_ends(network, end):
    predicts = Endpoint() if network is posterior_mean else Velocity()
    flow = Flow(Geodesic(Euclidean(2), predicts=predicts), Normal(), network)
    x, context = torch.randn(8, 1, 2, dtype=torch.float64), Context.full(8)
    grid = torch.linspace(0, end, 41, dtype=torch.float64)
    there = flow.transport(x, context, RK4(), grid)
    back = flow.transport(there, context, RK4(), grid, reverse=True)
    assert torch.allclose(back, x, atol=1e-5 if end < 1 else 5e-3)  # the landing at t = 1 is of first order


def trainable():
    return Flow(Geodesic(Euclidean(2), predicts=Endpoint()), Normal(), toy.MLP(4))


@pytest.mark.parametrize("coupling", [Independent(), Transport(), PartCoupling("x", Transport(), ("kind",))], ids=repr)
def test_how_a_flow_was_trained_is_kept_beside_its_weights(coupling, tmp_path):
    flow, context = trainable(), Context.full(3)
    flow.independent, flow.independent_parts = coupling.independent, coupling.independent_parts
    flow.save(tmp_path / "weights.pt")
    loaded = trainable().load(tmp_path / "weights.pt")
    assert (loaded.independent, loaded.independent_parts) == (coupling.independent, coupling.independent_parts)
    if coupling.independent:
        assert loaded.sample(context, Langevin(), 3).isfinite().all()
    else:
        with pytest.raises(TypeError, match="coupling"):
            loaded.sample(context, Langevin(), 3)


def test_a_state_dict_holds_tensors_alone_and_says_how_the_flow_was_trained():
    flow = Flow(Geodesic(Euclidean(2)), Normal(), toy.MLP(4), independent=False, independent_parts=("x",))
    weights = flow.state_dict()
    assert all(torch.is_tensor(value) for value in weights.values())
    other = Flow(flow.path, flow.prior, toy.MLP(4))
    other.load_state_dict(weights)
    assert (other.independent, other.independent_parts) == (False, ("x",))


def test_weights_from_before_say_nothing_about_the_coupling(tmp_path):
    flow = trainable()
    weights = {k: v for k, v in flow.state_dict().items() if not k.endswith("_extra_state")}
    torch.save(weights, tmp_path / "old.pt")
    torch.save({"state_dict": weights, "independent": True, "untied": ["y"]}, tmp_path / "older.pt")
    flow.independent, flow.independent_parts = False, ("x",)
    assert not flow.load(tmp_path / "old.pt").independent
    assert flow.independent_parts == ("x",)
    assert flow.load(tmp_path / "older.pt").independent_parts == ("y",)
    assert flow.independent


def test_functions_and_plain_modules_become_networks_at_the_door():
    class Plain(torch.nn.Module):
        def forward(self, x, t, context):
            return x

    plain = Plain()
    flow = Flow(Geodesic(Euclidean(2)), Normal(), plain)
    assert flow.network is plain
    assert not plain.self_conditioned
    assert not plain.two_times
    x, t, context = torch.randn(3, 1, 2), torch.rand(3), Context.full(3)
    assert torch.equal(flow(x, t, context), x)
    assert torch.equal(Flow(flow.path, flow.prior, lambda x, t, c: 2 * x)(x, t, context), 2 * x)


@pytest.mark.parametrize("kind", ["text", "tensor", "numbers"])
def test_files_that_hold_no_weights_are_refused(kind, tmp_path):
    file = tmp_path / "weights.pt"
    content = {"tensor": torch.ones(3), "numbers": {1: torch.ones(3)}}
    if kind == "text":
        file.write_text("emphatically no weights")
    else:
        torch.save(content[kind], file)
    with pytest.raises(UserError, match=r"Flow\.save"):
        trainable().load(file)


@pytest.mark.parametrize(
    ("space", "prior"),
    [(SO3(), Uniform()), (Sphere(2), Uniform()), (Hyperbolic(2), Wrapped(3.0)), (Centered(), Normal())],
    ids=repr,
)
def test_noise_lies_on_the_space_in_the_dtype_of_the_flow(space, prior):
    context = Context.full(50, 4)
    flow = Flow(Geodesic(space), prior, nn.Linear(1, 1).double())
    bound, drawn = space.bind(context), flow.noise(context)
    paired = FlowMatching().pairs(flow, drawn, context).x0
    for x in (drawn, paired):
        assert x.dtype == torch.float64
        size = expand_like(x.flatten(1).abs().amax(1), x)
        assert ((bound.project(x) - x) / size).abs().max() < 1e-13
