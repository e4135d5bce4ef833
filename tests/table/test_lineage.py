"""The models of the lectures on rows: each path, prediction and objective fits the domain, and begins as the flow of
Gaussian data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fm_science.cli import main
from fm_science.data import collate
from fm_science.errors import OptionError, UserError
from fm_science.predictions import Endpoint, Noise, Score, Velocity
from fm_science.solvers import DDPM, ReverseSDE
from fm_science.state import Context
from fm_science.testing import check_domain
from fm_science_domains.table import Table
from fm_science_domains.table.paths import SCHEDULES

from .test_domain import SMALL, table

MOONS = {"source": "moons", "train": 40, "test": 20}


def moons(**groups: dict) -> Table:
    return Table(data={**MOONS, **groups.pop("data", {})}, network=SMALL, **groups)


@pytest.mark.parametrize("kind", list(SCHEDULES))
def test_an_untrained_network_is_the_flow_of_unit_gaussian_data_whatever_it_tells(kind: str) -> None:
    """Then x1 given x_t is alpha x / (alpha² + sigma²), told as velocity, endpoint, noise or score."""
    schedule = SCHEDULES[kind]
    t = torch.tensor([0.2, 0.5, 0.9])
    alpha, sigma = (v[:, None, None] for v in schedule(t))
    x = torch.randn(3, 2, 1)
    cond = {"observed": torch.ones(3, 2, dtype=torch.bool)}
    for prediction in (Velocity(), Endpoint(), Noise(), Score()):
        if not prediction.defined_at_zero_signal and schedule.ends[0] == 0:
            continue
        flow = moons(path={"kind": kind, "predicts": type(prediction).__name__.lower()}).flow()
        context = Context.full(3, 2, **cond)
        path = flow.path.bind(context, flow.prior)
        raw = flow.network({"numbers": x}, t, context)
        found = path.endpoint(raw, {"numbers": x}, t)["numbers"]
        assert torch.allclose(found, alpha * x / (alpha**2 + sigma**2), atol=1e-4)


@pytest.mark.parametrize("kind", ["ve"])
def test_other_paths_fit_all_kinds_of_columns(birds: Path, kind: str) -> None:
    check_domain(table(birds, path={"kind": kind}))


@pytest.mark.parametrize("kind", ["ddpm"])
def test_other_objectives_fit_all_kinds_of_columns(birds: Path, kind: str) -> None:
    check_domain(table(birds, objective={"kind": kind}))


def test_the_chain_is_drawn_by_its_own_sampler_and_others_are_free_to_choose() -> None:
    domain = moons(objective={"kind": "ddpm"})
    flow = domain.flow()
    assert isinstance(flow.sampler.solver, DDPM)
    context = domain.request(8)
    assert flow.sample(context, ReverseSDE(), 20, seed=0)["numbers"].isfinite().all()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"path": {"predicts": "score"}}, "no signal"),
        ({"path": {"predicts": "velocity"}, "objective": {"kind": "score"}}, "learns the score"),
        ({"path": {"kind": "vp"}, "objective": {"kind": "ddpm"}}, "discrete chain"),
        ({"path": {"kind": "vp"}, "objective": {"kind": "flow_map"}}, "straight paths"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_gets_one_line(groups: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        moons(**groups)


def test_the_score_is_learned() -> None:
    """The loss of an untrained network on unit Gaussian data is what no network can tell of the noise: the mean of
    alpha² / (alpha² + sigma²), which is alpha² on VP."""
    domain = moons(objective={"kind": "score", "given": 0.0, "late": 1.0}, data={"blur": 0.0})
    flow = domain.flow()
    _, context = collate(flow.path.space, [domain.data.train[i % 40] for i in range(4000)])
    torch.manual_seed(0)
    x1 = {"numbers": torch.randn(4000, 2, 1)}
    loss = domain.objective(flow, x1, context)["numbers"].detach()
    alpha = SCHEDULES["vp"](torch.linspace(0, 1, 10_001))[0]
    assert float(loss.mean()) == pytest.approx(float(alpha.square().mean()), abs=4 * float(loss.std()) / 4000**0.5)


@pytest.mark.parametrize(
    "objective",
    [
        {"kind": "action_matching"},
        {"kind": "maximum_likelihood", "kinetic": 0.1, "jacobian": 0.1, "walk": 2},
        {"kind": "maximum_likelihood", "trace": "exact", "walk": 2},
        {"kind": "maximum_likelihood", "hjb": 0.1, "walk": 2},
        {"kind": "maximum_likelihood", "adjoint": True, "walk": 2},
        {"kind": "jko", "blocks": 2, "walk": 2},
        {"kind": "score", "score": "sliced"},
        {"kind": "score", "score": "hyvarinen"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)  # fmt: skip
def test_every_objective_has_a_finite_loss_and_gradient(birds: Path, objective: dict) -> None:
    numbers = {"source": str(birds), "columns": "bearing:ignore,kind:ignore,id:ignore"}
    angles = {"source": str(birds), "columns": "bearing:angle,kind:ignore,id:ignore"}
    data = numbers if {"score", "adjoint"} & set(objective) else angles
    domain = Table(data=data, network=SMALL, objective=objective)
    flow = domain.flow()
    x1, context = collate(flow.path.space, [domain.data.train[i] for i in range(16)])
    losses = domain.objective(flow, x1, context)
    sum(loss.mean() for loss in losses.values()).backward()
    assert all(loss.shape == (16,) and loss.isfinite().all() for loss in losses.values())
    grads = [p.grad for p in flow.parameters() if p.grad is not None]
    assert grads
    assert all(g.isfinite().all() for g in grads)
    assert flow.sample(domain.request(3), seed=0)["numbers"].isfinite().all()


def test_a_potential_begins_as_the_flow_of_unit_gaussian_data() -> None:
    flow = moons(objective={"kind": "action_matching"}).flow()
    context = Context.full(4, 2, observed=torch.ones(4, 2, dtype=torch.bool))
    x, t = torch.randn(4, 2, 1), torch.tensor([0.0, 0.3, 0.6, 0.9])
    pull = (2 * t - 1) / (t**2 + (1 - t) ** 2)
    assert torch.allclose(flow.network({"numbers": x}, t, context)["numbers"], pull[:, None, None] * x, atol=1e-5)


@pytest.mark.parametrize("kind", ["action_matching", "maximum_likelihood"])
def test_classes_have_no_velocity(birds: Path, kind: str) -> None:
    with pytest.raises(OptionError, match="classes"):
        _ = table(birds, objective={"kind": kind}).objective


def test_a_run_teaches_a_single_step_and_is_then_needed_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["domain=table", "preset=null", "data.source=moons", "data.train=60", "data.test=20", "network.width=16"]
    words += ["network.layers=1", "trainer.max_steps=3", "trainer.validate_every=3", "trainer.validation_samples=0"]
    assert main(["train", *words, "run=teacher"]) == 0
    assert main(["train", *words, "run=distil", "objective.kind=distil", "objective.teacher=teacher"]) == 0
    other = moons(objective={"kind": "reflow", "teacher": "teacher"})
    x1, context = collate(other.path.space, [other.data.train[i] for i in range(4)])
    with pytest.raises(UserError, match="learned other rows"):
        other.objective(other.flow(), x1, context)
    shutil.rmtree("teacher")
    assert main(["sample", "distil", "n=5", "out=one"]) == 0
    assert len(Path("one/samples.csv").read_text().splitlines()) == 6
    assert main(["sample", "distil", "n=5", "solver=ddim"]) == 2
    assert "ties noise" in capsys.readouterr().err
    with pytest.raises(OptionError, match="teacher"):
        moons(objective={"kind": "reflow"})
