"""Tuning writes a run of its own, which is used as any other; the user's code is imported when it is named, only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import fm_science

from .conftest import Command

MINE = """
import math

def right(x1):
    return x1[:, 0, 0]

def counted(x1):
    return (x1[:, 0, 0].detach() > 0).float()  # no gradient

def one(x1):
    return x1.sum()

NOT = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)


WORDS = ("updates=3", "batch=8", "steps=4", "evaluations=2", "log_every=2", "lr=0.01", "run=tuned")


def test_a_tuned_run_is_a_run(fm: Command, trained: Path, mine: None, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()}
    done = fm("tune", "trained", "reward=my_rewards:right", *WORDS)
    assert done.code == 0, done.err
    assert "update 3 of 3: loss" in done.out
    assert {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()} == before
    flow, old = fm_science.load(tmp_path / "tuned"), fm_science.load(trained)
    x = flow.sample(fm_science.Context.full(4), seed=0)
    assert x.shape == (4, 1, 2)
    assert not torch.equal(x, old.sample(fm_science.Context.full(4), seed=0))
    sys.modules.pop("my_rewards")  # neither sampling nor loading asks for the reward
    (tmp_path / "my_rewards.py").unlink()
    assert fm("sample", "tuned", "n=2", "out=drawn").code == 0
    info = fm("info", "tuned")
    assert info.code == 0
    assert "tune/reward" in info.out
    (tmp_path / "my_rewards.py").write_text(MINE)
    again = fm("tune", "trained", "reward=my_rewards:right", *WORDS)
    assert (again.code, "already holds files" in again.err) == (2, True)  # nothing saved is lost


def test_a_reward_without_a_gradient_tunes_by_policy_gradients(
    fm: Command, trained: Path, mine: None, tmp_path: Path
) -> None:  # fmt: skip
    words = ("method=policy_gradient", *WORDS)
    done = fm("tune", "trained", "reward=my_rewards:counted", *words)
    assert done.code == 0, done.err
    flow, old = fm_science.load(tmp_path / "tuned"), fm_science.load(trained)
    moved = [not torch.equal(a, b) for a, b in zip(flow.parameters(), old.parameters(), strict=True)]
    assert any(moved)
    assert fm("tune", "trained", "reward=my_rewards:counted", *WORDS[:-1], "run=other").code == 2
    done = fm("tune", "trained", "reward=my_rewards:right", "method=guess", *WORDS)
    assert (done.code, "policy_gradient" in done.err) == (2, True)


def test_mistakes_are_told_in_one_line(fm: Command, trained: Path, mine: None, tmp_path: Path) -> None:
    for word, hint in {
        "reward=my_rewards": "MODULE:FUNCTION",
        "reward=nowhere_to_be_found:f": "no module",
        "reward=my_rewards:left": "no function 'left'",
        "reward=my_rewards:NOT": "no function 'NOT'",
        "reward=my_rewards:one": "one number a sample",
    }.items():
        done = fm("tune", "trained", word, *WORDS)
        assert (done.code, hint in done.err, done.err.count("\n")) == (2, True, 1), done.err
    assert fm("tune", "trained", "reward=my_rewards:right", "update=3").code == 2
    assert fm("tune", "reward=my_rewards:right").code == 2
    assert not (tmp_path / "tuned").exists()
