"""The Lightning module: one objective on one flow, with every step's randomness fixed by (seed, step, rank)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from fm_science.data import step_seed
from fm_science.flow import Flow
from fm_science.objectives import Objective
from fm_science.state import Context, State
from fm_science.symmetries import Symmetry
from fm_science.training.faults import Skips
from fm_science.training.options import Optimizer
from fm_science.training.precision import network_only

Loss = Callable[..., Mapping[str, Tensor]]  #: an objective, or a function in its place

VALIDATION = 4_098  #: replaces the process number in the seeds of validation, beyond those of training
BINS = 5  #: validation losses are given for this many equal bins of time


class FlowModule(pl.LightningModule):
    """Trains a flow.

    Args:
        flow: path, prior and network.
        objective: named losses ``(B,)`` of a batch; their sum is minimised.
        optimizer: its options.
        max_steps: the length of the learning-rate schedule.
        seed: of all random numbers of training.
        augmentations: symmetries by which data are transformed at random, for networks that do not respect them.
        max_skipped: steps skipped in a row that end the training as failed; 0: never.

    Attributes:
        clock: the clock of the run, with the share of its time that has passed; ``None`` without a time limit.
        late: whether all the time has passed, so that a validation is cut short.
        interruptible: opens a region in which signals act at once.
        indices: the numbers in the training set of the data of a step; empty if they are not known.
        spent: the time of the first process at the beginning of the step, the same on all; the learning rate decays
            with the steps or with the time, whichever is nearer to its end.
    """

    def __init__(
        self, flow: Flow, objective: Loss, optimizer: Optimizer, max_steps: int, seed: int = 0,
        augmentations: tuple[Symmetry, ...] = (), max_skipped: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.flow, self.objective, self.options = flow, objective, optimizer
        self.max_steps, self.seed, self.augmentations = max_steps, seed, augmentations
        self.clock: Callable[[], float] | None = None
        self.late: Callable[[], bool] = lambda: False
        self.interruptible: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.indices: Callable[[int], Sequence[int]] = lambda step: ()
        self.spent = 0.0
        self.skips = Skips(max_skipped)
        self._step: tuple[Any, dict[str, Tensor]] = (None, {})

    def __deepcopy__(self, memo: dict[int, Any]) -> FlowModule:
        """Its weights and what they compute, for their average: neither the trainer, which holds the processes that it
        has started, nor the domain, which holds the data."""
        memo |= {id(shared): shared for shared in (self._trainer, self.flow.domain)}
        twin = memo[id(self)] = type(self).__new__(type(self))
        twin.__dict__.update({name: deepcopy(value, memo) for name, value in vars(self).items()})
        return twin

    def mixed(self) -> AbstractContextManager[None]:
        """A region where the network's calls have the trainer's precision, and everything else that of the points."""
        return network_only(self.flow.network, self.trainer.precision_plugin.forward_context, self.device.type)

    def on_fit_start(self) -> None:
        self._look_at_clock()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._look_at_clock()
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        every = self.losses(batch)
        self._step = batch, {k: v.detach() for k, v in every.items()}
        losses = {k: v.mean() for k, v in every.items()}
        losses["loss"] = torch.stack(list(losses.values())).sum()
        seen, share = over_ranks({k: v.detach() for k, v in losses.items()}, batch[1].size)
        self.log_dict({f"train/{k}": v for k, v in seen.items()}, batch_size=batch[1].size)
        return losses["loss"] * share

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The named losses ``(B,)`` of a batch. Their random numbers are drawn from torch's generator."""
        x1, context, *noise = batch  # with noise if data workers have paired it, already in random poses
        with self.mixed():
            for symmetry in () if noise else self.augmentations:
                x1 = symmetry.randomise(self.flow.path.bind(context).space, x1)
            return dict(self.objective(self.flow, x1, context, *noise))

    def validation_step(self, batch: tuple[int, State, Context], batch_idx: int) -> None:
        """Losses by time: the objective restricted to each bin of times. Random numbers depend on the seed and the
        number of the batch, so the result does not depend on the number of processes."""
        if batch_idx and self.late():
            return
        number, x1, context = batch
        torch.manual_seed(step_seed(self.seed, number, VALIDATION))
        with self.interruptible():
            self._validate(x1, context)

    def _validate(self, x1: State, context: Context) -> None:
        totals = []
        for k in range(BINS):
            inside = _restricted(self.objective, k / BINS, (k + 1) / BINS)
            with self.mixed():
                losses = {n: v.mean() for n, v in inside(self.flow, x1, context).items()}
            totals.append(torch.stack(list(losses.values())).sum())
            named = {f"validation/t{k / BINS:.1f}-{(k + 1) / BINS:.1f}/{n}": v for n, v in losses.items()}
            self.log_dict(named, batch_size=context.size, sync_dist=True)
        self.log("validation/loss", torch.stack(totals).mean(), batch_size=context.size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        o = self.options
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, foreach=True
        )  # fmt: skip
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._pace)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def done(self, step: int) -> float:
        """The share of the run that is done at a step: of its steps or of its time, whichever ends it first."""
        return min(1.0, max(step / self.max_steps, self.spent))

    def _look_at_clock(self) -> None:
        if self.clock is not None:
            spent = self.clock()
            self.spent = spent if self.trainer.world_size == 1 else self.trainer.strategy.broadcast(spent)

    def _pace(self, step: int) -> float:
        o = self.options
        decayed = max(0.0, 1 - (1 - self.done(step)) / o.decay)
        decay = 0.5 * (1 + math.cos(math.pi * decayed))
        return min(1.0, (step + 1) / (o.warmup + 1)) * (o.final + (1 - o.final) * decay)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm; a gradient that is not finite is dropped and counted, and the step does not change the
        weights."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf, foreach=True)
        if bool(norm.isfinite()):
            self.skips.went_well()
        else:
            self.skips.skip(self, *self._step)  # names the weights, so before their gradients go
            optimizer.zero_grad(set_to_none=True)
        self.log("train/gradient", norm)
        self.log("train/skipped", float(self.skips.total))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skipped"], checkpoint["skipped_in_a_row"] = self.skips.total, self.skips.row

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.skips.total, self.skips.row = checkpoint["skipped"], checkpoint.get("skipped_in_a_row", 0)


def over_ranks(means: Mapping[str, Tensor], size: int) -> tuple[dict[str, Tensor], Tensor | float]:
    """The means of numbers over the global batch, and the factor for the mean of this process, so that the gradient,
    which is averaged over processes, is that of the global mean: batches of processes may differ in size.

    Args:
        means: scalars by name, each a mean over the process's own batch.
        size: data in that batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(means), 1.0
    own = torch.stack([torch.ones_like(next(iter(means.values()))), *means.values()]) * size
    torch.distributed.all_reduce(own)
    share = size * torch.distributed.get_world_size() / own[0]
    return dict(zip(means, (own[1:] / own[0]).unbind(), strict=True)), share


def _restricted(objective: Loss, low: float, high: float) -> Loss:
    """The objective at times in [low, high) only; functions are unchanged."""
    return objective.within(low, high) if isinstance(objective, Objective) else objective


def own(module: pl.LightningModule) -> FlowModule:
    """The module of a callback, which Lightning declares as its base class. Raises TypeError for another."""
    if not isinstance(module, FlowModule):
        raise TypeError(f"{type(module).__qualname__}: expected a FlowModule, which this callback is made for")
    return module
