"""Wrong batches, contexts and outputs are refused at the door, in one sentence on what was given and expected."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn

from fm_science import (
    SO3,
    SPD,
    Categorical,
    Centered,
    Classes,
    Context,
    ContractError,
    Endpoint,
    Euclidean,
    Flow,
    FlowMatching,
    Geodesic,
    Hyperbolic,
    Interpolant,
    MaximumLikelihood,
    Normal,
    Posterior,
    Product,
    ProductPath,
    ProductPrior,
    Sphere,
    Torus,
    Uniform,
    Wrapped,
    elbo,
)
from fm_science.errors import UserError
from fm_science.solvers import Euler

B = 8
MASK = Context.full(B, 5)
PLANE = Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: -x)
ATOMS = Flow(
    ProductPath(positions=Geodesic(Centered()), types=Geodesic(Categorical(4), predicts=Posterior())),
    ProductPrior(positions=Normal(), types=Classes([0.25] * 4)),
    lambda x, t, c: {"positions": -x["positions"], "types": x["types"]},
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def classes(n: int = 5) -> torch.Tensor:
    return nn.functional.one_hot(torch.randint(4, (B, n)), 4).float()


def fresh(flow: Flow) -> Flow:
    """The same flow, not yet trained."""
    return Flow(flow.path, flow.prior, flow.network)


def place() -> torch.Tensor:
    return torch.randn(B, 5, 3)


WRONG = {
    "no axis of sites": (PLANE, lambda: torch.randn(B, 2), "shape (8, 2) was given; expected (8, 5, 2)"),
    "more sites than the mask": (PLANE, lambda: torch.randn(B, 7, 2), "(8, 7, 2) was given; expected (8, 5, 2)"),
    "another batch": (PLANE, lambda: torch.randn(3, 5, 2), "shape (3, 5, 2) was given; expected (8, 5, 2)"),
    "integers": (PLANE, lambda: torch.ones(B, 5, 2, dtype=torch.long), "int64 was given; expected floating point"),
    "not finite": (PLANE, lambda: torch.full((B, 5, 2), torch.nan), "80 numbers are NaN or infinite"),
    "a dict": (PLANE, lambda: {"x": torch.randn(B, 5, 2)}, "a dict of ['x'] was given; expected one tensor"),
    "no dict": (ATOMS, place, "a Tensor was given; expected a dict with ['positions', 'types']"),
    "a missing part": (
        ATOMS, lambda: {"positions": place()}, "['positions'] were given; expected ['positions', 'types']"
    ),
    "class numbers": (
        ATOMS, lambda: {"positions": place(), "types": torch.randint(4, (B, 5))}, "functional.one_hot(numbers, 4)"
    ),
    "soft labels": (
        ATOMS, lambda: {"positions": place(), "types": torch.rand(B, 5, 4).softmax(-1)}, "['types']: 40 of 40 points"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("flow", "x", "said"), WRONG.values(), ids=WRONG)
def test_wrong_data_are_refused(flow, x, said):
    x = x()
    doors = [lambda: FlowMatching()(fresh(flow), x, MASK), lambda: flow.transport(x, MASK, Euler(), 2)]
    doors += [lambda: flow.log_prob(x, MASK, steps=2)] if flow is PLANE else []
    for door in doors:
        with pytest.raises((UserError, TypeError), match=re.escape(said)) as caught:
            door()
        assert "\n" not in str(caught.value)


POINTS = {
    "sphere": (Sphere(), Uniform(), 2 * torch.ones(B, 1, 3), "unit vectors"),
    "rotations": (SO3(), Uniform(), 2 * torch.eye(3).expand(B, 1, 3, 3), "rotation matrices"),
    "hyperbolic": (Hyperbolic(2), Wrapped(1.0), torch.ones(B, 1, 3), "upper sheet"),
    "matrices": (SPD(2), Wrapped(0.5), -torch.eye(2).expand(B, 1, 2, 2), "positive eigenvalues"),
}


@pytest.mark.parametrize(("space", "prior", "x", "said"), POINTS.values(), ids=POINTS)
def test_points_off_the_space_are_refused(space, prior, x, said):
    context = Context.full(B)
    flow = Flow(Geodesic(space), prior, lambda y, t, c: torch.zeros(*y.shape[:2], *space.tangent_event))
    for door in (FlowMatching(), MaximumLikelihood()):
        with pytest.raises(ContractError, match=f"8 of 8 points lie off .*{said}"):
            door(fresh(flow), x, context)
    with pytest.raises(ContractError, match=said):
        flow.log_prob(x, context, steps=2)


def test_angles_beyond_a_turn_and_clouds_off_centre_are_points():
    flow = Flow(Geodesic(Torus(2)), Uniform(), lambda x, t, c: torch.zeros_like(x))
    FlowMatching()(flow, torch.full((B, 5, 2), 6.0), MASK)
    FlowMatching()(ATOMS, {"positions": torch.randn(B, 5, 3) + 9, "types": classes()}, MASK)


def test_padding_may_hold_anything():
    mask = torch.ones(B, 5, dtype=torch.bool)
    mask[:, 3:] = False
    x = torch.randn(B, 5, 3)
    x = torch.where(mask[..., None], nn.functional.normalize(x, dim=-1), torch.nan_to_num(x, 0) * 7)
    flow = Flow(Geodesic(Sphere()), Uniform(), lambda y, t, c: torch.zeros_like(y))
    assert FlowMatching()(flow, x, Context(mask))["loss"].isfinite().all()


def test_outputs_of_another_shape_are_refused():
    flow = Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: x[:, 0])
    context, said = Context.full(B), re.escape("the network's output: shape (8, 2) was given; expected (8, 1, 2)")
    x = torch.randn(B, 1, 2)
    for door in (
        lambda: FlowMatching()(flow, x, context), lambda: flow.sample(context, Euler(), 2),
        lambda: flow.log_prob(x, context, steps=2), lambda: MaximumLikelihood()(flow, x, context),
    ):  # fmt: skip
        with pytest.raises(ContractError, match=said):
            door()
    short = Flow(ATOMS.path, ATOMS.prior, lambda x, t, c: {"positions": x["positions"]})
    with pytest.raises(ContractError, match=re.escape("['positions'] was given; expected a dict with")):
        short.sample(MASK, Euler(), 2)
    rotations = Flow(Geodesic(SO3(), predicts=Endpoint()), Uniform(), lambda x, t, c: torch.zeros(B, 1, 3))
    with pytest.raises(ContractError, match=re.escape("(8, 1, 3) was given; expected (8, 1, 3, 3)")):
        rotations.sample(context, Euler(), 2)
    bridge = Flow(Interpolant(Euclidean(2)), Normal(), lambda x, t, c: {"velocity": x, "noise": x[:, 0]})
    with pytest.raises(ContractError, match=re.escape("['noise']: shape (8, 2)")):
        bridge.sample(context, Euler(), 2)


def test_masks_are_bool_of_two_axes():
    for mask in (torch.ones(B, 5), torch.ones(B, dtype=torch.bool), [[True]]):
        with pytest.raises((UserError, TypeError), match="the mask of the context is"):
            PLANE.sample(Context(mask), Euler(), 1)
    with pytest.raises(TypeError, match=r"expected fm_science\.Context"):
        PLANE.sample(torch.ones(B, 5, dtype=torch.bool), Euler(), 1)  # type: ignore[arg-type]


def test_double_data_are_cast_to_the_weights():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x, t, c):
            return self.linear(x)

    x = torch.randn(B, 5, 2, dtype=torch.float64)
    flow = Flow(Geodesic(Euclidean(2)), Normal(), Net())
    assert FlowMatching()(flow, x, MASK)["loss"].dtype == torch.float32
    assert flow.log_prob(x, MASK, steps=2).dtype == torch.float32
    assert flow.double().log_prob(x.float(), MASK, steps=2).dtype == torch.float64


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bad_logits_name_their_part_and_time(value):
    def late(x, t, c):
        bad = torch.where(t[:, None, None] > 0.45, value, 0.0)
        return {"positions": -x["positions"], "types": x["types"] + bad}

    flow = Flow(ATOMS.path, ATOMS.prior, late)
    with pytest.raises(ContractError, match=re.escape("logits['types'] are NaN or infinite at t = 0.5")):
        flow.sample(MASK, Euler(), 4)
    alone = Flow(Geodesic(Categorical(4), predicts=Posterior()), Classes([0.25] * 4), lambda x, t, c: x * value)
    with pytest.raises(ContractError, match="logits are NaN or infinite at t = 0"):
        alone.sample(MASK, Euler(), 4)


def test_a_class_that_cannot_be_and_padding_are_no_bad_logits():
    mask = torch.ones(B, 5, dtype=torch.bool)
    mask[:, 4:] = False

    def network(x, t, c):
        never = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
        return torch.where(c.mask[..., None], x + never, torch.nan)

    flow = Flow(Geodesic(Categorical(4), predicts=Posterior()), Classes([0.25] * 4), network)
    assert flow.sample(Context(mask), Euler(), 5)[mask].sum() == mask.sum()


def test_messages_hold_no_tensors():
    path = Geodesic(Euclidean(2)).bind(Context.full(100, 100), Wrapped(1.0))
    assert "tensor" not in repr(path)
    assert "tensor" not in repr(Product(a=path.space))


def test_data_of_classes_are_read_before_their_bound():
    flow = Flow(Geodesic(Categorical(4), predicts=Posterior()), Classes([0.25] * 4), lambda x, t, c: x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert elbo(flow, classes(), MASK, draws=2).shape == (B,)
    with pytest.raises(ContractError, match="one-hot"):
        elbo(flow, classes().softmax(-1), MASK, draws=2)
