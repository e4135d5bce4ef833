"""What to compute on, checked before data are read: wrong numbers and names are mistakes of the user."""

from __future__ import annotations

import os
import re

from fm_science import ranks
from fm_science.errors import OptionError, nearest
from fm_science.training.options import Trainer

FEW = 8  #: this many processes may always share a machine without GPUs


def check_devices(options: Trainer) -> None:
    """Raise OptionError if devices, strategy or threads are not valid."""
    _devices(options)
    _strategy(options.strategy, _on_gpu(options))
    if options.nodes > 1 and not ranks.launched():
        raise OptionError(
            f"trainer.nodes={options.nodes}: several machines are started by torchrun or srun (docs/many_processes.md)"
        )
    threads, most = options.threads, max(64, 4 * (os.cpu_count() or 1))
    if threads != "auto" and (isinstance(threads, str) or not 0 <= threads <= most):
        raise OptionError(f"trainer.threads={threads!r}: expected auto, or a number from 0 to {most}")


def _devices(options: Trainer) -> None:
    import torch

    devices = options.devices
    if devices == "auto":
        return
    listed = isinstance(devices, str) and re.fullmatch(r"\d+(,\d+)*", devices)
    if not listed and (isinstance(devices, (str, bool)) or devices < 1):
        raise OptionError(
            f"trainer.devices={devices!r}: expected auto, a number of at least 1, or a list such as '0,1'"
        )
    gpus, on_gpu = torch.cuda.device_count(), _on_gpu(options)
    there = gpus if on_gpu else max(FEW, os.cpu_count() or 1)
    wanted = devices if isinstance(devices, int) else max(map(int, devices.split(","))) + 1
    if wanted > there and (gpus or not on_gpu):
        kind = "GPUs" if on_gpu else "processes at most on a machine without GPUs"
        raise OptionError(f"trainer.devices={devices!r}: there are {there} {kind}")


def _on_gpu(options: Trainer) -> bool:
    import torch

    return options.accelerator == "gpu" or (options.accelerator == "auto" and torch.cuda.device_count() > 0)


def _strategy(name: str, on_gpu: bool) -> None:
    from lightning.pytorch.strategies import StrategyRegistry

    known = {"auto", *StrategyRegistry.available_strategies()}
    if name not in known:
        raise OptionError(f"trainer.strategy={name!r}; {nearest(name, known)}")
    if name.startswith("fsdp") and not on_gpu:
        raise OptionError(f"trainer.strategy={name}: weights are sharded over GPUs alone; without one, write "
                          "trainer.strategy=ddp")  # fmt: skip
