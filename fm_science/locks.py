"""One training at a time in a run folder: two that write into the same one would corrupt it.

The lock is the operating system's own (a record lock on the file ``.lock`` in the folder), so it ends with the process
that has it, for whatever reason: nothing is left that would block the next one. Data workers do not inherit it.
What the file says (host, process, time, command) only shows which process has it.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fm_science.errors import UserError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
TRIES, PAUSE = 5, 0.05  #: an attempt may coincide with a process that only tests the lock
log = logging.getLogger("fm_science")


class LockedError(UserError):
    """Another process trains in the folder."""


@dataclass(frozen=True)
class Holder:
    """The process that has the lock of a folder. Empty texts and 0: not known."""

    host: str = ""
    pid: int = 0
    since: str = ""
    command: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host or 'an unknown host'} since {self.since} ({self.command})"


@dataclass
class _Lock:
    """A lock of this process: its thread, and how many times it is nested."""

    holder: Holder
    thread: int
    depth: int = 0


_open: dict[tuple[int, Path], _Lock] = {}  # by process and folder, since a fork copies this but does not have the lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process, and no other thread, can lock ``folder``; the same thread may lock it again.

    If the file system has no locks, a warning is logged and nothing is locked.

    Raises:
        LockedError: when another process has the lock; the message names it.
        UserError: when the folder does not exist, or cannot be written.
    """
    key = (os.getpid(), folder.resolve())
    lock = _open.get(key)
    if lock is not None and lock.thread != threading.get_ident():
        raise LockedError(_refusal(folder, lock.holder))
    if lock is not None:
        lock.depth += 1
        try:
            yield
        finally:
            lock.depth -= 1
        return
    handle = _acquire(folder)
    _open[key] = _Lock(_note(handle), threading.get_ident())
    try:
        yield
    finally:
        del _open[key]
        os.close(handle)  # which releases the lock


def lock_holder(folder: Path) -> Holder | None:
    """The process that trains in a folder now; ``None``: none."""
    lock = _open.get((os.getpid(), folder.resolve()))
    if lock is not None:  # opening and closing the file would release the lock of this process
        return lock.holder
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _try(handle, shared=True) else _holder(handle)
    except OSError:  # the file system has no locks
        return None
    finally:
        os.close(handle)


def _acquire(folder: Path) -> int:
    """The open and locked file of a folder."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}") from error
    try:
        for _ in range(TRIES):
            if _try(handle):
                return handle
            time.sleep(PAUSE)
    except OSError as error:
        log.warning("%s is not locked, since its file system has no locks (%s): train in it only once at a time",
                    folder, error.strerror)  # fmt: skip
        return handle
    holder = _holder(handle)
    os.close(handle)
    raise LockedError(_refusal(folder, holder))


def _try(handle: int, shared: bool = False) -> bool:
    """Whether the file could be locked at once. Raises OSError if the file system has no locks."""
    if sys.platform == "win32":
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.lockf(handle, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows both
        return False
    return True


def _note(handle: int) -> Holder:
    """Write which process has the lock."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(socket.gethostname(), os.getpid(), now, shlex.join(sys.orig_argv))
    with suppress(OSError):  # such as on a full disk; then it is not known which process has it
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(holder)).encode(), 0)
    return holder


def _holder(handle: int) -> Holder:
    try:
        about = json.loads(os.pread(handle, 1 << 16, 0))
        return Holder(str(about["host"]), int(about["pid"]), str(about["since"]), str(about["command"]))
    except (OSError, ValueError, LookupError, TypeError):
        return Holder()


def _refusal(folder: Path, holder: Holder) -> str:
    words = " ".join(str(holder).split())
    return f"{folder} is in use: {words} trains in it. Wait for its end, or stop it; only one can write into a run"
