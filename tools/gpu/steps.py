"""Steps of training on a device, by hand: their losses, how fast they are, and how often they wait for the device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from fm_science.config import validate
from fm_science.couplings import Independent
from fm_science.data import step_seed, train_loader
from fm_science.objectives import Objective
from fm_science.plugins import find
from fm_science.state import tree_map
from fm_science.training.precision import network_only

#: options with which each domain reads little data, so that seconds go into steps
QUICK: dict[str, dict[str, dict[str, Any]]] = {
    "point_cloud": {"data": {"source": "shapes", "train": 512, "held_out": 64, "points": 64, "batch": 32}},
    "image": {"data": {"batch": 64}},
    "function": {"data": {"train": 128, "held_out": 32, "batch": 32}},
    "table": {"data": {"train": 2000, "test": 200, "blur": 0.0}},
    "molecule": {"data": {"batch": 64}, "coupling": {"in_workers": False}},
    "protein": {"data": {"max_length": 64, "batch": 16}},
}
#: what makes the processor wait for the device, by its name in the profiler
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::_local_scalar_dense", "aten::nonzero")


class Stepper:
    """Training steps of a domain on one batch.

    Args:
        name: the domain.
        precision: ``32-true`` or ``bf16-mixed``.
        device: where to compute.
        compiled: whether the network is compiled.
    """

    def __init__(self, name: str, precision: str, device: torch.device, compiled: bool = False) -> None:
        self.name, self.precision, self.device, self.compiled = name, precision, device, compiled
        torch.manual_seed(0)
        plugin = find(name)
        self.domain = plugin.build(validate(plugin.options(), QUICK.get(name, {})))
        self.flow = self.domain.flow().to(device).train()
        if compiled:
            self.flow.network.compile()
        self.objective = self.domain.objective
        pairs = self.objective.coupling if isinstance(self.objective, Objective) else Independent()
        symmetries = () if self.domain.equivariant else tuple(self.domain.symmetries)
        space, data = self.domain.path.space, self.domain.data
        prepare = pairs.preparation(space, self.domain.prior, symmetries)
        self.symmetries = () if prepare else symmetries
        x1, context, *noise = next(iter(train_loader(data, space, 0, lambda: 0, 0, 1, prepare)))
        self.batch = tuple(tree_map(lambda v: v.to(device), x) for x in (x1, *noise)), context.to(device)
        self.optimizer = torch.optim.AdamW(self.flow.parameters(), lr=1e-4, foreach=True)
        self.number = 0

    def _mixed(self) -> AbstractContextManager[Any]:
        if self.precision == "32-true":
            return nullcontext()
        kind = self.device.type
        return network_only(self.flow.network, lambda: torch.autocast(kind, torch.bfloat16), kind)

    def step(self) -> torch.Tensor:
        """One step; its loss, on the device."""
        torch.manual_seed(step_seed(0, self.number))
        self.number += 1
        (x1, *noise), context = self.batch
        with self._mixed():
            for symmetry in self.symmetries:
                x1 = symmetry.randomise(self.flow.path.bind(context).space, x1)
            losses: Mapping[str, torch.Tensor] = self.objective(self.flow, x1, context, *noise)
        loss = torch.stack([value.mean() for value in losses.values()]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def failed(name: str, error: Exception) -> dict[str, Any]:
    return {"name": name, "ok": False, "note": f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"}


def trained(name: str, precision: str, device: torch.device) -> dict[str, Any]:
    """A row: the losses of two steps."""
    label = f"{name} {precision}"
    try:
        stepper = Stepper(name, precision, device)
        losses = [float(stepper.step()) for _ in range(2)]
    except Exception as error:
        return failed(label, error)
    return {"name": label, "ok": all(map(math.isfinite, losses)), "first": losses[0], "second": losses[1]}


def speed(stepper: Stepper, steps: int) -> dict[str, Any]:
    """A row: steps a second, data a second, waits a step, and gigabytes."""
    label = f"{stepper.name} {stepper.precision}{' compiled' if stepper.compiled else ''}"
    cuda = stepper.device.type == "cuda"
    try:
        for _ in range(3):
            stepper.step()
        stepper.wait()
        if cuda:
            torch.cuda.reset_peak_memory_stats(stepper.device)
        begin = time.perf_counter()
        for _ in range(steps):
            stepper.step()
        stepper.wait()
        seconds = (time.perf_counter() - begin) / steps
        waits = counted(stepper)
    except Exception as error:
        return failed(label, error)
    memory = torch.cuda.max_memory_allocated(stepper.device) / 1e9 if cuda else math.nan
    size = stepper.batch[1].size
    return {"name": label, "ok": True, "ms_a_step": 1e3 * seconds, "data_a_second": size / seconds,
            "waits_a_step": float(waits), "GB": memory}  # fmt: skip


def counted(stepper: Stepper) -> int:
    """How often a step makes the processor wait for the device."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if stepper.device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as seen:
        stepper.step()
    return sum(event.count for event in seen.key_averages() if event.key in WAITS)
