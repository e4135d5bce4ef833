"""Runs survive kills, full disks and flipped bytes, and end as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from fm_science.checkpoints import FOLDER, LAST, PREVIOUS, checkpoints

from .kills import DOMAINS, Place, differences, outcome, trial


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_few_kills_change_nothing(tmp_path: Path, domain: str) -> None:
    done = trial(domain, tmp_path, kills=2, seed=1)
    assert done.differences == []
    assert done.endings["SIGKILL"] + done.endings["SIGTERM"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_sixty_kills_change_nothing(tmp_path: Path, domain: str) -> None:
    done = trial(domain, tmp_path, kills=60 // len(DOMAINS), seed=0, pictures=True)
    assert done.differences == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run that nobody stopped."""
    place = Place(tmp_path_factory.mktemp("whole"), "table")
    place.finish()
    return place


@pytest.fixture
def begun(tmp_path: Path, whole: Place) -> Place:
    """A run that was stopped on its way, with two checkpoints."""
    place = Place(tmp_path, "table")
    process = place.begin(*place.train())
    while len(checkpoints(place.run / FOLDER)) < 2:
        assert process.is_alive(), place.err
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return place


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, whole: Place) -> None:
    place = Place(tmp_path, "table")
    place.finish()
    shutil.rmtree(place.run / FOLDER)
    assert place.do("train", "resume=run") == 2
    assert "holds no" in place.err  # it had ended: nobody but its user has removed the checkpoints
    (start, *_) = (place.run / "history.jsonl").read_text().splitlines()
    (place.run / "history.jsonl").write_text(f"{start}\n")
    assert place.do("train", "resume=run") == 2  # there are samples, so there were checkpoints
    shutil.rmtree(place.run / "samples")
    place.finish()
    assert "begins again" in (place.folder / "out").read_text()
    assert differences(outcome(whole.run), outcome(place.run)) == []


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_a_disk_that_takes_no_more_costs_one_line_and_no_run(whole: Place, begun: Place) -> None:
    """A limit on the size of files stands for a full disk: the same call fails in the same way."""
    room = (whole.run / FOLDER / LAST).stat().st_size // 2
    assert begun.do("train", "resume=run", largest=room) == 1
    assert begun.err.count("\n") == 1
    assert all(words in begun.err for words in ("File too large", "the one before is kept", "resume"))
    begun.finish()
    assert differences(outcome(whole.run), outcome(begun.run)) == []


def test_flipped_bytes_are_noticed_by_every_command(whole: Place, begun: Place) -> None:
    last, previous = (begun.run / FOLDER / name for name in (LAST, PREVIOUS))
    flip(last)
    for words in (["sample", "run", "n=2"], ["train", "resume=run"]):
        kept = shutil.copytree(begun.run, begun.folder / "kept", dirs_exist_ok=True)
        assert begun.do(*words) == 0, begun.err
        (line,) = [line for line in begun.err.splitlines() if "ckpt" in line]
        assert "last.ckpt is damaged" in line
        assert "going on from previous.ckpt, of step" in line
        assert kept.is_dir()
    shutil.rmtree(begun.run / "samples" / "table", ignore_errors=True)
    ended = outcome(begun.run)
    expected = outcome(whole.run)
    assert [d for d in differences(expected, ended) if "alone" not in d] == []
    for file in (last, previous):
        flip(file)
    for words in (["sample", "run", "n=2"], ["train", "resume=run", "trainer.max_steps=40"]):
        assert begun.do(*words) == 2
        assert begun.err.count("\n") == 1
        assert "last.ckpt is damaged" in begun.err
