"""``metrics.csv``: a row is on the disk as soon as it is logged, and a resumed run continues at its checkpoint.

Rows of training come every few steps, rows of validation after each validation; empty cells were not measured. The
column ``step`` counts from 0: the row of the tenth step has a 9.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from fm_science.storage import atomic, sync

FILE = "metrics.csv"
VALIDATED = "validation/loss"  #: the column that identifies rows of validations


class MetricsFile(Logger):
    """A Lightning logger that writes ``metrics.csv`` in a folder.

    Args:
        folder: the run's.
        upto: the number of steps made by the checkpoint from which a run is resumed; later rows are removed, and so is
            a truncated one. ``None``: a new file.
    """

    def __init__(self, folder: Path, upto: int | None = None) -> None:
        super().__init__()
        self.folder, self.file = folder, folder / FILE
        self.columns: list[str] = ["step"]
        rows = [row for row in read_rows(self.file) if int(row["step"]) < upto] if upto is not None else []
        self.last = rows[-1] if rows else {}
        self.columns = sorted({"step"}.union(*rows))
        self._begin(rows)

    @rank_zero_only
    def _begin(self, rows: list[dict[str, str]]) -> None:
        if rows:
            self._rewrite(rows)
        else:
            self.file.unlink(missing_ok=True)

    def validated(self, step: int) -> bool:
        """Whether the rows end with that of the validation after ``step`` steps."""
        return bool(self.last) and int(self.last["step"]) == step - 1 and VALIDATED in self.last

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Options are stored in the run's configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {name: v.item() if isinstance(v, torch.Tensor) else v for name, v in metrics.items()} | {"step": step}
        new = set(row) - set(self.columns)
        if new or not self.file.is_file():
            self.columns = sorted({*self.columns, *new})
            self._rewrite([*read_rows(self.file), row])
        else:
            with self.file.open("a", newline="", encoding="utf-8") as stream:
                stream.write(self._text([row], header=False))

    def _text(self, rows: list[dict[str, Any]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        with atomic(self.file) as part:
            part.write_text(self._text(rows, header=True), encoding="utf-8", newline="")

    def save(self) -> None:
        """Wait until the rows are on the disk."""
        sync(self.file)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv`` without their empty cells, and without a truncated one."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines = csv.reader(io.StringIO(whole, newline=""))
    header = next(lines, [])
    rows = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]
    kept = [{name: cell for name, cell in row.items() if cell != ""} for row in rows]
    return [row for row in kept if row.get("step", "").isdigit() and all(map(_number, row.values()))]


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class Rows(Callback):
    """Logs the losses of a step to every logger, every so many steps and before a checkpoint of it can be written."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every or not trainer.is_global_zero:
            return
        found = {name: v for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
        for logger in trainer.loggers:
            logger.log_metrics({**found, "epoch": trainer.current_epoch}, step - 1)  # type: ignore[dict-item]
