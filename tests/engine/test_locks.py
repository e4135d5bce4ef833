"""A run folder is written by one training at a time, and a lock ends with the process that held it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fm_science.locks import LOCK, LockedError, lock_holder, locked
from fm_science.training import Trainer, fit
from tests import toy

HOLD = """
import pathlib, sys
from fm_science.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of ``tmp_path``."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_a_lock_is_said_in_one_line(tmp_path, other):
    holder = lock_holder(tmp_path)
    assert (holder.host, holder.pid) == (socket.gethostname(), other.pid)
    with pytest.raises(LockedError) as error, locked(tmp_path):
        pass
    words = str(error.value)
    assert "\n" not in words
    assert all(str(part) in words for part in (tmp_path, other.pid, holder.host, holder.since))


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(tmp_path, other, signum):
    other.send_signal(signum)
    other.wait()
    assert (tmp_path / LOCK).is_file(), "what is left over does not block"
    assert lock_holder(tmp_path) is None
    with locked(tmp_path):
        assert lock_holder(tmp_path).pid == os.getpid()
    assert lock_holder(tmp_path) is None


def test_a_child_neither_inherits_a_lock_nor_keeps_it(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                with locked(tmp_path):
                    os._exit(1)
            except LockedError:
                signal.pause()
        # looking, from the process that holds it, does not end the lock
        assert lock_holder(tmp_path).pid == os.getpid()
    with locked(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_thread_may_lock_twice_and_another_may_not(tmp_path):
    refused = []

    def attempt():
        try:
            with locked(tmp_path):
                pass
        except LockedError as error:
            refused.append(error)

    with locked(tmp_path), locked(Path(tmp_path, "..", tmp_path.name)):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_a_holder_that_left_no_words_is_another_process(tmp_path, other):
    for text in ("", "{", "[]", json.dumps({"host": "x"})):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(LockedError, match="another process trains in it"), locked(tmp_path):
            pass


def test_a_training_is_refused_where_another_runs(tmp_path, other):
    options = Trainer(max_steps=1, progress=False, validation_samples=0, accelerator="cpu")
    with pytest.raises(LockedError, match=f"process {other.pid}"):
        fit(toy.build(), options, None, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [LOCK], "nothing was written"
    other.kill()
    other.wait()
    fit(toy.build(), options, None, tmp_path)
