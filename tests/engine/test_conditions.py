"""Conditions that no network reads are noticed: in the laws of networks, and in training."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from fm_science import Context, Euclidean, Flow, FlowMatching, Geodesic, Normal, PointField
from fm_science.testing import check_network
from fm_science.training import Optimizer, Trainer, fit
from fm_science.training.conditions import unread_conditions
from tests import toy


def conditioned(n: int = 6) -> Context:
    return Context.full(n, heat=torch.linspace(0, 1, n), label=torch.arange(n) % 3, same=torch.ones(n))


def network(**options: object) -> PointField:
    found = PointField(Euclidean(2), 8, 2, **options)
    torch.nn.init.normal_(found.parts[0].leave.weight)
    return found


def test_a_network_must_read_what_it_is_said_to_read() -> None:
    path = Geodesic(Euclidean(2))
    check_network(network(conditions=("heat",)), path, Normal(), conditioned(), reads=("heat",))
    with pytest.raises(AssertionError, match="reads the condition 'label'"):
        check_network(network(conditions=("heat",)), path, Normal(), conditioned(), reads=("heat", "label"))
    for name in ("same", "absent"):
        with pytest.raises(ValueError, match=f"reads='{name}'"):
            check_network(network(), path, Normal(), conditioned(), reads=(name,))


def test_conditions_that_change_no_loss_are_found() -> None:
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network(classes={"label": 3}))
    x1, state = torch.randn(6, 1, 2), torch.get_rng_state()
    assert unread_conditions(lambda context: FlowMatching()(flow, x1, context), conditioned()) == ["heat"]
    assert torch.equal(torch.get_rng_state(), state)


def test_training_warns_of_a_condition_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Trainer(max_steps=2, validate_every=1, validation_samples=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*does not depend on the condition.*")
        fit(toy.build(), options, Optimizer(), tmp_path / "plain")
    read = toy.Circle.__getitem__
    monkeypatch.setattr(toy.Circle, "__getitem__", lambda self, i: (read(self, i)[0], {"number": torch.tensor(i)}))
    with pytest.warns(UserWarning, match="does not depend on the condition 'number'"):
        fit(toy.build(), options, Optimizer(), tmp_path / "numbered")
