"""When checkpoints are written, and the check that their content is finite and fits the run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from torch import nn

from fm_science import __version__
from fm_science.checkpoints import LAST, mend, newest, rotate
from fm_science.errors import DivergedError, UserError
from fm_science.networks.base import with_current_names
from fm_science.training.metrics_file import MetricsFile
from fm_science.training.signals import Halt, Signals

log = logging.getLogger("fm_science")


class LastCheckpoint(Checkpoint):
    """Keeps the newest checkpoints (:mod:`fm_science.checkpoints`); after a signal, it saves and ends the loop.

    Args:
        folder: where they are stored.
        keep: how many.
        every: steps between them.
        minutes: time between them; 0: by steps only.
        max_steps: the last step of the run.
        signals: the received signals.
        domain: the name of the domain, stored inside.
    """

    def __init__(
        self, folder: Path, keep: int, every: int, minutes: float, max_steps: int, signals: Signals, domain: str
    ) -> None:  # fmt: skip
        self.folder, self.keep, self.every, self.max_steps = folder, keep, every, max_steps
        self.seconds = 60 * minutes or math.inf
        self.signals, self.domain = signals, domain
        self.saved: int | None = None
        self._since = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        signum, late = self._together(trainer)
        if step % self.every == 0 or step >= self.max_steps or trainer.should_stop or signum or late:
            self.save(trainer)
        if signum:
            raise Halt(signum)

    def _together(self, trainer: pl.Trainer) -> tuple[int, bool]:
        """The signal that any of the processes received, and whether a checkpoint is due for any."""
        own = (self.signals.received, time.monotonic() - self._since > self.seconds)
        if trainer.world_size == 1:
            return own
        found = torch.tensor([float(x) for x in own], device=trainer.strategy.root_device)
        signum, late = trainer.strategy.reduce(found, reduce_op="max").tolist()
        return int(signum), bool(late)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the state of the run. Raises DivergedError if weights are not finite, and OSError if there is no space;
        the previous checkpoint is kept in both cases."""
        assert trainer.lightning_module is not None
        check_finite(trainer.lightning_module, trainer.global_step)
        part = self.folder / f"{LAST}.part"
        try:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsFile):
                    logger.save()  # rows before a checkpoint are on the disk first
            trainer.save_checkpoint(part, weights_only=False)
            if trainer.is_global_zero:
                rotate(part, self.folder, self.keep)
        except OSError as error:
            part.unlink(missing_ok=True)
            kept = "the one before is kept" if (self.folder / LAST).is_file() else "there is none before it"
            error.add_note(f"no checkpoint of step {trainer.global_step} was saved: {kept}; free some space and resume")
            raise
        self.saved, self._since = trainer.global_step, time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["fm_science"] = {"domain": self.domain, "version": __version__}


def check_finite(module: nn.Module, step: int) -> None:
    """Raise DivergedError, with the name of the weight, if one is not finite."""
    weights = {name: p for name, p in module.named_parameters() if p.numel()}
    if not weights or bool(torch.stack([p.isfinite().all() for p in weights.values()]).all()):
        return
    name = next(name for name, p in weights.items() if not bool(p.isfinite().all()))
    raise DivergedError(
        f"training has diverged: {name.removeprefix('flow.')} is not finite after step {step}. "
        "Lower optimizer.lr; no checkpoint was written of this"
    )


def resumable(folder: Path, domain: str, module: nn.Module, first: bool) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint in a folder, and its content. The ``first`` process reports which newer ones are
    broken, and replaces them. Raises UserError if none is whole, or its weights are not those of ``module``."""
    file, kept, warning = newest(folder, domain)
    if not {"global_step", "loops"} <= set(kept):
        raise UserError(f"{file} holds weights alone and cannot be resumed: start a new run from them, train from=RUN")
    check_fit(kept, module, file)
    if warning and first:
        log.warning(warning)
        mend(file)
    return file, kept


def check_fit(kept: Mapping[str, Any], module: nn.Module, file: Path) -> None:
    """Raise UserError if the weights of a checkpoint are not those of ``module``."""
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = with_current_names(kept.get("current_model_state", kept["state_dict"]), module)
    theirs = {name: tuple(value.shape) for name, value in found.items()}
    if ours == theirs:
        return
    name = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
    raise UserError(
        f"{file} is of another network: {name.removeprefix('flow.')} is {theirs.get(name, 'missing')} there and "
        f"{ours.get(name, 'missing')} here. Resume with the options the run was started with"
    )


class Overdue(Callback):
    """Repeats, before the first step, the validation that an earlier part of the run did not finish.

    Args:
        finished: whether the run has made all its steps, so that it ends afterwards.
        due: whether a validation is missing.
    """

    def __init__(self, finished: bool, due: bool) -> None:
        self.finished, self.due = finished, due

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.due:
            loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
            first = connector._first_loop_iter
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True
            connector._first_loop_iter = first
        trainer.should_stop = trainer.should_stop or self.finished
