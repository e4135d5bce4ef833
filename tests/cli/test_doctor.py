"""Doctor: a table of checks, and an exit code that tells whether all have passed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fm_science.commands import doctor, trial

from .conftest import Command


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the laws of spaces, which have tests of their own, and without times, which tests do not judge."""
    monkeypatch.setattr(doctor, "spaces", lambda: iter(()))
    monkeypatch.setattr(doctor, "SLOWER", float("inf"))
    monkeypatch.setattr(doctor, "IMPORT", float("inf"))
    monkeypatch.setattr(doctor, "threads", lambda: doctor.Check("threads", True, "1 on 1 cores"))


@pytest.mark.usefixtures("brief")
def test_a_sound_installation_and_domain_pass(fm: Command) -> None:
    done = fm("doctor", "domain=ring", "preset=small")
    assert done.code == 0, done.out + done.err
    for check in ("versions", "device", "exact resume", "domain ring: import", "domain ring: data", "ring: laws"):
        assert any(check in line and " pass " in line for line in done.out.splitlines()), check


@pytest.mark.usefixtures("brief")
def test_what_is_broken_is_told(fm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "resume", lambda: (False, "weights differ by 0.1"))
    done = fm("doctor")
    assert done.code == 1
    assert "FAIL  weights differ by 0.1\n" in done.out
    assert done.err == "fm-science: 1 of 6 checks failed\n"


def test_a_broken_law_is_a_line_with_its_number() -> None:
    def broken() -> dict[str, float]:
        raise AssertionError("x breaks 2 of 9 laws:\n  exp(x, 0) = x: error 1\n  count: error 2; mend count")

    found = list(doctor._laws("laws of X", broken, "look"))
    assert [(check.passed, check.figure) for check in found] == [
        (False, "exp(x, 0) = x: error 1"), (False, "count: error 2; mend count")
    ]  # fmt: skip


def test_both_small_steps_learn() -> None:
    """The step that is timed and the one by hand are the same training: both losses fall."""
    torch.manual_seed(0)
    for step in (trial.by_engine(), trial.by_hand()):
        assert all(step() is None for _ in range(2))
    x, t = torch.zeros(3, 1, 2), torch.zeros(3)
    out: Tensor = trial.Perceptron(4)(x, t)
    assert out.shape == (3, 1, 2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["here"], "takes domain=NAME"), (["domain=rung"], "mean 'ring'?"), (["domain=ring", "data.x=1"], "data.x")],
)
def test_mistakes(fm: Command, words: list[str], expected: str) -> None:
    done = fm("doctor", *words)
    assert (done.code, expected in done.err) == (2, True), done.err
