"""Old names go on working for one release, and say what they are called now."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

import fm_science
from fm_science import (
    EGNN,
    Context,
    Euclidean,
    Flow,
    FlowMatching,
    Geodesic,
    Normal,
    Sampler,
    Sphere,
    Transport,
    Uniform,
    couplings,
    likelihood,
    networks,
    objectives,
    solvers,
    spaces,
    state,
)

OLD = pytest.deprecated_call


@pytest.mark.parametrize("name", fm_science.RENAMED)
def test_public_names_that_were_replaced_still_give_what_they_named(name: str) -> None:
    with OLD(match=fm_science.RENAMED[name]):
        found = getattr(fm_science, name)
    assert found is getattr(fm_science, fm_science.RENAMED[name])


def test_names_of_modules_that_were_replaced_still_work() -> None:
    olds = [(state, "lift"), (spaces, "Sites"), (couplings, "Teacher"), (networks, "dropped"), (solvers, "ratio_grid")]
    for module, name in [*olds, (objectives, "Spans"), (likelihood, "backward")]:
        with OLD(match=name):
            assert callable(getattr(module, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = state.nothing


def test_old_keywords_are_understood() -> None:
    for make, new in (
        (lambda: FlowMatching(drop={"label": 0.1}), FlowMatching(condition_dropout={"label": 0.1})),
        (lambda: Sampler(wrap=print), Sampler(wrap_network=print)),
    ):
        with OLD():
            assert make() == new
    with OLD(match="condition_weights"):
        assert Transport(near={"energy": 1.0}).condition_weights == {"energy": 1.0}
    with OLD(match="num_rbf"):
        assert EGNN(8, 1, bumps=4)


def test_paths_keep_the_old_names_of_their_methods_and_understand_subclasses_that_define_them() -> None:
    path = Geodesic(Sphere(2)).bind(Context.full(3))
    x, y, t = *(Uniform().sample(Sphere(2), Context.full(3)) for _ in range(2)), torch.full((3,), 0.3)
    u = path.endpoint_to_velocity(x, y, t)
    with OLD(match="endpoint_to_velocity"):
        assert torch.equal(path.drift(x, y, t), u)
    with OLD(match="has_score"):
        assert not path.scored

    with OLD(match="velocity_to_endpoint"):

        @dataclass(frozen=True)
        class Late(Geodesic):
            def landing(self, x: torch.Tensor, u: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
                return super().landing(x, 1.01 * u, t)

    late = Late(Sphere(2)).bind(Context.full(3))
    with OLD():
        found = late.velocity_to_endpoint(x, u, t)
    torch.testing.assert_close(found, path.velocity_to_endpoint(x, 1.01 * u, t))


def test_networks_of_two_times_may_still_read_until() -> None:
    context = replace(Context.full(2), t_end=torch.ones(2))
    with OLD(match="t_end"):
        assert context.until is context.t_end


def test_a_flow_is_made_as_ever() -> None:
    flow = Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: -x)
    assert flow.sample(Context.full(2), seed=0).shape == (2, 1, 2)
