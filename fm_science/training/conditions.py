"""Whether what a network is told makes a difference.

A condition that is carried along and never read trains a model that looks conditional and is not: the loss falls, and
samples do not obey. So after the first steps the samples of a batch exchange their conditions, one name at a time; a
loss that stays the same to the last bit has not looked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fm_science.seeds import seeded
from fm_science.state import Context
from fm_science.training.module import own


def unread_conditions(losses: Callable[[Context], Mapping[str, Tensor]], context: Context, seed: int = 0) -> list[str]:
    """The conditions of a batch, one value a sample ``(B,)``, that change no loss when samples exchange them. Those
    whose values are all alike, and the weights of pairs, are not judged.

    Args:
        losses: of the batch under a context, by name ``(B,)``; random draws from torch's generator are repeated.
        context: of the batch.
        seed: of these draws; the generators are left as they were.
    """

    def found(context: Context) -> Tensor:
        with seeded(seed, context.mask.device), torch.no_grad():
            return torch.stack(list(losses(context).values()))

    names = [k for k, v in context.cond.items() if k != "weight" and v.ndim == 1 and not torch.equal(v.roll(1), v)]
    if not names:
        return []
    output = found(context)
    exchanged = {k: replace(context, cond={**context.cond, k: context.cond[k].roll(1)}) for k in names}
    return [k for k, other in exchanged.items() if torch.equal(found(other), output)]


class ReadsConditions(Callback):
    """Warns in the first validation after a step of conditions that change no loss."""

    def __init__(self) -> None:
        self.done = False

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.done or batch_idx or not trainer.global_step or trainer.world_size > 1:  # couplings may gather
            return
        self.done = True
        _, x1, context = batch
        unread = unread_conditions(lambda output: own(module).losses((x1, output)), context)
        if unread:
            names = ", ".join(map(repr, unread))
            warnings.warn(
                f"the loss does not depend on the condition {names}: samples will not obey it. Name it where the "
                "network is built (conditions=, classes=), or leave it out of the data.", stacklevel=2,
            )  # fmt: skip
