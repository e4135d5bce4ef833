"""The batches of a training: a domain's data as Lightning loads them, in the order that seed and step define."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from fm_science.couplings import Independent
from fm_science.data import StepBatches, train_loader, validation_loader
from fm_science.domain import Domain
from fm_science.objectives import Objective
from fm_science.spaces.base import Space
from fm_science.symmetries import Symmetry


class Batches(pl.LightningDataModule):
    """The domain's data as loaders with the trainer's step and rank."""

    def __init__(
        self, domain: Domain, space: Space, seed: int, held_out: int, augmentations: tuple[Symmetry, ...]
    ) -> None:
        super().__init__()
        self.data, self.space, self.seed, self.held_out = domain.data, space, seed, held_out
        objective = domain.objective
        pairs = objective.coupling if isinstance(objective, Objective) else Independent()
        self.prepare = pairs.preparation(space, domain.prior, augmentations)

    def train_dataloader(self) -> Any:
        trainer = self.trainer
        assert trainer is not None
        return train_loader(
            self.data, self.space, self.seed, lambda: trainer.global_step, trainer.global_rank, trainer.world_size,
            self.prepare,
        )  # fmt: skip

    def indices(self, step: int) -> list[int]:
        """The numbers in the training set of the data of a step."""
        trainer = self.trainer
        assert trainer is not None
        order = StepBatches(
            self.data.train.sizes, self.data.batch, self.data.budget, self.seed, lambda: step, trainer.global_rank,
            trainer.world_size,
        )  # fmt: skip
        return next(iter(order))

    def val_dataloader(self) -> Any:
        trainer = self.trainer
        assert trainer is not None
        return validation_loader(self.data, self.space, self.held_out, trainer.global_rank, trainer.world_size)
