"""Where a command writes: checked before any long work, and never at the cost of what is already there."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fm_science import config, launch
from fm_science.errors import UserError

CHECKPOINT = Path("checkpoints", "last.ckpt")
LEARNED = {"metrics.csv", "checkpoints", "samples", "report"}  # what a run folder holds once steps were made


def claim(run: Path) -> None:
    """Make a new run folder. Raises UserError if it already holds something: nothing that was saved is lost. Logs of
    errors do not count, nor does what a run wrote before it learned anything."""
    if run.is_dir() and not _blank(run):
        ways = f"continue it with resume={run}" if (run / CHECKPOINT).is_file() else "move those elsewhere"
        raise UserError(f"{run} already holds files; choose another run=DIR, or {ways}")
    writable(run)


def _blank(run: Path) -> bool:
    """Whether a folder holds no files but logs of errors, or is that of a run that stopped before its first numbers."""
    files = [file.relative_to(run) for file in run.rglob("*") if file.is_file()]
    kept = {file.parts[0] for file in files if not file.match("error*.log")}
    begun = config.FILE in kept and kept.isdisjoint(LEARNED) and {"version", "trainer"} <= set(config.read(run))
    return not kept or begun


def writable(folder: Path) -> None:
    """Make a folder if need be. Raises UserError if nothing can be written there."""
    trial = folder / ".trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}") from error


def checkpoint(run: Path) -> Path:
    """The last checkpoint of a run. Raises UserError if there is none."""
    if not (run / CHECKPOINT).is_file():
        raise UserError(f"{run} holds no checkpoint ({CHECKPOINT}): train first, or choose another run")
    return run / CHECKPOINT


@contextmanager
def log_errors(run: Path) -> Iterator[None]:
    """Write the traceback of an unexpected failure into ``error.log`` in the folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        file = run / ("error.log" if launch.rank() == 0 else f"error-{launch.rank()}.log")
        with suppress(OSError):  # such as on a full disk, which may be the failure itself
            file.write_text(traceback.format_exc())
            error.add_note(f"traceback in {file}")
        raise
