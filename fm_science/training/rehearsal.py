"""A dry run: a few steps of a training, without writing anything.

The domain is created and its data are read, the network makes a few steps on real batches, and time and memory of a
step are measured. They give the cost of a run.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import torch

from fm_science.couplings import Independent
from fm_science.data import train_loader
from fm_science.domain import Domain
from fm_science.errors import DivergedError
from fm_science.objectives import Objective
from fm_science.training.devices import check_devices
from fm_science.training.module import FlowModule
from fm_science.training.options import Optimizer, Trainer
from fm_science.training.precision import network_only

STEPS = 4  #: steps that are made; the first, which builds and allocates, is not timed


@dataclass(frozen=True)
class Rehearsal:
    """The measurements of a few steps.

    Args:
        train, validation: data in the sets.
        parameters: weights of the network.
        batch: samples and sites of the largest batch seen.
        loss: of the first batch, before any step.
        seconds: of one step, the median.
        memory: bytes in use at the peak: of the device, or of this whole process on a CPU.
        device: the device of the measurement.
    """

    train: int
    validation: int
    parameters: int
    batch: tuple[int, int]
    loss: float
    seconds: float
    memory: float
    device: str


def rehearse(domain: Domain, trainer: Trainer, optimizer: Optimizer, seed: int = 0) -> Rehearsal:
    """Make a few training steps of ``domain``. Its network is changed; nothing is written.

    Raises:
        UserError: if data cannot be read, or options are not valid.
        DivergedError: if the first loss is not finite.
    """
    check_devices(trainer)
    gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    if isinstance(trainer.threads, int) and trainer.threads:
        torch.set_num_threads(trainer.threads)
    augmentations = domain.augmentations
    module = FlowModule(domain.flow(), domain.objective, optimizer, trainer.max_steps, seed, augmentations).to(device)
    update = module.configure_optimizers()["optimizer"]
    objective = domain.objective
    pairs = objective.coupling if isinstance(objective, Objective) else Independent()
    prepare = pairs.preparation(domain.path.space, domain.prior, augmentations)
    loader = iter(train_loader(domain.data, domain.path.space, seed, lambda: 0, 0, 1, prepare))
    losses, seconds, shape = [], [], (0, 0)
    torch.manual_seed(seed)
    for _ in range(STEPS):
        start = time.perf_counter()
        x1, context, *noise = _moved(next(loader), device)
        losses.append(_step(module, update, (x1, context, *noise), trainer))
        seconds.append(time.perf_counter() - start)
        shape = max(shape, (context.size, context.mask.shape[1]))
    return Rehearsal(
        len(domain.data.train), len(domain.data.validation), sum(p.numel() for p in module.parameters()), shape,
        losses[0], statistics.median(seconds[1:]), _peak(device), str(device),
    )  # fmt: skip


def _moved(batch: tuple, device: torch.device) -> tuple:
    from lightning.fabric.utilities import move_data_to_device

    return move_data_to_device(batch, device)


def _step(module: FlowModule, update: torch.optim.Optimizer, batch: tuple, trainer: Trainer) -> float:
    """One training step, and its loss."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(trainer.precision)
    place = batch[1].mask.device.type
    x1, context, *noise = batch
    with network_only(module.flow.network, lambda: torch.autocast(place, kind, enabled=kind is not None), place):
        for symmetry in () if noise else module.augmentations:
            x1 = symmetry.randomise(module.flow.path.bind(context).space, x1)
        losses = module.objective(module.flow, x1, context, *noise)
    total = torch.stack([value.mean() for value in losses.values()]).sum()
    if not bool(total.isfinite()):
        raise DivergedError(f"the loss of a first batch is {float(total):g}: the options, or the data, do not fit")
    update.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), trainer.gradient_clip or float("inf"))
    update.step()
    return float(total.detach())


def _peak(device: torch.device) -> float:
    """Bytes in use at the peak."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
