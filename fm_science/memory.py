"""Errors for what does not fit into memory, where the system would kill the process without a message: for networks and
generated data before they are allocated, for batches while they are computed.

Sizes are numbers that anyone can type. So the memory they need is computed first, and named in gigabytes together with
what is free.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from fm_science.errors import UserError

MOST = 50_000  #: tensors of weights; deeper networks are a mistake, and take minutes to build
TRAINING = 5  #: copies of the weights: themselves, their gradient, two moments, their average


@contextmanager
def budget(copies: int = TRAINING) -> Iterator[None]:
    """Inside, a module for which ``copies`` copies of the weights exceed the memory of this machine raises UserError as
    soon as that is known; reserved memory is not yet used."""
    limit, found, tensors = available(), 0, 0

    def count(module: nn.Module, name: str, weight: Tensor | None) -> None:
        nonlocal found, tensors
        tensors += 1
        if tensors > MOST:
            raise UserError(
                f"the network is too large: it has more than {MOST:,} tensors of weights; make network.layers or its "
                "like smaller"
            )
        found += weight.numel() * weight.element_size() if weight is not None else 0
        if found * copies > limit:
            raise UserError(_words(found * copies, limit))

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # not even the address space is available
        needed = excess(error)
        if needed is None:
            raise
        raise UserError(_words(needed, limit)) from error
    finally:
        hook.remove()


@contextmanager
def spare(what: str) -> Iterator[None]:
    """Inside, work on the CPU may use the memory that is free now and no more: if it needs more, UserError says to make
    ``what`` smaller. On systems without a limit on a process's data (all except Linux), nothing changes."""
    used, free = _number(Path("/proc/self/status"), r"VmData:\s+(\d+) kB", 1024), available()
    if used is None or free == torch.inf:
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    known = [limit for limit in (before, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([int(used + free), *known]), most))
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        needed = re.search(r"you tried to allocate (\d+) bytes", str(error))
        if needed is None and not isinstance(error, MemoryError):
            raise
        more = f"needs {int(needed[1]) / 1e9:,.1f} GB more than it has" if needed is not None else "needs more"
        raise UserError(f"this does not fit into memory: it {more}, and {free / 1e9:,.1f} GB were free; make {what} "
                        "smaller") from error  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def _words(needed: float, limit: float) -> str:
    return (
        f"the network is too large: training it takes more than {needed / 1e9:,.0f} GB, and {limit / 1e9:,.1f} GB are "
        "free; make network.width or its like smaller"
    )


def reserve(count: float, size: float, what: str) -> None:
    """Raise UserError if ``count`` items of ``size`` bytes, called ``what``, are more than this process may use.
    Nothing is allocated."""
    limit = available()
    if count * size > limit:
        raise UserError(
            f"{what} takes {count * size / 1e9:,.0f} GB, and {limit / 1e9:,.1f} GB are free: reduce it"
        )


def excess(error: BaseException) -> float | None:
    """The bytes of an allocation that failed; ``None`` if the error is another, or this much would be available."""
    text = str(error)
    if "Storage size calculation overflowed" in text:
        return 2.0**63
    from_torch = re.search(r"tried to allocate (\d+) bytes", text)
    from_numpy = re.search(r"Unable to allocate ([\d.]+) ([KMGTPE])iB", text)
    if from_torch:
        needed = float(from_torch[1])
    elif from_numpy:
        needed = float(from_numpy[1]) * 1024.0 ** (1 + "KMGTPE".index(from_numpy[2]))
    else:
        return None
    return needed if needed > available() / 2 else None


def available() -> float:
    """Bytes of memory that this process may use: what is free, and what a container allows. Infinite if the system does
    not report it."""
    found = [_number(Path("/sys/fs/cgroup/memory.max"), r"(\d+)", 1)]
    found.append(_number(Path("/proc/meminfo"), r"MemAvailable:\s+(\d+) kB", 1024))
    known = [number for number in found if number is not None]
    if known:
        return min(known)
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return torch.inf


def _number(file: Path, pattern: str, unit: int) -> float | None:
    try:
        match = re.search(pattern, file.read_text())
    except OSError:
        return None
    return float(match[1]) * unit if match else None
