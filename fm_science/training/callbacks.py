"""What happens beside the steps: samples are drawn and measured, curves drawn, checkpoints kept, progress shown."""

from __future__ import annotations

import csv
import os
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from torch import Tensor

from fm_science.domain import Domain


def warm_average(decay: float) -> WeightAveraging:
    """Lightning's weight averaging with an exponential average whose memory grows with the run: the decay is
    min(decay, (1 + n) / (10 + n)) after n updates, so that short runs are not dominated by their first weights."""

    def update(averaged: Any, current: Any, n: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averaged, current, weight)

    return WeightAveraging(multi_avg_fn=update, use_buffers=False)


class Samples(Callback):
    """Draws samples with the averaged weights in every validation, writes them, and logs their metrics, but for slow
    ones; one that fails is left out with a warning.

    Must stand before the weight averaging in the list of callbacks, which swaps the weights back.
    """

    def __init__(self, domain: Domain, folder: Path, n: int, seed: int) -> None:
        self.domain, self.folder, self.n, self.seed = domain, folder, n, seed

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.n == 0 or not trainer.is_global_zero:
            return
        context = self.domain.request(self.n).to(module.device)
        with module.mixed():  # type: ignore[operator]
            x = module.flow.sample(context, seed=self.seed)  # type: ignore[operator, union-attr]
        samples = self.domain.decode(x, context)
        self.domain.write(samples, self.folder / f"step-{trainer.global_step:06d}")
        reference = next(iter(self.domain.references(samples).values()))
        for name, metric in self.domain.metrics.items():
            if name in self.domain.slow:
                continue
            try:
                values = {f"sample/{k}": v for k, v in metric(samples, reference).items()}
            except Exception as error:  # a broken metric must not end hours of training
                cause = f"{type(error).__name__}: {error}"
                warnings.warn(f"training goes on without the metric {name!r}, which failed: {cause}", stacklevel=2)
                continue
            module.log_dict(values, rank_zero_only=True, batch_size=self.n)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, replaced in one move so that a crash never leaves half a file."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step >= trainer.max_steps or trainer.should_stop:
            part = self.folder / "last.ckpt.part"
            trainer.save_checkpoint(part, weights_only=False)
            if trainer.is_global_zero:
                os.replace(part, self.folder / "last.ckpt")


class Progress(Callback):
    """A bar over the run's steps or its time, whichever ends it first, with the loss and the time left; a plain line
    now and then where there is no terminal."""

    def __init__(self, max_steps: int, every: int) -> None:
        self.max_steps, self.every = max_steps, every

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("train"), BarColumn(), TaskProgressColumn(), TextColumn("step {task.fields[step]}"),
                   TextColumn("loss {task.fields[loss]}"), TimeElapsedColumn(), TextColumn("left"),
                   Remaining(compact=True))  # fmt: skip
        self.bar = Progress(*columns, disable=not trainer.is_global_zero, refresh_per_second=2)
        step = trainer.global_step
        behind = module.done(step)  # type: ignore[operator]
        self.task = self.bar.add_task("train", total=1.0, completed=behind, step=step, loss="-")
        self.plain = trainer.is_global_zero and not self.bar.console.is_terminal
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every and step < self.max_steps:
            return
        behind = module.done(step)  # type: ignore[operator]
        loss = f"{float(trainer.callback_metrics.get('train/loss', float('nan'))):.3f}"
        self.bar.update(self.task, completed=behind, step=step, loss=loss)
        if self.plain and (step % (10 * self.every) == 0 or step >= self.max_steps):
            task = self.bar.tasks[0]
            left = f"{task.time_remaining / 60:.1f} min left" if task.time_remaining else "-"
            print(f"step {step} ({behind:.0%})  loss {loss}  {left}", flush=True)

    def on_train_end(self, *_: Any) -> None:
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


class Curves(Callback):
    """Draws ``curves.png`` from ``metrics.csv`` after every validation and at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._draw(trainer)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._draw(trainer)

    def _draw(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and trainer.logger is not None:
            trainer.logger.save()
            draw_curves(self.folder / "metrics.csv", self.folder / "curves.png")


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, without their empty cells."""
    if not file.is_file():
        return []
    with open(file, newline="") as lines:
        return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(lines)]


def draw_curves(metrics: Path, picture: Path) -> None:
    """One panel for each quantity that training logs, against the step; nothing where nothing was logged."""
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_metrics(metrics):
        for name, value in row.items():
            if "/" in name:
                series[name].append((row["step"], value))
    panels: dict[str, list[str]] = defaultdict(list)
    for name in sorted(series):
        stage, _, rest = name.partition("/")
        by_time = stage == "validation" and "/" in rest
        panels[f"loss by time: {rest.split('/')[1]}" if by_time else rest].append(name)
    if not panels:
        return
    columns = 4
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for place, (title, names) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(rows, columns, place)
        for name in names:
            steps, values = zip(*series[name], strict=True)
            label = name.split("/")[1] if title.startswith("loss by time") else name.partition("/")[0]
            axis.plot(steps, values, label=label, linewidth=1.2, marker="." if len(steps) < 30 else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(picture, dpi=110)
