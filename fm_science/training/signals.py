"""A training ends cleanly after a signal: the step is finished, the state saved, and then the training ends.

SIGINT (Ctrl-C), SIGTERM (what schedulers and ``kill`` send) and SIGUSR1 (SLURM's warning before the time is over) are
recorded while a step runs, and act after it. Long calls that change nothing, validations and sampling, are interrupted
at once. A second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

OBEYED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
PATIENCE = 30  #: seconds after which a data worker ends after a signal, even if it is busy


class Halt(BaseException):
    """Ends the loop from inside. Not an Exception, so that no handler of errors catches it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """Records the signals that arrive inside its context.

    Attributes:
        received: the first signal, 0 before there is one.
    """

    def __init__(self) -> None:
        self.received = 0
        self._eager = False
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # handlers belong to the main thread
            self._pid = os.getpid()
            self._before = {signum: signal.getsignal(signum) for signum in OBEYED}
            self.install()
        return self

    def install(self) -> None:
        """Install the handlers, also over those of a library that has replaced them."""
        for signum in self._before:
            signal.signal(signum, self._note)

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a data worker, which the main process will end
            if signum == signal.SIGTERM:
                signal.alarm(PATIENCE)
            return
        again = signum == signal.SIGINT == self.received
        self.received = self.received or signum
        if again or self._eager:
            raise Halt(signum)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal acts at once."""
        self._eager = True
        try:
            if self.received:
                raise Halt(self.received)
            yield
        finally:
            self._eager = False


def requeue() -> str:
    """Ask SLURM to requeue this job, and return the outcome as text; "" outside SLURM."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{job}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if job else os.environ.get("SLURM_JOB_ID", "")
    program = shutil.which("scontrol")
    if not job or program is None:
        return ""
    done = subprocess.run([program, "requeue", job], capture_output=True, text=True)
    return f"; SLURM starts job {job} again" if done.returncode == 0 else f"; scontrol requeue {job} failed"
