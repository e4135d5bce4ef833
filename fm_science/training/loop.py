"""Fit: train a domain's flow into a run folder."""

from __future__ import annotations

import logging
import shlex
import signal
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fm_science import ranks
from fm_science.checkpoints import FOLDER
from fm_science.data import step_seed
from fm_science.domain import Domain
from fm_science.errors import Stopped, signal_name
from fm_science.flow import Flow
from fm_science.record import RecordDomain
from fm_science.runs import FILE, Run, save_statistics
from fm_science.storage import atomic_files
from fm_science.symmetries import Symmetry
from fm_science.trained import Trained
from fm_science.training.batches import Batches
from fm_science.training.callbacks import Curves, Samples, warm_average
from fm_science.training.clock import Clock, Deadline, Threads
from fm_science.training.conditions import ReadsConditions
from fm_science.training.devices import check_devices
from fm_science.training.metrics_file import MetricsFile, Rows
from fm_science.training.module import BINS, FlowModule
from fm_science.training.options import Optimizer, Trainer
from fm_science.training.progress import Progress, count
from fm_science.training.recording import first, recorded, reserved, same_data
from fm_science.training.saving import LastCheckpoint, Overdue, resumable
from fm_science.training.signals import Halt, Signals, requeue

#: warnings of Lightning and torch that are not about the run
NOISE = (
    "num_workers",
    "does not have many workers",
    "LeafSpec",
    "treespec",
    "lr_scheduler",
    "callbacks used to create",
)


