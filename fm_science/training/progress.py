"""The progress messages of a training: its task, its current action, the steps done and the time left."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.hooks import RemovableHandle

from fm_science.training.module import own

MINUTE = 60.0  #: seconds between lines if there is no terminal
EARLY = 10.0  #: the first lines come after the first step, and after this many seconds


class Progress(Callback):
    """A bar over the run's steps or its time, whichever ends it first, with the loss and the time left; if there is no
    terminal, a line after the first step and one per minute.

    Args:
        max_steps: the last step.
        every: steps between readings of the loss, which synchronise with the device.
        about: domain, data and network, in one line.
    """

    def __init__(self, max_steps: int, every: int, about: str = "") -> None:
        self.max_steps, self.every, self.about = max_steps, every, about
        self.loss, self.phase = "-", "training"
        self._begin = self._next = self._paused = self._pause = 0.0
        self._behind, self._calls = 0.0, 0
        self._hook: RemovableHandle | None = None
        self._shown = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                   TextColumn("step {task.fields[step]}"), TextColumn("loss {task.fields[loss]}"), TimeElapsedColumn(),
                   TextColumn("{task.fields[left]}"))  # fmt: skip
        self.bar = Progress(*columns, disable=not trainer.is_global_zero, refresh_per_second=2)
        step = trainer.global_step
        self._behind = own(module).done(step)
        self.task = self.bar.add_task(
            self.phase, total=1.0, step=step, loss="-", left=""
        )  # fmt: skip
        self.bar.update(self.task, completed=self._behind)
        self.plain = trainer.is_global_zero and not self.bar.console.is_terminal
        if trainer.is_global_zero:
            threads = f", {torch.get_num_threads()} threads" if module.device.type == "cpu" else ""
            print(f"{self.about}; {module.device}{threads}", flush=True)
        self.bar.start()
        self._shown = True
        self._begin = time.monotonic()
        self._next = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        behind = own(module).done(step)
        if step % self.every == 0 or self.loss == "-":
            self.loss = f"{float(trainer.callback_metrics.get('train/loss', float('nan'))):.3f}"
        left = self._left(behind)
        self.bar.update(self.task, completed=behind, step=step, loss=self.loss, left=left)
        if self.plain and (time.monotonic() >= self._next or step >= self.max_steps):
            print(f"step {step} ({behind:.0%})  loss {self.loss}  {left}", flush=True)
            self._tick()

    def _tick(self) -> None:
        """When to print the next line."""
        early = time.monotonic() - self._begin < EARLY
        self._next = time.monotonic() + (EARLY if early else MINUTE)

    def _left(self, behind: float) -> str:
        """The time that is left at the speed of this part of the run, without validations."""
        made, spent = behind - self._behind, time.monotonic() - self._begin - self._paused
        return f"{duration(spent * (1 - behind) / made)} left" if made > 0 else ""

    def on_validation_start(self, *_: Any) -> None:
        self._pause = time.monotonic()
        self._do("validating")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self._do(f"validating {batch_idx + 1}/{sum(map(int, trainer.num_val_batches))}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._do("sampling")
        network = own(module).flow.network
        self._calls = 0
        if isinstance(network, nn.Module):
            self._hook = network.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        self._calls += 1
        self._do(f"sampling, evaluation {self._calls}")

    def on_validation_end(self, *_: Any) -> None:
        self._unhook()
        self._paused += time.monotonic() - self._pause
        self._do("training")

    def _do(self, phase: str) -> None:
        """Show the current action."""
        self.phase = phase
        self.bar.update(self.task, description=phase)
        if self.plain and phase != "training" and time.monotonic() >= self._next:
            print(phase, flush=True)
            self._tick()

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.bar.update(self.task, completed=1.0, description="trained", left="")
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        self._unhook()
        if self._shown:
            self.bar.stop()

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def duration(seconds: float) -> str:
    """A span of time in words: ``40 s``, ``12 min``, ``3.2 h``."""
    if seconds < 99:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(number: int) -> str:
    """A large number in few characters: ``950``, ``12,300``, ``1.2 million``."""
    return f"{number / 1e6:.1f} million" if number >= 1e6 else f"{number:,}"
