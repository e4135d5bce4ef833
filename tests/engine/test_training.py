"""Training: a run can be stopped and resumed bit for bit, keeps what it wrote, and survives a broken gradient."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from fm_science.couplings import Transport
from fm_science.domain import group
from fm_science.errors import OptionError
from fm_science.flow import Flow
from fm_science.networks import ScoreGuided
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.predictions import Endpoint
from fm_science.priors import Normal, Uniform
from fm_science.solvers import Euler
from fm_science.spaces import SO3, Centered
from fm_science.state import Context
from fm_science.symmetries import Rotations
from fm_science.training import Optimizer, Trainer, fit
from fm_science.training.callbacks import read_metrics
from fm_science.training.module import FlowModule
from tests import toy

QUICK = {"validate_every": 8, "checkpoint_every": 4, "log_every": 2, "progress": False, "accelerator": "cpu"}


def train(folder, steps, resume=False, **options):
    torch.manual_seed(0)
    return fit(toy.build(), Trainer(max_steps=steps, **QUICK, **options), Optimizer(warmup=2), folder, 3, resume)


def weights(folder):
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return saved["state_dict"], saved["current_model_state"]


@pytest.mark.parametrize("stop", [5, 8])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, stop):
    train(tmp_path / "straight", 12)
    # the schedule of the learning rate spans the whole run, so the first part is cut by hand, not by max_steps
    torch.manual_seed(0)
    halt = toy.build()
    halted = tmp_path / "halted"

    class Stop(Exception):
        pass

    original = halt.objective
    calls = []

    def objective(flow, x1, context, x0=None):
        if flow.training:
            calls.append(1)
            if len(calls) > stop:
                raise Stop
        return original(flow, x1, context, x0)

    options = {**QUICK, "checkpoint_every": 1}
    with pytest.raises(Stop):
        fit(_with(halt, objective), Trainer(max_steps=12, **options), Optimizer(warmup=2), halted, 3)
    train(halted, 12, resume=True)
    for straight, resumed in zip(weights(tmp_path / "straight"), weights(halted), strict=True):
        assert all(torch.equal(straight[k], resumed[k]) for k in straight)
    steps = [row["step"] for row in read_metrics(halted / "metrics.csv") if "train/loss" in row]
    assert steps == sorted(set(steps)), "rows before the stop are kept, none is doubled"


def _with(domain, objective):
    return replace(domain, objective=objective)


def test_a_run_shorter_than_its_log_still_has_one(tmp_path):
    options = Trainer(max_steps=3, log_every=20, validate_every=100, progress=False)
    fit(toy.build(), options, None, tmp_path)
    assert "train/loss" in read_metrics(tmp_path / "metrics.csv")[-1]
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_run_keeps_curves_metrics_samples_and_a_checkpoint_that_runs_no_code(tmp_path):
    flow = train(tmp_path, 8)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    rows = read_metrics(tmp_path / "metrics.csv")
    assert any("sample/radius" in row for row in rows)
    assert {f"validation/t{k / 5:.1f}-{(k + 1) / 5:.1f}/loss" for k in range(5)} <= {k for row in rows for k in row}
    assert len(list((tmp_path / "samples/step-000008").iterdir())) == 16
    other = toy.build().flow().load(tmp_path / "checkpoints/last.ckpt")
    context = flow.domain.request(4)
    assert torch.equal(flow.sample(context, seed=1), other.sample(context, seed=1))


def test_gradients_that_are_not_finite_are_skipped_and_counted(tmp_path):
    domain = toy.build()
    calls = []

    def objective(flow, x1, context, x0=None):
        losses = toy.build().objective(flow, x1, context, x0)
        calls.append(1)
        return {k: v * (float("nan") if len(calls) == 2 else 1.0) for k, v in losses.items()}

    flow = fit(_with(domain, objective), Trainer(max_steps=4, **{**QUICK, "log_every": 1}), None, tmp_path, 0)
    assert all(p.isfinite().all() for p in flow.parameters())
    assert read_metrics(tmp_path / "metrics.csv")[-1]["train/skipped"] == 1


def test_a_metric_that_fails_is_left_out_with_a_warning_and_training_goes_on(tmp_path):
    def broken(samples, reference):
        raise ModuleNotFoundError("No module named 'elsewhere'")

    domain = toy.build()
    domain = replace(domain, metrics={"broken": broken, **domain.metrics})
    with pytest.warns(UserWarning, match="training goes on without the metric 'broken'.*elsewhere"):
        fit(domain, Trainer(max_steps=8, **QUICK), None, tmp_path, 0)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert any("sample/radius" in row for row in rows), "the others are measured"


def test_slow_metrics_are_left_to_evaluate(tmp_path):
    domain = toy.build()
    domain = replace(domain, metrics={"endless": lambda *_: pytest.fail("measured"), **domain.metrics})
    fit(replace(domain, slow=frozenset({"endless"})), Trainer(max_steps=8, **QUICK), None, tmp_path, 0)
    assert any("sample/radius" in row for row in read_metrics(tmp_path / "metrics.csv")), "the others are measured"


def test_how_much_of_a_run_is_behind_goes_by_steps_or_by_time_whichever_is_further(tmp_path, capsys):
    domain = toy.build()
    module = FlowModule(domain.flow(), domain.objective, Optimizer(), 100, 0, ())
    assert [module.done(step) for step in (0, 25, 100, 120)] == [0, 0.25, 1, 1]
    module.spent = 0.5
    assert [module.done(step) for step in (0, 25, 75)] == [0.5, 0.5, 0.75]
    fit(domain, Trainer(max_steps=20, **{**QUICK, "progress": True, "log_every": 1}), None, tmp_path, 0)
    shown = capsys.readouterr().out
    assert "toy: 256 to train on, 64 held out; 1,730 parameters; 20 steps; cpu" in shown
    assert re.search(r"step 1 \(5%\)  loss [\d.]+  \d+ s left", shown), "the time left is known after one step"
    assert "step 20 (100%)" in shown


def test_all_processes_decay_the_learning_rate_by_the_clock_of_the_first():
    torch.manual_seed(0)
    domain, received = toy.build(), iter([0.2, 0.6])
    module = FlowModule(domain.flow(), domain.objective, Optimizer(warmup=0, final=0.0), 100)
    strategy = SimpleNamespace(broadcast=lambda own: next(received))
    module.trainer = SimpleNamespace(world_size=2, global_rank=1, global_step=3, strategy=strategy)
    module.clock = lambda: 0.9
    optimizer = module.configure_optimizers()
    (pace,) = optimizer["lr_scheduler"]["scheduler"].lr_lambdas
    for spent in (0.2, 0.6):
        module.on_train_batch_start(None, 0)
        assert (module.done(3), pace(3)) == (spent, 0.5 * (1 + math.cos(math.pi * spent)))


def test_validation_draws_samples_that_need_gradients_and_keeps_none_of_its_own(tmp_path):
    torch.manual_seed(0)
    domain, graded = toy.build(), []

    def objective(flow, x1, context, x0=None):
        if not flow.training:
            graded.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return domain.objective(flow, x1, context, x0)

    def steered(network):
        return ScoreGuided(network, domain.path, lambda x1: -x1.square().sum((-1, -2)))

    bent = replace(domain, sampler=replace(domain.sampler, wrap_network=steered), objective=objective)
    fit(bent, Trainer(max_steps=8, **QUICK), None, tmp_path, 0)
    assert any("sample/radius" in row for row in read_metrics(tmp_path / "metrics.csv"))
    assert set(graded) == {(False, False)}


class Witness(nn.Module):
    """One layer on rotations that keeps what it was shown and the dtype its layer worked in."""

    self_conditioned = True

    def __init__(self):
        super().__init__()
        self.layer, self.seen, self.worked = nn.Linear(10, 9), [], set()

    def forward(self, x, t, context):
        self.seen += [x] if context.previous is None else [x, context.previous]
        out = self.layer(torch.cat([x.flatten(-2), t[:, None, None]], -1))
        self.worked.add(out.dtype)
        return out.unflatten(-1, (3, 3)) + torch.eye(3)


def stepped(module, batch, precision, folder):
    """Two training steps and a validation on one batch."""
    trainer = pl.Trainer(
        precision=precision, max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader([batch, batch], batch_size=None)
    numbered = torch.utils.data.DataLoader([(k, *batch) for k in range(2)], batch_size=None)
    trainer.fit(module, loader, numbered)


@pytest.mark.parametrize(("precision", "half"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_only_the_network_computes_in_half_precision_and_geometry_never_does(tmp_path, precision, half):
    torch.manual_seed(0)
    network = Witness()
    flow = Flow(Geodesic(SO3(), predicts=Endpoint()), Uniform(), network)
    batch = Uniform().sample(SO3(), Context.full(16)), Context.full(16)
    names = list(flow.state_dict())
    module = FlowModule(flow, FlowMatching(self_condition=1.0), Optimizer(), 2)
    stepped(module, batch, precision, tmp_path)
    with module.mixed():
        flow.sample(Context.full(4), Euler(), 3, seed=0)
    off = max(float((x @ x.mT - torch.eye(3)).abs().max()) for x in network.seen)
    assert network.worked == {half}
    assert {x.dtype for x in network.seen} == {torch.float32}
    assert off < 5e-6
    assert list(flow.state_dict()) == names
    assert network(batch[0], torch.zeros(16), batch[1]).dtype == torch.float32, "afterwards the network is as before"
    assert "forward" not in vars(network)


def test_couplings_and_augmentations_work_under_mixed_precision(tmp_path):
    torch.manual_seed(0)

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x, t, context):
            return self.layer(x)

    flow = Flow(Geodesic(Centered()), Normal(), Linear())
    module = FlowModule(flow, FlowMatching(Transport(Rotations())), Optimizer(), 2, augmentations=(Rotations(),))
    context = Context.full(8, sites=5)
    stepped(module, (flow.noise(context), context), "bf16-mixed", tmp_path)
    assert all(p.isfinite().all() for p in flow.parameters())


def test_a_run_in_mixed_precision_loads_as_any_other(tmp_path):
    flow = train(tmp_path, 8, precision="bf16-mixed")
    assert {p.dtype for p in flow.parameters()} == {torch.float32}
    other = toy.build().flow().load(tmp_path / "checkpoints/last.ckpt")
    context = Context.full(4)
    assert torch.equal(flow.sample(context, seed=1), other.sample(context, seed=1))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_weights_are_kept_in_single_precision(precision):
    with pytest.raises(OptionError, match="expected one of 32-true, bf16-mixed, 16-mixed"):
        group(Trainer, {"precision": precision}, "trainer")
