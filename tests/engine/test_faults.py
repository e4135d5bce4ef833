"""What a training does when it is stopped, starved or fed with numbers that are not finite."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
import warnings
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fm_science.checkpoints import LAST, PREVIOUS, newest, read_checkpoint
from fm_science.errors import DivergedError, OptionError, Stopped, UserError
from fm_science.objectives import Objective
from fm_science.training import Optimizer, Trainer, callbacks, fit
from fm_science.training.clock import Clock, Threads
from fm_science.training.devices import check_devices
from fm_science.training.metrics_file import MetricsFile, read_rows
from fm_science.training.signals import Halt, Signals
from tests import toy

QUICK = Trainer(
    max_steps=12, validate_every=4, checkpoint_every=3, log_every=2, validation_samples=4, progress=False,
    accelerator="cpu",
)  # fmt: skip


def train(folder, resume=False, options=QUICK, domain=None, seed=3, lr=1e-3):
    torch.manual_seed(0)
    return fit(domain or toy.build(), options, Optimizer(warmup=2, lr=lr), folder, seed, resume)


def stopping(when, what):
    """The toy domain, whose objective calls ``what`` as soon as ``when(step of training, is validating)``."""
    torch.manual_seed(0)
    domain, steps = toy.build(), []

    def look(flow):
        if flow.training:
            steps.append(1)
        if when(len(steps), not flow.training):
            what()

    return replace(domain, objective=Watched(domain.objective, look))


class Watched(Objective):
    """An objective that is looked at before each call."""

    def __init__(self, objective, look):
        self.objective, self.look = objective, look

    def __call__(self, flow, x1, context, x0=None):
        self.look(flow)
        return self.objective(flow, x1, context, x0)

    def within(self, low, high):
        return Watched(self.objective.within(low, high), self.look)


def files(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix in (".csv", ".txt")
    }


def state(folder):
    kept = torch.load(folder / "checkpoints" / LAST, weights_only=True)
    return {**kept["state_dict"], **{f"now {k}": v for k, v in kept["current_model_state"].items()}}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Pictures take longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


class Killed(BaseException):
    """As if the process were gone at once."""


def kill():
    raise Killed


@pytest.mark.parametrize(
    "when",
    [
        pytest.param(lambda step, validating: step == 8, id="in step 8"),
        pytest.param(lambda step, validating: step == 4 and validating, id="in the first validation"),
        pytest.param(lambda step, validating: step == 12 and validating, id="in the last validation"),
    ],
)
def test_a_killed_run_that_is_resumed_equals_the_one_nobody_stopped_byte_for_byte(tmp_path, whole, when):
    options = replace(QUICK, checkpoint_every=1)
    with pytest.raises(Killed):
        train(tmp_path, options=options, domain=stopping(when, kill))
    train(tmp_path, resume=True, options=options)
    assert files(tmp_path) == files(whole)
    a, b = state(tmp_path), state(whole)
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_a_run_that_is_done_stays_as_it_is_when_it_is_resumed(tmp_path, whole):
    flow = train(tmp_path)
    before = files(tmp_path)
    again = train(tmp_path, resume=True)
    assert files(tmp_path) == before
    for a, b in zip(flow.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), "the averaged weights come back"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(tmp_path, signum, whole):
    domain = stopping(lambda step, validating: step == 5, lambda: os.kill(os.getpid(), signum))
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as stop:
        train(tmp_path, domain=domain)
    assert stop.value.code == 128 + signum
    assert isinstance(stop.value, KeyboardInterrupt)
    assert re.search(rf"{signum.name}, saved at step 5 of 12 .*resume=.*{tmp_path.name}", str(stop.value))
    assert read_checkpoint(tmp_path / "checkpoints" / LAST, "toy")["global_step"] == 5
    assert signal.getsignal(signum) is before, "handlers are as they were"
    train(tmp_path, resume=True)
    assert files(tmp_path) == files(whole)


def test_a_signal_in_a_validation_is_obeyed_at_once_and_the_validation_is_done_again(tmp_path, whole):
    calls = []

    def interrupt():
        calls.append(1)
        os.kill(os.getpid(), signal.SIGTERM)

    domain = stopping(lambda step, validating: step == 8 and validating, interrupt)
    with pytest.raises(Stopped):
        train(tmp_path, options=replace(QUICK, checkpoint_every=4), domain=domain)
    assert calls == [1]
    train(tmp_path, resume=True)
    assert files(tmp_path) == files(whole)


def test_a_second_ctrl_c_waits_for_nothing_and_a_second_sigterm_changes_nothing():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Halt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_job_of_slurm_asks_to_be_started_again(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    domain = stopping(lambda step, validating: step == 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Stopped, match="SLURM starts job 71 again"):
        train(tmp_path / "run", domain=domain)
    assert (tmp_path / "asked").read_text() == "requeue 71\n"


# ------------------------------------------------------------------------------------------------- not finite


def test_skipped_steps_are_said_with_part_time_and_sample_and_end_the_run(tmp_path):
    domain = toy.build()

    def objective(flow, x1, context, x0=None):
        losses = domain.objective(flow, x1, context, x0)
        bad = torch.ones(len(x1)).index_fill(0, torch.tensor([4]), float("nan") if flow.training else 1.0)
        return {name: value * bad for name, value in losses.items()}

    said = r"step 1 was skipped: the loss 'loss' is nan at t = 0\.\d+ for data point \d+ of"
    with pytest.warns(UserWarning, match=said), pytest.raises(DivergedError, match=r"^3 steps in a row were skipped"):
        train(tmp_path, domain=replace(domain, objective=objective), options=replace(QUICK, max_skipped=3))
    assert not (tmp_path / "checkpoints" / LAST).exists() or read_checkpoint(tmp_path / "checkpoints" / LAST)


@pytest.mark.filterwarnings("ignore:step:UserWarning", "ignore:samples after:UserWarning")
def test_a_learning_rate_that_is_far_too_large_is_no_success(tmp_path):
    with pytest.raises(DivergedError, match=r"Lower optimizer.lr"):
        train(tmp_path, options=replace(QUICK, max_steps=30, max_skipped=0), lr=1e38)


def test_a_datum_that_is_not_finite_is_named(tmp_path):
    domain = toy.build()
    domain.data.train.points[77] = float("nan")
    with pytest.raises(UserError, match="data point 77 of the training set is not finite"):
        train(tmp_path, domain=domain, options=replace(QUICK, max_steps=40, validate_every=100))


# ---------------------------------------------------------------------------------------- disks and checkpoints


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EFBIG, errno.EROFS])
def test_a_disk_that_takes_no_more_leaves_the_run_usable(tmp_path, whole, monkeypatch, cause):
    original = torch.save
    saves = []

    def full(*args, **options):
        saves.append(1)
        if len(saves) == 3:
            raise OSError(cause, os.strerror(cause))
        return original(*args, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=os.strerror(cause)) as error:
        train(tmp_path)
    assert "no checkpoint of step 9 was saved: the one before is kept" in error.value.__notes__[0]
    monkeypatch.undo()
    assert sorted(file.name for file in (tmp_path / "checkpoints").iterdir()) == [LAST, PREVIOUS]
    train(tmp_path, resume=True)
    assert files(tmp_path) == files(whole)


def broken(how, whole):
    data = (whole / "checkpoints" / LAST).read_bytes()
    with zipfile.ZipFile(whole / "checkpoints" / LAST) as parts:
        largest = max(parts.infolist(), key=lambda part: part.file_size)
        middle = data.index(parts.read(largest)) + largest.file_size // 2
    return {
        "truncated": data[: len(data) // 2], "empty": b"", "text": b"hello\n",
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "flipped"])
def test_a_broken_checkpoint_is_told_from_a_whole_one(tmp_path, whole, how):
    file = tmp_path / LAST
    file.write_bytes(broken(how, whole))
    with pytest.raises(UserError) as error:
        read_checkpoint(file)
    assert "\n" not in str(error.value)
    assert not re.search("weights_only|pickle|torch.load", str(error.value))
    with pytest.raises(UserError, match=LAST):
        newest(tmp_path)
    (tmp_path / PREVIOUS).write_bytes((whole / "checkpoints" / PREVIOUS).read_bytes())
    found, kept, warning = newest(tmp_path)
    assert (found.name, kept["global_step"]) == (PREVIOUS, 9)
    assert "going on from previous.ckpt, of step 9" in warning


def test_checkpoints_of_something_else_are_refused(tmp_path, whole):
    file = tmp_path / LAST
    torch.save({"weights": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="no checkpoint of a run"):
        read_checkpoint(file)
    with pytest.raises(UserError, match="checkpoint of domain 'toy', and this run is of 'ring'"):
        read_checkpoint(whole / "checkpoints" / LAST, "ring")
    folder = tmp_path / "wide"
    train(folder, options=replace(QUICK, max_steps=1))
    with pytest.raises(UserError, match=r"another network: .* is \(.*\) there and \(.*\) here"):
        train(folder, resume=True, domain=toy.build(network={"width": 7}))


def test_a_checkpoint_runs_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"state_dict": {}, "global_step": 1, "loops": {}, "x": Attack()}, tmp_path / LAST)
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / LAST)
    assert not (tmp_path / "owned").exists()


def test_rows_that_were_cut_off_are_mended(tmp_path):
    rows = MetricsFile(tmp_path)
    for step in range(4):
        rows.log_metrics({"train/loss": 0.5 + step}, step)
    with (tmp_path / "metrics.csv").open("a") as stream:
        stream.write("4,1.")
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["0", "1", "2", "3"]
    MetricsFile(tmp_path, upto=3).log_metrics({"train/loss": 9.0, "validation/loss": 1.0}, 3)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines() == ["step,train/loss,validation/loss", "0,0.5,", "1,1.5,", "2,2.5,", "3,9.0,1.0"]


# ------------------------------------------------------------------------------------------------- time, threads


def test_the_clock_keeps_time_for_the_last_validation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(minutes=2)
    now[0] = 60.0
    assert (clock.spent(), clock.over()) == (0.5, False)
    clock.reserve = 40.0
    assert clock.spent() == 0.75
    now[0] = 80.0
    assert (clock.spent(), clock.over()) == (1.0, False)
    clock.before = 40.0
    assert clock.over()


def test_a_run_of_limited_time_ends_with_a_validation_and_is_not_resumed_for_more(tmp_path):
    options = replace(QUICK, max_steps=100_000, max_minutes=0.01, validate_every=100_000)
    train(tmp_path, options=options)
    rows = read_rows(tmp_path / "metrics.csv")
    assert "validation/loss" in rows[-1]
    train(tmp_path, resume=True, options=options)
    assert read_rows(tmp_path / "metrics.csv") == rows


@pytest.mark.parametrize(("many", "one", "kept"), [(1.0, 0.9, 2), (3.0, 1.0, 1), (0.5, 1.0, 2)])
def test_all_threads_are_kept_unless_one_is_clearly_faster(monkeypatch, capsys, many, one, kept):
    found = {"threads": 2, "now": 0.0}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: found["threads"])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: found.update(threads=n))
    monkeypatch.setattr(time, "perf_counter", lambda: found["now"])
    trial, cpu = Threads(), torch.device("cpu")
    trainer = SimpleNamespace(
        global_step=0, world_size=1, is_global_zero=True, strategy=SimpleNamespace(root_device=cpu)
    )  # fmt: skip
    trial.on_train_start(trainer, SimpleNamespace(device=cpu))
    used = []
    for _ in range(10):
        trial.on_train_batch_start(trainer)
        used.append(found["threads"])
        found["now"] += many if found["threads"] == 2 else one
        trainer.global_step += 1
        trial.on_train_batch_end(trainer)
    assert used == [2] * 4 + [1] * 4 + [kept] * 2, "the trial's steps are the same in every run"
    assert f"threads: {kept} (a step with {3 - kept} takes" in capsys.readouterr().out
    again = Threads()
    again.load_state_dict(trial.state_dict())
    assert (again.chosen, again.decided) == (min(kept, again.all), True)


WRONG = [
    {"devices": -1}, {"devices": 0}, {"devices": "abc"}, {"devices": 100_000}, {"devices": "-1"}, {"devices": "0,x"},
    {"strategy": "garbage"}, {"strategy": ""}, {"threads": -1}, {"threads": "many"}, {"threads": 10**6},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_devices_that_cannot_be_meant_are_refused_before_data_are_read(wrong, tmp_path):
    with pytest.raises(OptionError, match=f"trainer.{next(iter(wrong))}"):
        check_devices(replace(Trainer(accelerator="cpu"), **wrong))


def test_what_is_meant_is_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for right in ({"devices": 2}, {"devices": "0,1"}, {"strategy": "ddp"}, {"threads": 2}, {"threads": 0}):
            check_devices(replace(Trainer(accelerator="cpu"), **right))
