"""Runs: a folder with everything about one training, so that it is self-contained.

``config.yaml`` has the options, ``statistics.safetensors`` what the domain fitted to its data before the first step,
``checkpoints/last.ckpt`` the weights. Sampling needs no more: the data may be deleted, and the folder moved.
``history.jsonl`` records when, where and how it was trained (:mod:`fm_science.history`).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import __version__
from fm_science.checkpoints import FOLDER, LAST, checkpoints, newest
from fm_science.domain import Domain
from fm_science.errors import UserError
from fm_science.history import Event, Status, history, status
from fm_science.locks import LOCK, locked
from fm_science.record import RecordDomain
from fm_science.storage import PART, load_tree, load_yaml, save_tree, save_yaml, writable
from fm_science.trained import Trained, Tree
from fm_science.weights import weights_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("fm_science")

FILE, STATISTICS = "config.yaml", "statistics.safetensors"
DIGEST = "data_sha256"  #: the key of the options that tells the content of a prepared file
CHECKPOINT = Path(FOLDER, LAST)
PASSING = (LOCK, PART, "error*.log")  #: names of files that are not part of a run
LEARNED = {"metrics.csv", "checkpoints", "samples", "report"}  #: the content of a run folder once steps were made


class Run(Trained):
    """A run folder.

    Args:
        folder: its path.
        config: its options, and plain keys: domain, preset, seed, version.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        super().__init__(str(folder), config, None)
        self.statistics = self._statistics()

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in a folder. Raises UserError if there is none, or it cannot be used here."""
        return cls(Path(folder), read_config(Path(folder)))

    @classmethod
    def create(cls, folder: str | os.PathLike[str], domain: Domain, options: Mapping[str, Any]) -> Run:
        """A new run of a domain: claims the folder and writes options and statistics.

        Args:
            folder: created if absent.
            domain: what is trained; its data are read, if its statistics are not given.
            options: the groups ``trainer`` and ``optimizer``, and plain keys such as ``seed``.

        Raises:
            UserError: when the folder already has something other than a run without any training step.
        """
        folder = Path(folder)
        claim(folder)
        record = isinstance(domain, RecordDomain)
        own = {} if record else {name: asdict(getattr(domain.options, name)) for name in domain.groups()}
        config = {"version": __version__, "domain": domain.name, **own, **options}
        if not record:
            save_statistics(domain, folder)
            config |= data_note(domain)
        save_yaml(config, folder / FILE)
        return cls(folder, config)

    def save(self, config: Mapping[str, Any]) -> None:
        """Replace the options."""
        self.config = {"version": __version__, **config}
        save_yaml(self.config, self.folder / FILE)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def status(self) -> Status:
        """Whether it is running, failed, stopped or done, at which step, and why."""
        return status(self.folder)

    @property
    def history(self) -> list[Event]:
        """Its history: each start, resume and end, oldest first."""
        return history(self.folder)

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, whole or not. Raises UserError if there is none."""
        found = checkpoints(self.folder / FOLDER)
        if not found:
            raise UserError(f"{self.label} holds no checkpoint ({CHECKPOINT}): train first, or choose another run")
        return found[0]

    @property
    def fingerprint(self) -> list[int]:
        about = self.checkpoint.stat()
        return [about.st_size, about.st_mtime_ns]

    def weights(self) -> Mapping[str, Tensor]:
        _ = self.checkpoint  # which says what to do where there is none
        _, kept, warning = newest(self.folder / FOLDER, self.name)
        if warning:
            log.warning(warning)
        return weights_of(kept)

    def _statistics(self) -> Tree | None:
        file = self.folder / STATISTICS
        if not file.is_file():
            return None
        kept = load_tree(file, "file of statistics")
        if kept.get("domain") != self.name:
            raise UserError(f"{file} is of domain {kept.get('domain')!r}, and {FILE} next to it of {self.name!r}")
        return kept["statistics"]


def save_statistics(domain: Domain, folder: Path) -> None:
    """Write the statistics of a domain into a run folder; if they were not given, its data are read for them."""
    about = {"domain": domain.name, "version": __version__}
    save_tree({**about, "statistics": domain.statistics}, folder / STATISTICS)


def data_note(domain: Domain) -> Tree:
    """What to note of the data of a domain among the options of a run: their SHA-256, where they say it."""
    digest = domain.data.digest
    return {DIGEST: digest} if digest else {}


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / FILE).is_file()


def read_config(folder: Path) -> Tree:
    """The configuration of a run folder. Raises UserError if it is not one."""
    if not folder.is_dir():
        raise UserError(f"no run folder {folder}")
    if not is_run(folder):
        raise UserError(f"{folder} is no run folder: it holds no {FILE}. Give a folder that training wrote")
    tree = load_yaml(folder / FILE)
    if not isinstance(tree.get("domain"), str):
        raise UserError(f"{folder / FILE} names no domain: it is not the configuration of a run")
    if "${" in str(tree):
        raise UserError(f"{folder / FILE} holds a reference ${{...}}: expected plain values, as training writes them")
    return tree


def claim(folder: Path) -> None:
    """Make a new run folder. Raises UserError if it already has files: nothing that was saved is lost. Logs of errors
    do not count, nor do files of a run that made no training step."""
    if folder.is_dir() and not _blank(folder):
        ways = f"continue it with resume={folder}" if checkpoints(folder / FOLDER) else "move those elsewhere"
        raise UserError(f"{folder} already holds files; choose another run=DIR, or {ways}")
    writable(folder)


def clear_unsaved(folder: Path) -> bool:
    """Whether a run was killed before its first checkpoint, so that it can only begin again, with the same result. Its
    rows of metrics are removed then: they will be made again. A run that holds samples or a report had a checkpoint."""
    begun = {event["event"] for event in history(folder)} == {"start"}
    if not begun or checkpoints(folder / FOLDER) or (folder / "samples").exists() or (folder / "report").exists():
        return False
    with locked(folder):
        (folder / "metrics.csv").unlink(missing_ok=True)
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
    return True


def _blank(folder: Path) -> bool:
    """Whether a folder has no files except logs of errors and partly written ones, or is that of a run that stopped
    before its first metrics."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    kept = {name for name in {file.parts[0] for file in files} if not any(map(Path(name).match, PASSING))}
    begun = FILE in kept and kept.isdisjoint(LEARNED) and {"version", "domain"} <= set(load_yaml(folder / FILE))
    return not kept or kept == {STATISTICS} or begun
