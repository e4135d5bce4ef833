"""Which of several processes this is. Launchers (torchrun, srun, Lightning's own) set environment variables.

One such variable alone is not enough: shells, batch scripts and notebooks may set ``RANK`` or ``SLURM_PROCID``. A
process that relied on it would leave the writing to a first process that does not exist. So a number is used only if
the whole set of one launcher is there and is consistent.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fm_science.errors import UserError

WAIT = 600.0  #: seconds that further processes wait for the first


@dataclass(frozen=True)
class Launcher:
    """The variables of one launcher of several processes: it sets all of ``needed``."""

    name: str
    rank: str
    size: str
    needed: tuple[str, ...]

    def place(self, env: Mapping[str, str]) -> tuple[int, int] | None:
        """This process's number and how many there are; ``None`` if the variables are missing or inconsistent."""
        if not all(env.get(name) for name in (self.rank, self.size, *self.needed)):
            return None
        try:
            rank, size = int(env[self.rank]), int(env[self.size])
            beside = int(env.get("LOCAL_RANK", rank))
        except ValueError:
            return None
        fits = 0 <= rank < size and (self.rank == "SLURM_PROCID" or 0 <= beside <= rank)
        return (rank, size) if fits else None


MEETING = ("MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = (
    Launcher("torchrun", "RANK", "WORLD_SIZE", MEETING),
    Launcher("lightning", "LOCAL_RANK", "WORLD_SIZE", ("NODE_RANK", *MEETING)),
    Launcher("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_LOCALID")),
)
#: variables each of which libraries take for a rank
ALONE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "JSM_NAMESPACE_RANK", "SLURM_PROCID",
         "SLURM_LOCALID", "SLURM_NTASKS")  # fmt: skip


def _place() -> tuple[int, int]:
    found = [place for launcher in LAUNCHERS if (place := launcher.place(os.environ)) is not None]
    return found[0] if found else (0, 1)


def rank() -> int:
    """This process's number among those that cooperate; 0 when it is alone."""
    return _place()[0]


def world() -> int:
    """How many processes cooperate; 1 for a single process."""
    return _place()[1]


def launched() -> bool:
    """Whether another program (torchrun, srun) started several processes of this command."""
    return _place()[1] > 1


@contextmanager
def settled() -> Iterator[list[str]]:
    """Inside, variables that look like a rank but belong to no complete set of a launcher are removed from the
    environment, so that no library uses them; the value names those that no batch system explains."""
    agreed = any(launcher.place(os.environ) for launcher in LAUNCHERS)
    stray = {} if agreed else {name: os.environ.pop(name) for name in ALONE if name in os.environ}
    batch = "SLURM_JOB_ID" in os.environ  # its scripts have the variables of their one task
    try:
        yield [name for name in stray if not (batch and name.startswith("SLURM_"))]
    finally:
        os.environ.update(stray)


def wait_for_first(file: Path, seconds: float = WAIT) -> None:
    """Wait until the first process has written ``file``. Raises UserError when it has not after ``seconds``."""
    end = time.monotonic() + seconds
    while not file.is_file():
        if time.monotonic() > end:
            raise UserError(f"the first process has not written {file} within {seconds:.0f} s: look at its output")
        time.sleep(0.1)


def end_with_parent(every: float = 1.0) -> None:
    """End this process when the one that started it is gone: a rank that waits for a first one that was killed would
    wait for half an hour, and hold its memory."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
