"""The same small task for many items, on several processes, in order and with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
CHUNK = 16  #: items that are sent together
AHEAD = 4  #: chunks that wait for each process


def spread(
    task: Callable[[A], B], things: Iterable[A], processes: int = 0, total: int | None = None, label: str = "",
) -> Iterator[B]:  # fmt: skip
    """``map(task, things)`` in order. processes: 0 uses one for each core, 1 only this one. ``task`` must be a
    function of a module (or a ``partial`` of one), so that it can be sent to other processes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (label and sys.stderr.isatty())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as shown:
        bar = shown.add_task(label, total=total)
        for done in _results(task, things, processes or cores()):
            shown.advance(bar)
            yield done


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _results(task: Callable[[A], B], things: Iterable[A], processes: int) -> Iterator[B]:
    if processes == 1:
        yield from map(task, things)
        return
    kind = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    rest, waiting = iter(things), deque[Future[bytes]]()
    with ProcessPoolExecutor(processes, kind, _alone) as pool:
        try:
            while chunk := list(islice(rest, CHUNK)):
                waiting.append(pool.submit(_packed, task, pickle.dumps(chunk)))
                if len(waiting) > AHEAD * processes:  # little is read ahead
                    yield from pickle.loads(waiting.popleft().result())
            while waiting:
                yield from pickle.loads(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


def _alone() -> None:
    """One thread per process, since several share the cores already; signals end it, independent of the handlers of the
    parent process."""
    import torch

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _packed(task: Callable[[Any], Any], chunk: bytes) -> bytes:
    """From bytes to bytes: otherwise tensors would be sent as shared memory, one open file each."""
    return pickle.dumps([task(thing) for thing in pickle.loads(chunk)])
