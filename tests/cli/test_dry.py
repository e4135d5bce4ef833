"""A dry run builds everything and writes nothing; two runs are compared by their options."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command


def test_a_dry_run_measures_and_writes_nothing(fm: Command, tmp_path: Path) -> None:
    done = fm("train", "domain=ring", "preset=small", "run=never", "dry=true")
    assert done.code == 0, done.err
    assert "parameters" in done.out
    assert " ms on cpu, memory " in done.out
    assert done.out.endswith("dry run: nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_finds_mistakes(fm: Command) -> None:
    assert fm("train", "domain=ring", "dry=perhaps").code == 2
    done = fm("train", "domain=ring", "preset=small", "dry=true", "network.width=0")
    assert (done.code, "network.width" in done.err) == (2, True)


@pytest.mark.usefixtures("trained")
def test_options_that_differ(fm: Command, tmp_path: Path) -> None:
    assert "dry" not in (tmp_path / "trained" / "config.yaml").read_text()
    text = (tmp_path / "trained" / "config.yaml").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text(text.replace("seed: 0", "seed: 5").replace("  lr: ", "  lr: 9"))
    done = fm("config", "diff", "trained", "other")
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["option", "optimizer.lr", "seed"]
    assert lines[2] == ["seed", "0", "5"]
    assert fm("config", "diff", "trained", "trained").out == "trained and trained have the same options\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "takes two runs"), (["dif", "a", "b"], "did you mean 'diff'?"), (["diff", "a"], "takes two runs")],
)
def test_mistakes(fm: Command, words: list[str], expected: str) -> None:
    done = fm("config", *words)
    assert (done.code, expected in done.err) == (2, True)
