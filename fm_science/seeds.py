"""Reproducible random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SEEDS = 2**64  #: the number of seeds of torch; seeds that are computed are reduced modulo this number


@contextmanager
def seeded(seed: int | None, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, torch's generators of the CPU and of ``device`` are seeded; afterwards they are as before. Those of other
    devices are left alone, unlike by ``torch.manual_seed``. Does nothing if the seed is ``None``."""
    if seed is None:
        yield
        return
    device = torch.device(device)
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng([] if on_cpu else [device], device_type="cuda" if on_cpu else device.type):
        torch.default_generator.manual_seed(seed)
        if not on_cpu:
            _seed(device, seed)
        yield


def _seed(device: torch.device, seed: int) -> None:
    """Seed the generator of one accelerator only."""
    module = getattr(torch, device.type)
    generators = getattr(module, "default_generators", None)
    if generators is None:  # a kind of which a machine has only one
        module.manual_seed(seed)
        return
    generators[module.current_device() if device.index is None else device.index].manual_seed(seed)