def fit(
    domain: Domain, trainer: Trainer | None, optimizer: Optimizer | None, folder: Path | str,
    seed: int = 0, resume: bool = False, loggers: tuple[Any, ...] = (), start: Trained | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Flow:  # fmt: skip
    """Train ``domain`` and keep everything in ``folder``, a run for :func:`fm_science.load` and the command line.

    Writes the options, the domain's statistics, ``history.jsonl`` (each start, resume and end), ``metrics.csv``,
    ``curves.png``, ``checkpoints/last.ckpt`` (its ``state_dict`` holds the averaged weights) and samples of each
    validation. A resumed run continues bit for bit: batch k and the randomness of step k depend on (seed, k) alone.
    With ``max_minutes`` it cannot: there the learning rate depends on the time.

    Args:
        domain: what to train; its network is trained in place.
        trainer, optimizer: options; ``None``: the defaults.
        folder: the run folder, created if absent.
        seed: of data order, noise, times and samples. The initial weights of the network are set by the domain.
        resume: continue from ``checkpoints/last.ckpt``, with the statistics of the run.
        loggers: Lightning loggers in addition to the CSV one.
        start: a run or model from whose weights and statistics training starts.
        notes: plain values to store with the run's options, such as the name of a preset.

    Returns:
        The trained flow with averaged weights.

    Raises:
        LockedError: when another process trains in the folder; a UserError.
        UserError: when the folder already has other files, data cannot be read or are not finite, or options,
            weights or the checkpoint do not fit.
        DivergedError: when too many steps were skipped since their gradients were not finite.
        Stopped: when a signal has ended the training, after its state was saved; a KeyboardInterrupt.
    """
    options, rule, folder = trainer or Trainer(), optimizer or Optimizer(), Path(folder)
    check_devices(options)
    with reserved(folder, resume):
        return _fit(domain, options, rule, folder, seed, resume, loggers, start, notes)


def _fit(
    domain: Domain, options: Trainer, rule: Optimizer, folder: Path, seed: int, resume: bool,
    loggers: tuple[Any, ...], start: Trained | None, notes: Mapping[str, Any] | None,
) -> Flow:  # fmt: skip
    """:func:`fit`, in a folder that is reserved for it."""
    settings = {**(notes or {}), "seed": seed, "trainer": asdict(options), "optimizer": asdict(rule)}
    _prepare(domain, folder, resume, start, settings)
    settings |= same_data(domain, folder) if first() else {}
    (folder / FOLDER).mkdir(exist_ok=True)
    if first():
        with atomic_files(folder) as new:
            domain.write_provenance(new)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its banners are not about the run
    torch.set_flush_denormal(True)  # denormal numbers would slow a CPU down twentyfold
    if isinstance(options.threads, int) and options.threads:
        torch.set_num_threads(options.threads)
    flow = domain.flow() if start is None else start.flow(domain).train()
    torch.manual_seed(step_seed(seed, 0))
    augmentations = domain.augmentations
    module = FlowModule(flow, domain.objective, rule, options.max_steps, seed, augmentations, options.max_skipped)
    with Signals() as signals:
        part = _Part(domain, module, options, folder, seed, signals, loggers, resume)
        with recorded(folder, seed, part.made, settings, resume, lambda: (part.steps, part.saved)):
            part.run(augmentations)
            module.skips.check(module)
    flow.domain = domain
    return flow


def _prepare(
    domain: Domain, folder: Path, resume: bool, start: Trained | None, options: Mapping[str, Any]
) -> None:  # fmt: skip
    """Create the run, or take its statistics if it is resumed; mistakes in sampling options are found before long
    work."""
    if start is not None:
        start.adopt(domain)
    if not first():
        ranks.wait_for_first(folder / FILE)
    run = Run.open(folder) if resume or not first() else Run.create(folder, domain, options)
    run.adopt(domain)
    if resume and first() and run.statistics is None and not isinstance(domain, RecordDomain):
        save_statistics(domain, folder)
    with torch.random.fork_rng([]):
        domain.request(1)


class _Part:
    """One part of a run, from its start or its last checkpoint to its end or a signal."""

    def __init__(
        self, domain: Domain, module: FlowModule, options: Trainer, folder: Path, seed: int, signals: Signals,
        loggers: tuple[Any, ...], resume: bool,
    ) -> None:  # fmt: skip
        self.domain, self.module, self.options, self.folder, self.seed = domain, module, options, folder, seed
        self.signals, self.clock = signals, Clock(options.max_minutes)
        self.checkpoint: Path | None = None
        self.lightning: pl.Trainer | None = None
        self.made = 0
        if resume:
            self.checkpoint, self.made = self._checkpoint()
        self.metrics = MetricsFile(folder, self.made if resume else None)
        self.loggers = [self.metrics, *loggers]
        module.interruptible = signals.interruptible
        if self.clock.bounded:
            module.clock, module.late = self.clock.spent, self.clock.over

    def _checkpoint(self) -> tuple[Path, int]:
        """The newest whole checkpoint, and the number of its steps."""
        file, kept = resumable(self.folder / FOLDER, self.domain.name, self.module, first())
        time = kept.get("callbacks", {}).get("Deadline", {})
        self.clock.before, self.clock.reserve = float(time.get("seconds", 0.0)), float(time.get("reserve", 0.0))
        return file, int(kept["global_step"])

    @property
    def steps(self) -> int:
        """The number of steps that the run has made."""
        return self.made if self.lightning is None else max(self.made, self.lightning.global_step)

    @property
    def saved(self) -> int | None:
        """The number of steps of the last checkpoint; ``None``: there is none."""
        now = None if self.lightning is None else self.saving.saved
        return now if now is not None else (self.made or None)

    @property
    def finished(self) -> bool:
        """Whether no steps are left."""
        return self.checkpoint is not None and (self.made >= self.options.max_steps or self.clock.spent() >= 1)

    @property
    def overdue(self) -> bool:
        """Whether the previous part was ended in the validation after its last step."""
        ended = self.made % self.options.validate_every == 0 or (self.clock.bounded and self.finished)
        return self.checkpoint is not None and ended and not self.metrics.validated(self.made)

    def run(self, augmentations: tuple[Symmetry, ...]) -> None:
        """Train. Raises Stopped when a signal has ended it."""
        domain, options = self.domain, self.options
        batches = Batches(domain, domain.path.space, self.seed, options.validation_data, augmentations)
        self.module.indices = batches.indices
        rank_zero_only.rank = ranks.rank()  # type: ignore[attr-defined]  # the value at import may be wrong
        self.lightning = lightning = self._lightning()
        try:
            with warnings.catch_warnings():
                for noise in NOISE:
                    warnings.filterwarnings("ignore", message=f".*{noise}.*")
                place = str(self.checkpoint) if self.checkpoint else None
                lightning.fit(self.module, datamodule=batches, ckpt_path=place, weights_only=True)
        except Halt as halt:
            raise self._stopped(halt.signum) from None
        except SIGTERMException:  # it came while Lightning's own handler was in place, which would end with exit code 0
            raise self._stopped(signal.SIGTERM) from None

    def _stopped(self, signum: int) -> Stopped:
        """The message after a signal has ended the run."""
        saved = self.saved
        what = f"stopped by {signal_name(signum)}"
        if saved is None:
            return Stopped(f"{what} before the first step: nothing to resume in {self.folder}, start it again", signum)
        again = requeue() if signum == signal.SIGUSR1 and ranks.rank() == 0 else ""
        line = f"fm-science train resume={shlex.quote(str(self.folder))}"
        return Stopped(
            f"{what}, saved at step {saved} of {self.options.max_steps} in {self.folder}; resume: {line}{again}", signum
        )

    def _lightning(self) -> pl.Trainer:
        """The trainer with everything that happens between the steps."""
        options, domain, folder = self.options, self.domain, self.folder
        walk = domain.sampler.steps if isinstance(domain.sampler.steps, int) else len(domain.sampler.steps)
        held_out = min(options.validation_data, len(domain.data.validation))
        work = BINS * -(-held_out // domain.data.batch) + 2 * walk * bool(options.validation_samples)
        self.saving = LastCheckpoint(
            folder / FOLDER, options.keep_checkpoints, options.checkpoint_every, options.checkpoint_minutes,
            options.max_steps, self.signals, domain.name,
        )  # fmt: skip
        callbacks: list[Callback] = [
            Takeover(self.signals),
            *([Progress(options.max_steps, options.log_every, self._about())] if options.progress else []),
            *([Threads()] if options.threads == "auto" else []),
            *([Deadline(self.clock, work)] if self.clock.bounded else []),
            Samples(domain, folder / "samples", options.validation_samples, self.seed),
            warm_average(options.ema),
            Rows(min(options.log_every, options.max_steps)),
            Curves(folder),
            ReadsConditions(),
            Overdue(self.finished, self.overdue),
            self.saving,
        ]
        most = max(options.max_steps, self.made + 1) if self.finished else options.max_steps
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pl.Trainer(
                accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes,
                strategy=options.strategy,
                precision=options.precision, max_steps=most, max_epochs=-1,  # type: ignore[arg-type]
                gradient_clip_val=options.gradient_clip or None, use_distributed_sampler=False,
                val_check_interval=options.validate_every, check_val_every_n_epoch=None, num_sanity_val_steps=0,
                log_every_n_steps=0, logger=self.loggers, callbacks=callbacks, inference_mode=False,
                enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
            )  # fmt: skip

    def _about(self) -> str:
        """Domain, data and network, in one line."""
        data, options = self.domain.data, self.options
        weights = sum(p.numel() for p in self.module.parameters())
        length = f"{options.max_steps:,} steps" + (f" or {options.max_minutes:g} min" if self.clock.bounded else "")
        begun = f", {self.made:,} made" if self.made else ""
        return (
            f"{self.domain.name}: {count(len(data.train))} to train on, {count(len(data.validation))} held out; "
            f"{count(weights)} parameters; {length}{begun}"
        )


class Takeover(Callback):
    """Takes the signals back from Lightning, which would end a training at SIGTERM without a message."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.install()
