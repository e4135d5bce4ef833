"""The history of a run: ``history.jsonl``, one line for each start, resume and end, never rewritten.

A start or a resume records the command line, the versions, the seed, the machine, the time and the step; a resume also
the options that have changed, each as ``[before, now]``. An end records how the training ended (``done``, ``failed`` or
``stopped``), the step and the cause. A process that was killed leaves no end: then the last line is a start or a
resume, and no process has the lock of the folder.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fm_science import __version__
from fm_science.locks import lock_holder

HISTORY = "history.jsonl"
PACKAGES = ("torch", "lightning")
NOT_OPTIONS = {"version", "run", "resume", "command"}  #: keys of a configuration that do not affect the training
Event = dict[str, Any]


@dataclass(frozen=True)
class Status:
    """The status of a run.

    Attributes:
        word: ``running``, ``failed``, ``stopped`` (by a signal, and saved), ``done``, or ``unknown`` if nothing was
            recorded.
        step: the last one that was recorded; ``None``: not known.
        detail: the cause of the end, or the process that trains; may be empty.
    """

    word: str
    step: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}"
        return f"{self.word}{at}{f': {self.detail}' if self.detail else ''}"


def record(folder: Path, event: str, step: int, **more: Any) -> None:
    """Append a line to the history of a run, and wait until it is on the disk. Raises OSError if there is no space.

    Args:
        folder: the run's.
        event: ``start``, ``resume`` or ``end``.
        step: how many steps the run has made.
        more: further plain values to record.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"event": event, "time": now, "step": step, **more}, default=str)
    with (folder / HISTORY).open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read() == b"\n" else f"\n{line}"  # the last line was truncated while it was written
        stream.write(f"{line}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())


def origin() -> Event:
    """What a training depends on: command line, versions and machine."""
    versions = {"fm-science": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "command": shlex.join(sys.orig_argv), "versions": versions, "host": socket.gethostname(), "pid": os.getpid(),
    }  # fmt: skip


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The options that differ, by their dotted names, each as ``[before, now]``; ``None`` stands for one that did not
    exist."""
    old, new = _flat(before), _flat(now)
    return {name: [old.get(name), value] for name, value in new.items() if name not in old or old[name] != value}


def history(folder: Path) -> list[Event]:
    """What was recorded of a run, oldest first; truncated lines are left out."""
    try:
        text = (folder / HISTORY).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [event for event in map(_event, text.splitlines()) if event is not None]


def status(folder: Path) -> Status:
    """The status of the run in a folder."""
    events, holder = history(folder), lock_holder(folder)
    step = int(events[-1]["step"]) if events else None
    if holder is not None:
        return Status("running", None, f"{holder}; it began at step {step or 0}")
    if not events:
        return Status("unknown", None, "no start was recorded")
    last = events[-1]
    if last["event"] == "end":
        return Status(str(last.get("status")), step, str(last.get("cause") or ""))
    return Status("failed", None, f"killed, or the machine went down; it began at step {step}, {last.get('time')}")


def _event(line: str) -> Event | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) and "event" in found else None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a tree by dotted names, as JSON has them."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in NOT_OPTIONS:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = json.loads(json.dumps(value, default=str))
    return found
