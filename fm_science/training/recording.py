"""What surrounds a training: its folder is locked for it, and the history of the run records how it began and ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fm_science import ranks
from fm_science.domain import Domain
from fm_science.errors import Stopped, signal_name
from fm_science.history import changes, origin, record
from fm_science.locks import locked
from fm_science.record import RecordDomain
from fm_science.runs import DIGEST, Run, claim, data_note, read_config
from fm_science.storage import PART, sweep

log = logging.getLogger("fm_science")


def first() -> bool:
    """Whether this process writes the files of the run."""
    return ranks.rank() == 0


@contextmanager
def reserved(folder: Path, resume: bool) -> Iterator[None]:
    """Inside, no other training writes into the run folder. A new one is created; one to resume must exist.

    Raises:
        LockedError: when another trains in it.
        UserError: when it has other files, or no run to resume.
    """
    if not first():  # the first process has the lock for all
        yield
        return
    if resume:
        read_config(folder)
    else:
        claim(folder)
    with locked(folder):
        sweep(folder, PART, "checkpoints/*.part", f"samples/{PART}")
        yield


@contextmanager
def recorded(
    folder: Path, seed: int, made: int, options: Mapping[str, Any], resume: bool,
    where: Callable[[], tuple[int, int | None]],
) -> Iterator[None]:  # fmt: skip
    """Record in the history of a run that a training begins, and how it ends.

    Args:
        folder: the run's.
        seed: of the training.
        made: how many steps the run has made before.
        options: what the run is trained with, which replaces its options where it is resumed.
        resume: whether it is.
        where: how many steps the run has made now, and how many its last checkpoint has.
    """
    if not first():
        yield
        return
    if not resume:
        record(folder, "start", made, seed=seed, **origin(), **{k: v for k, v in options.items() if k == DIGEST})
    else:
        run = Run.open(folder)
        now = {**run.config, **options}
        record(folder, "resume", made, seed=seed, **origin(), changed=changes(run.config, now))
        run.save(now)  # only after the values before were recorded
    try:
        yield
    except KeyboardInterrupt as error:
        _end(folder, where(), "stopped", signal_name(error.signum) if isinstance(error, Stopped) else "SIGINT")
        raise
    except BaseException as error:
        _end(folder, where(), "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    _end(folder, where(), "done")


def same_data(domain: Domain, folder: Path) -> dict[str, Any]:
    """What to note of the data (:func:`fm_science.runs.data_note`), with a warning where a run had others before."""
    if isinstance(domain, RecordDomain):
        return {}
    now, before = data_note(domain), Run.open(folder).config.get(DIGEST)
    if before is not None and now.get(DIGEST) != before:
        log.warning("the data of %s are not those that it began with (SHA-256 %s): it does not go on bit for bit",
                    folder, before)  # fmt: skip
    return now


def _end(folder: Path, where: tuple[int, int | None], status: str, cause: str = "") -> None:
    try:
        record(folder, "end", where[0], status=status, cause=cause, saved=where[1])
    except OSError as error:  # such as a full disk, which may be the failure itself
        log.warning("the end of %s (%s) was not recorded: %s", folder, status, error.strerror)
