"""What a stranger's run folder may try, and does not get: no code, no file outside, no secret, no formula."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fm_science
from fm_science import tables
from fm_science.errors import UserError
from fm_science.samples import RECORD, files_in, inside, read_record
from fm_science.trust import UntrustedCode

from .conftest import Command


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing here talks to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def stranger(fm: Command, tmp_path: Path) -> Path:
    """A run that somebody sent."""
    words = ["trainer.max_steps=1", "trainer.progress=false", "trainer.validation_samples=0"]
    assert fm("train", "domain=ring", "preset=small", "run=stranger", *words).code == 0
    return tmp_path / "stranger"


def refused(fm: Command, *words: str) -> str:
    """The one line with which a command refuses."""
    done = fm(*words)
    assert (done.code, done.err.count("\n")) == (2, 1), done
    return done.err


HELPER = "import pathlib\npathlib.Path('owned').touch()\ndef u(x):\n    return x.square().sum((-1, -2))\n"


def test_code_that_a_run_names_is_imported_only_when_it_is_trusted(
    fm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "helper_of_a_stranger.py").write_text(HELPER)
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["data.points=3", "data.dim=2", "data.mcmc=20"]
    source = "data.source=helper_of_a_stranger:u"
    config = tmp_path / "stranger" / "config.yaml"
    (tmp_path / "stranger" / "checkpoints").mkdir(parents=True)
    (tmp_path / "stranger" / "checkpoints" / "last.ckpt").write_bytes(b"")
    shown = fm("train", "domain=point_cloud", "preset=null", source, *small[:2], "--cfg", "job", "--resolve")
    assert shown.code == 0, shown.err
    config.write_text(f"version: 0.0.1\n{shown.out}")
    for words in (["sample", "stranger"], ["evaluate", "stranger"], ["train", "resume=stranger"]):
        assert "trust=true" in refused(fm, *words)
    with pytest.raises(UntrustedCode, match="helper_of_a_stranger:u"):
        fm_science.load("stranger")
    assert "imports code, with trust=true only: data.source=helper_of_a_stranger:u" in fm("info", "stranger").out
    assert not (tmp_path / "owned").exists()
    trusted = fm("sample", "stranger", "trust=true")
    assert (tmp_path / "owned").exists(), trusted
    assert "trust" not in trusted.err, "what is wrong now is the checkpoint"


def pickled(folder: Path) -> bytes:
    class Attack:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(folder / "owned"),)

    return pickle.dumps(Attack())


@pytest.mark.parametrize("command", ["sample", "evaluate", "resume"])
def test_a_pickle_in_place_of_weights_does_not_run(fm: Command, stranger: Path, tmp_path: Path, command: str) -> None:
    file = stranger / "checkpoints" / "last.ckpt"
    words = ["train", "resume=stranger"] if command == "resume" else [command, "stranger"]
    for name, data in {"pickle": pickled(tmp_path), "torch": None}.items():
        if data is None:
            torch.save({"state_dict": {}, "x": pickle.loads(pickle.dumps(torch.nn.Linear(1, 1)))}, file)
        else:
            file.write_bytes(data)
        message = refused(fm, *words)
        assert "weights_only" not in message, name
    assert not (tmp_path / "owned").exists()


TAGS = [
    "!!python/object/apply:os.mkdir [owned]", "!!python/name:os.system", "!!python/module:antigravity",
    "!!python/object/new:os.mkdir [owned]", "!include /etc/passwd", "&a [*a, *a]", "${oc.env:SECRET}",
    "${oc.decode:${oc.env:SECRET}}", "${hydra:runtime.cwd}",
]  # fmt: skip


@pytest.mark.parametrize("tag", TAGS)
def test_a_configuration_holds_plain_values_only(
    fm: Command, stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:  # fmt: skip
    monkeypatch.setenv("SECRET", "do-not-tell")
    with (stranger / "config.yaml").open("a") as stream:
        stream.write(f"attack: {tag}\n")
    for words in (["sample", "stranger"], ["train", "resume=stranger"], ["info", "stranger"], ["evaluate", "stranger"]):
        done = fm(*words)
        assert done.code == 2, done
        assert "do-not-tell" not in done.out + done.err
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["../../victim", "/etc/passwd", "..", "a/../../victim", "link/victim", ""])
def test_a_record_of_samples_removes_nothing_outside_its_folder(
    fm: Command, stranger: Path, tmp_path: Path, name: str
) -> None:  # fmt: skip
    victim = tmp_path / "victim"
    victim.write_text("mine")
    samples = stranger / "samples"
    samples.mkdir(exist_ok=True)
    (samples / "link").symlink_to(tmp_path)
    (samples / RECORD).write_text(f"files: ['{name}']\ntrajectories: []\n")
    assert "stranger" in refused(fm, "sample", "stranger", "n=1")
    assert victim.read_text() == "mine"


def test_links_in_a_run_are_not_written_through(fm: Command, stranger: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(stranger / "samples", ignore_errors=True)
    (stranger / "samples").symlink_to(outside)
    assert "link" in refused(fm, "sample", "stranger", "n=1")
    (stranger / "samples").unlink()
    (stranger / "samples").mkdir()
    (stranger / "samples" / ".part").symlink_to(outside)
    assert "link" in refused(fm, "sample", "stranger", "n=1")
    (stranger / "samples" / ".part").unlink()
    (stranger / "samples" / "way_0000.txt").symlink_to(outside / "file")
    assert fm("sample", "stranger", "n=1", "steps=2", "trajectory=true").code == 0
    assert list(outside.iterdir()) == []


def test_names_inside_a_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/b.csv") == tmp_path / "a" / "b.csv"
    for name in ("../x", "/x", "a/../x", "", ".."):
        with pytest.raises(UserError):
            inside(tmp_path, name)
    (tmp_path / RECORD).write_text("files: !!python/object/apply:os.mkdir [owned]\n")
    with pytest.raises(UserError, match="cannot read"):
        read_record(tmp_path / RECORD)


def test_samples_that_are_not_whole_are_not_read(tmp_path: Path) -> None:
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "half.csv").touch()
    (tmp_path / "whole.csv").touch()
    assert [file.name for file in files_in(tmp_path)] == ["whole.csv"]


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+2", "-2+3", "@SUM(A1)", "\t=1", " =1", "-inf(x)"])
def test_a_name_is_no_formula(text: str) -> None:
    written = tables.cell(text)
    assert str(written).startswith("'")
    assert tables.plain(written) == text


def test_numbers_and_plain_names_stay_as_they_are() -> None:
    for value in (-1.5, 3, None, "-1.5", "+2e-3", "CCO", "[O-]CC", "1abc", ""):
        assert tables.cell(value) == value
        assert value is None or tables.plain(tables.cell(value)) == str(value)


def test_a_name_is_no_markup() -> None:
    assert (
        tables.markup("<img src=x onerror='a(\"b\")'>&")
        == "&lt;img src=x onerror=&#x27;a(&quot;b&quot;)&#x27;&gt;&amp;"
    )


def test_tables_of_samples_hold_no_formulas(tmp_path: Path) -> None:
    from fm_science.commands.evaluate import write_rows

    write_rows([{"name": "=1+1", "value": -2.5}], tmp_path / "samples.csv")
    with (tmp_path / "samples.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[1] == ["'=1+1", "-2.5"]
