"""Many files read once, by several processes, into one prepared file (:mod:`fm_science.prepared`).

The work is cut into parts of some tens of files. A process writes its part beside the result in one move, so that what
was read before the work was ended or killed is not read again: the same call goes on. When all parts are there they are
joined, in the order of the files, and the result takes its place in one move. It is the same, byte for byte, however
many processes there were and however often the work was ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from fm_science import __version__
from fm_science.errors import UserError
from fm_science.files import UNREADABLE, Dropped, reason_of, write_dropped
from fm_science.locks import LockedError, lock_holder, locked
from fm_science.prepared import Plan, Preparation, below
from fm_science.records import FORMAT, Prepared, Record, is_prepared, join, write_records
from fm_science.storage import sweep, writable, write_text

log = logging.getLogger("fm_science")
PLAN = "plan.json"  #: what the parts in a folder are parts of
AHEAD = 3  #: parts that wait for each process
Progress = Callable[[int | None], AbstractContextManager[Callable[[int], None]]]  #: of the total


@dataclass(frozen=True)
class Outcome:
    """What has become of the work.

    Attributes:
        prepared: the result.
        dropped: the table of what was left out.
        before: how many things an earlier call had read; ``None``: it had read all.
    """

    prepared: Prepared
    dropped: Path
    before: int | None


def prepare(
    preparation: Preparation[Any], inputs: Sequence[Path], out: Path, workers: int, progress: Progress
) -> Outcome:  # fmt: skip
    """Read files and folders into the prepared file ``out``, with ``dropped.csv`` beside it.

    Args:
        preparation: how a domain reads its files.
        inputs: files and folders.
        out: the file to write; parts are kept in the folder ``.NAME.parts`` beside it until it is whole.
        workers: processes that read.
        progress: called with how many things there are, for what shows them.

    Raises:
        UserError: where there is nothing to read or nothing usable, ``out`` is something else or is written by another
            process, or unfinished work beside it is of other files or options.
        RuntimeError: where a process that reads was killed.
    """
    for place in inputs:
        if place.is_dir() and place.resolve() in out.resolve().parents:
            raise UserError(f"out={out} lies in the folder {place}, which is read: name a place outside of it")
    plan = preparation.plan(inputs)
    about = _about(preparation, plan, inputs)
    table, folder = out.with_name("dropped.csv"), out.with_name(f".{out.name}.parts")
    if _finished(out, about):
        return Outcome(Prepared(out), table, None)
    writable(out.parent)
    with _claimed(folder, about, out):
        before, parts = _read(preparation, plan, folder, workers, progress)
        dropped = [*plan.dropped, *(line for part in parts for line in Prepared(part).dropped)]
        write_dropped(dropped, table)
        if not any(len(Prepared(part)) for part in parts):
            shutil.rmtree(folder)
            raise UserError(f"nothing usable in {_names(inputs)}: all is left out, see {table}{_first(dropped)}")
        if plan.dropped:
            parts = [_beginning(preparation, plan, folder), *parts]
        join(parts, preparation.columns, out, about)
        shutil.rmtree(folder)
    return Outcome(Prepared(out), table, before)


def _about(preparation: Preparation[Any], plan: Plan[Any], inputs: Sequence[Path]) -> dict[str, Any]:
    """What a result is made of, and by which it is known again."""
    stamp = hashlib.sha256()
    for file in plan.files:
        found = file.stat()
        stamp.update(f"{below(file, inputs)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return {
        "domain": preparation.domain, "layout": preparation.layout, "format": FORMAT, "version": __version__,
        "options": preparation.reading, "files": len(plan.files), "stamp": stamp.hexdigest(),
    }  # fmt: skip


def _first(dropped: Sequence[Dropped]) -> str:
    for line in dropped:
        return f"; first: {' '.join(filter(None, (line.file, line.part)))}: {line.reason}"
    return ""


def _names(inputs: Sequence[Path]) -> str:
    return ", ".join(map(str, inputs[:3])) + (", ..." if len(inputs) > 3 else "")


def _finished(out: Path, about: dict[str, Any]) -> bool:
    """Whether the result is there. Raises UserError where something else is."""
    if not out.exists():
        return False
    if not is_prepared(out):
        raise UserError(f"{out} exists and is no prepared file: name another, out=FILE")
    other = [key for key in ("domain", "options", "stamp", "layout") if Prepared(out).about[key] != about[key]]
    words = {"domain": "for another domain", "options": "with other options", "stamp": "from other files, or they have "
             "changed since", "layout": "by another version"}  # fmt: skip
    if other:
        raise UserError(f"{out} exists and was prepared {words[other[0]]}: remove it, or name another, out=FILE")
    return True


@contextmanager
def _claimed(folder: Path, about: dict[str, Any], out: Path) -> Iterator[None]:
    """Inside, no other process works on the parts in a folder, which are parts of this work."""
    folder.mkdir(exist_ok=True)
    try:
        with locked(folder):
            sweep(folder, ".*.part")
            sweep(out.parent, f".{out.name}.[0-9]*.part")
            plan, mine = folder / PLAN, json.dumps(about, sort_keys=True)
            if plan.is_file() and plan.read_text(encoding="utf-8") != mine:
                raise UserError(f"{folder} holds parts of unfinished work with other files, options or version: finish "
                                "that, remove the folder, or name another out=FILE")  # fmt: skip
            write_text(mine, plan)
            yield
    except LockedError:
        raise UserError(f"{out} is being prepared by {lock_holder(folder) or 'another process'}: wait for its end, or "
                        "stop it") from None  # fmt: skip


def _beginning(preparation: Preparation[Any], plan: Plan[Any], folder: Path) -> Path:
    """The part of what was left out from the beginning."""
    file = folder / "dropped.safetensors"
    write_records([], plan.dropped, preparation.columns, file)
    return file


def _read(
    preparation: Preparation[Any], plan: Plan[Any], folder: Path, workers: int, progress: Progress
) -> tuple[int, list[Path]]:
    """Read what is not read yet. How many things there were, and all parts in order."""
    kept = {file.name for file in folder.glob("[0-9]*.safetensors")}
    waiting: deque[Future[int]] = deque()
    parts, before = [], 0
    with _pool(workers) as pool:
        pool.submit(int).result()  # the processes start before a bar has a thread of its own
        with progress(plan.total) as advance:
            for number, things in enumerate(_chunks(plan, preparation.chunk)):
                parts.append(folder / f"{number:08d}.safetensors")
                if parts[-1].name in kept:
                    before += len(things)
                    advance(len(things))
                    continue
                waiting.append(pool.submit(work, preparation, pickle.dumps(things), parts[-1]))
                while len(waiting) > AHEAD * workers:
                    advance(waiting.popleft().result())
            while waiting:
                advance(waiting.popleft().result())
    return before, parts


def _chunks(plan: Plan[Any], size: int) -> Iterator[list[Any]]:
    things = iter(plan.things)
    while chunk := list(islice(things, size)):
        yield chunk


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end when this one does, however it ends."""
    kind = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, kind, _alone)
    try:
        yield pool
    except BrokenProcessPool:
        raise RuntimeError("a process that reads was killed, perhaps since memory ran out: the same command goes on, "
                           "with fewer workers=N in less memory") from None  # fmt: skip
    finally:
        pool.shutdown(cancel_futures=True)


def _alone() -> None:
    """One thread a process, since several share the cores; Ctrl-C is left to the process that started this one, and
    where that is killed this one ends too."""
    import torch

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def work(preparation: Preparation[Any], things: bytes, file: Path) -> int:
    """Read some things and write their part; how many there were."""
    chunk = pickle.loads(things)
    found = [one for thing in chunk for one in _converted(preparation, thing)]
    records: list[Record] = [one for one in found if not isinstance(one, Dropped)]
    write_records(records, [one for one in found if isinstance(one, Dropped)], preparation.columns, file)
    return len(chunk)


def _converted(preparation: Preparation[Any], thing: Any) -> list[Record | Dropped]:
    """The records of one thing; one that cannot be read stops nothing."""
    try:
        return preparation.convert(thing)
    except UserError:
        raise
    except UNREADABLE as error:
        place = thing if isinstance(thing, Path) else None
        return [Dropped(str(thing)[:200], "", reason_of(error, place))]
