"""A run tells what has happened to it, whoever trained it and however that ended."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import replace

import lightning
import pytest
import torch

import fm_science
from fm_science.errors import DivergedError, Stopped
from fm_science.history import HISTORY, changes, history, record, status
from fm_science.locks import locked
from fm_science.runs import Run
from fm_science.storage import load_yaml
from fm_science.training import Trainer, fit
from tests import toy

QUICK = Trainer(
    max_steps=4, validate_every=100, checkpoint_every=1, validation_samples=0, progress=False, accelerator="cpu",
)  # fmt: skip


def train(folder, steps=4, resume=False, look=lambda step: None):
    domain, calls = toy.build(), []

    def objective(flow, x1, context, x0=None):
        calls.append(1)
        look(len(calls))
        return domain.objective(flow, x1, context, x0)

    return fit(replace(domain, objective=objective), replace(QUICK, max_steps=steps), None, folder, 5, resume)


def test_a_signal_that_lightning_takes_is_no_end_of_a_training(tmp_path, monkeypatch):
    """Between two moments of its start, Lightning's own handler is in place, which ends with exit code 0."""
    monkeypatch.setattr("fm_science.training.signals.Signals.install", lambda self: None)
    monkeypatch.setattr("fm_science.training.signals.Signals.__enter__", lambda self: self)
    with pytest.raises(Stopped) as stopped:
        train(tmp_path, look=lambda step: step == 2 and os.kill(os.getpid(), signal.SIGTERM))
    assert stopped.value.signum == signal.SIGTERM
    assert status(tmp_path).word == "stopped"


def test_a_run_records_each_start_resume_and_end_and_loses_none(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path, look=lambda step: step == 2 and os.kill(os.getpid(), signal.SIGTERM))
    assert str(status(tmp_path)) == "stopped at step 2: SIGTERM"
    first = (tmp_path / HISTORY).read_bytes()
    train(tmp_path, steps=6, resume=True)
    assert (tmp_path / HISTORY).read_bytes().startswith(first)
    assert str(Run.open(tmp_path).status) == "done at step 6"
    start, stop, resume, done = Run.open(tmp_path).history
    assert [event["event"] for event in (start, stop, resume, done)] == ["start", "end", "resume", "end"]
    assert [event["step"] for event in (start, stop, resume, done)] == [0, 2, 2, 6]
    versions = {"fm-science": fm_science.__version__, "torch": torch.__version__, "lightning": lightning.__version__}
    for event in (start, resume):
        assert {name: event["versions"][name].partition("+")[0] for name in versions} == {
            name: text.partition("+")[0] for name, text in versions.items()
        }
        assert (event["seed"], event["pid"]) == (5, os.getpid())
        assert event["command"] == shlex.join(sys.orig_argv)
    assert resume["changed"] == {"trainer.max_steps": [4, 6]}
    assert load_yaml(tmp_path / "config.yaml")["trainer"]["max_steps"] == 6


def test_a_failure_is_recorded_with_its_cause(tmp_path):
    def look(step):
        if step == 3:
            raise DivergedError("too\nfar")

    with pytest.raises(DivergedError):
        train(tmp_path, look=look)
    assert str(status(tmp_path)) == "failed at step 2: DivergedError: too far"
    assert history(tmp_path)[-1]["saved"] == 2


def test_a_run_is_running_while_it_is_locked_and_failed_where_it_left_no_end(tmp_path):
    assert status(tmp_path).word == "unknown"
    record(tmp_path, "start", 0)
    with locked(tmp_path):
        assert status(tmp_path).word == "running"
        assert str(os.getpid()) in status(tmp_path).detail
    assert status(tmp_path).word == "failed"
    assert "killed" in status(tmp_path).detail


@pytest.mark.parametrize("torn", [b'{"event": "en', b"\x00\x00\x00", b'{"event": 1}\n', b"[]\n"])
def test_a_line_that_was_cut_off_spoils_no_other(tmp_path, torn):
    record(tmp_path, "start", 0)
    with (tmp_path / HISTORY).open("ab") as stream:
        stream.write(torn)
    record(tmp_path, "end", 3, status="done")
    assert [(event["event"], event["step"]) for event in history(tmp_path)] == [("start", 0), ("end", 3)]
    assert json.loads((tmp_path / HISTORY).read_bytes().splitlines()[-1])["status"] == "done"


def test_changes_are_named_and_nothing_else_is():
    before = {"seed": 1, "run": "a", "data": {"sizes": (2, 3), "name": "x"}, "trainer": {"max_steps": 4}}
    now = {"seed": 1, "run": "b", "data": {"sizes": [2, 3], "name": "y"}, "trainer": {"max_steps": 4, "ema": 0.9}}
    assert changes(before, now) == {"data.name": ["x", "y"], "trainer.ema": [None, 0.9]}
