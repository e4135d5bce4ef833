"""What happens between the steps: weights are averaged, samples drawn and measured, curves plotted."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from fm_science.domain import Domain
from fm_science.state import leaves
from fm_science.storage import atomic, atomic_folder
from fm_science.training.metrics_file import read_rows
from fm_science.training.module import own


def warm_average(decay: float) -> WeightAveraging:
    """Lightning's weight averaging with an exponential average whose memory grows with the run: the decay is
    min(decay, (1 + n) / (10 + n)) after n updates, so that short runs are not dominated by their first weights."""

    def update(averaged: Any, current: Any, n: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(n)) / (10 + int(n)))
        torch._foreach_lerp_(averaged, current, weight)

    return WeightAveraging(multi_avg_fn=update, use_buffers=False)


class Samples(Callback):
    """Draws samples with the averaged weights in every validation, writes them, and logs their metrics, except slow
    ones; one that fails is left out with a warning.

    Must come before the weight averaging in the list of callbacks, which swaps the weights back.
    """

    def __init__(self, domain: Domain, folder: Path, n: int, seed: int) -> None:
        self.domain, self.folder, self.n, self.seed = domain, folder, n, seed

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.n == 0 or not trainer.is_global_zero:
            return
        if own(module).late():
            warnings.warn("no samples were drawn in the last validation: the time of the run is over", stacklevel=2)
            return
        context = self.domain.request(self.n).to(module.device)
        with own(module).interruptible(), own(module).mixed():
            x = own(module).flow.sample(context, seed=self.seed)
        if not all(bool(leaf.isfinite().all()) for leaf in leaves(x)):
            warnings.warn(f"samples after step {trainer.global_step} are not finite: lower optimizer.lr", stacklevel=2)
            return
        samples = self.domain.decode(x, context)
        with atomic_folder(self.folder / f"step-{trainer.global_step:06d}") as part:
            self.domain.write(samples, part)
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


class Curves(Callback):
    """Plots ``curves.png`` from ``metrics.csv`` after every validation and at the end."""

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
    return [{name: float(cell) for name, cell in row.items()} for row in read_rows(file)]


def draw_curves(metrics: Path, picture: Path) -> None:
    """One panel for each quantity that training logs, against the step; nothing if nothing was logged."""
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
    with atomic(picture) as part:
        figure.savefig(part, dpi=110, format="png")
