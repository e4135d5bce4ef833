"""The newest checkpoints are kept, and a broken one is noticed wherever it is read."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

import fm_science
from fm_science.checkpoints import (
    FOLDER,
    LAST,
    PREVIOUS,
    BrokenCheckpoint,
    checkpoint_name,
    checkpoints,
    newest,
    read_checkpoint,
    rotate,
)
from fm_science.errors import UserError
from fm_science.storage import load_yaml
from fm_science.training import Trainer, callbacks, fit
from tests import toy

OPTIONS = Trainer(
    max_steps=6, validate_every=100, checkpoint_every=2, validation_samples=0, progress=False, keep_checkpoints=3,
    accelerator="cpu", log_every=1,
)  # fmt: skip


def train(folder, resume=False, **changes):
    torch.manual_seed(0)
    return fit(toy.build(), replace(OPTIONS, **changes), None, folder, 3, resume)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Pictures take longer than these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody touched."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "run")


def steps(folder):
    return {file.name: read_checkpoint(file)["global_step"] for file in checkpoints(folder / FOLDER)}


def flip(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 1 << random.Random(place).randrange(8)
    file.write_bytes(data)


def middle(file):
    """A place inside the largest tensor."""
    return file.stat().st_size // 2


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_as_many_are_kept_as_asked_for_and_fewer_on_a_resume(whole, run):
    assert steps(whole) == {LAST: 6, PREVIOUS: 4, "previous-2.ckpt": 2}
    train(run, resume=True, max_steps=8, keep_checkpoints=2)
    assert steps(run) == {LAST: 8, PREVIOUS: 6}
    train(run, resume=True, max_steps=10, keep_checkpoints=1)
    assert steps(run) == {LAST: 10}
    assert sorted(file.name for file in (run / FOLDER).iterdir()) == [LAST], "nothing else is left"


def test_wherever_the_rotation_is_cut_off_the_newest_stay(tmp_path, monkeypatch):
    """Each call that changes the folder is a place where a process may be killed."""

    class Killed(BaseException):
        pass

    left = [0]

    def counted(call):
        def run(*words, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*words, **options)

        return run

    for name in ("link", "replace", "unlink"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    for calls in range(20):
        folder = tmp_path / str(calls)
        folder.mkdir()
        left[0] = 10**6
        for k in range(4):
            (folder / "part").write_text(str(k))
            if k == 3:
                left[0] = calls
            with suppress(Killed):
                rotate(folder / "part", folder, 3)
        found = [file.read_text() for file in checkpoints(folder)]
        assert sorted({*found}, reverse=True)[:2] in (["2", "1"], ["3", "2"])
        assert found == sorted(found, reverse=True)
    assert found == ["3", "2", "1"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_system_without_links_keeps_as_many(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "not supported")))
    for k in range(5):
        (tmp_path / "part").write_text(str(k))
        rotate(tmp_path / "part", tmp_path, 4)
    assert [file.read_text() for file in checkpoints(tmp_path)] == ["4", "3", "2", "1"]
    assert [file.name for file in checkpoints(tmp_path)] == [checkpoint_name(age) for age in range(4)]


def test_a_flipped_bit_is_noticed_or_changes_nothing(run):
    """Bits that mean nothing (padding, dates in the archive) are the only ones that are not noticed."""
    file = run / FOLDER / LAST
    data, before = file.read_bytes(), read_checkpoint(file)
    draw, noticed = random.Random(7), 0
    for _ in range(60):
        flip(file, draw.randrange(len(data)))
        try:
            assert same(read_checkpoint(file), before)
        except BrokenCheckpoint:
            noticed += 1
        file.write_bytes(data)
    assert noticed > 15  # more than a quarter of the file are tensors and their names


BREAK = {
    "flipped": lambda file: flip(file, middle(file)),
    "truncated": lambda file: os.truncate(file, middle(file)),
    "empty": lambda file: os.truncate(file, 0),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_one_is_passed_over_with_one_line(run, whole, how, caplog):
    for file in checkpoints(run / FOLDER)[:2]:
        BREAK[how](file)
    with caplog.at_level(logging.WARNING, "fm_science"):
        flow = fm_science.load(run, toy.build())
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "\n" not in line
    assert re.search(r"last.ckpt.*previous.ckpt.*going on from previous-2.ckpt, of step 2$", line)
    kept = read_checkpoint(whole / FOLDER / "previous-2.ckpt")["state_dict"]
    assert all(torch.equal(value, kept[f"flow.{name}"]) for name, value in flow.state_dict().items())
    caplog.clear()
    train(run, resume=True)
    assert len(caplog.records) == 1
    assert same(*(read_checkpoint(folder / FOLDER / LAST)["state_dict"] for folder in (run, whole)))
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert set(steps(run).values()) == {2, 4, 6}, "the broken ones push out no whole one"


def test_where_none_is_whole_one_line_says_so(run):
    for file in checkpoints(run / FOLDER):
        BREAK["flipped"](file)
    config = load_yaml(run / "config.yaml")
    for attempt in (lambda: fm_science.load(run, toy.build()), lambda: train(run, resume=True, max_steps=99)):
        with pytest.raises(UserError, match=r"last.ckpt is damaged.*nor is an older one whole") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert load_yaml(run / "config.yaml") == config, "a resume that is refused changes no options"


def test_one_of_another_domain_is_no_broken_one(run):
    with pytest.raises(UserError, match="of domain 'toy', and this run is of 'ring'"):
        newest(run / FOLDER, "ring")
