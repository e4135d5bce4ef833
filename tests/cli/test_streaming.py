"""Prepared data stay in their file while training: what is held in memory does not grow with their records."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fm_science.data import train_loader
from fm_science.plugins import find
from fm_science.prepared import Prepared, Record, text
from fm_science.records import join, write_records

PER_RECORD = 400  #: bytes that may be held of a record: its number, place, size, class and the like


def image(i: int) -> Record:
    levels = np.random.default_rng(i).integers(0, 255, (3, 64, 64), np.uint8)
    return {
        "levels": levels.reshape(-1), "shape": np.array([3, 64, 64], np.int32), "label": np.zeros(0, np.int64),
        "top": np.array([255], np.int32), "white": np.zeros(1, np.int32), "array": np.zeros(1, np.uint8),
        "file": text(f"{i}.png"), "folder": text("cats" if i % 2 else "dogs"), "name": text(str(i)),
    }  # fmt: skip


def function(i: int) -> Record:
    first = i == 0
    axis = np.linspace(0, 1, 1024)
    return {
        "values": np.random.default_rng(i).normal(size=1024), "channels": np.ones(1, np.int32),
        "coords": axis if first else np.zeros(0), "weights": np.full(1024 if first else 0, 1 / 1024),
        "grid": np.array([1024], np.int32), "name": text(str(i)),
    }  # fmt: skip


def molecule(i: int) -> Record:
    """A chain of carbons, with so many hydrogens that most of a record is left out."""
    draw = np.random.default_rng(i)
    heavy, light = 4 + i % 3, 300
    ends = np.array([[k, k + 1] for k in range(heavy - 1)], np.int16)
    return {
        "positions": draw.normal(size=(heavy + light, 3)).astype(np.float32),
        "atoms": np.array([6] * heavy + [1] * light, np.uint8), "charges": np.zeros(heavy + light, np.int8),
        "ends": ends, "orders": np.ones(len(ends), np.uint8), "properties": np.array([draw.normal()], np.float32),
        "known": text("gap"), "smiles": text("C" * (1 + i % 97)), "name": text(str(i)),
        "hydrogens": np.ones(1, np.uint8),
    }  # fmt: skip


def written(name: str, record: Any, n: int, folder: Path) -> Path:
    """A prepared file of ``n`` records, written in parts."""
    found = find(name).build({}).preparation()
    assert found is not None
    about = {"domain": name, "layout": found.layout, "format": 1, "options": found.reading, "files": n, "stamp": ""}
    parts = []
    for start in range(0, n, 500):
        parts.append(folder / f"{name}-{n}-{start}.part")
        write_records([record(i) for i in range(start, min(start + 500, n))], [], found.columns, parts[-1])
    file = folder / f"{name}-{n}.safetensors"
    join(parts, found.columns, file, about)
    return file


def reached(root: object) -> Iterator[object]:
    """All objects that hang on one, without classes, modules and functions."""
    waiting, seen = [root], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type(sys) | type | type(reached)):
            continue
        seen.add(id(one))
        yield one
        waiting += gc.get_referents(one)


def memory_of(root: object) -> int:
    """Bytes in memory of the tensors, arrays and texts that hang on an object; maps of a file are none."""
    total = 0
    stores: dict[int, int] = {}
    for one in reached(root):
        if isinstance(one, torch.Tensor):
            stores[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        elif isinstance(one, np.ndarray) and one.base is None and not isinstance(one, np.memmap):
            total += one.nbytes
        elif isinstance(one, str | bytes):
            total += len(one)
    return total + sum(stores.values())


CASES = [("image", image, {}), ("function", function, {}), ("molecule", molecule, {"hydrogens": False})]


@pytest.mark.parametrize(("name", "record", "options"), CASES, ids=[case[0] for case in CASES])
def test_what_is_held_does_not_grow_with_the_records(
    tmp_path: Path, name: str, record: Any, options: dict[str, Any]
) -> None:
    sizes, whole = [], []
    for n in (250, 1000):
        file = written(name, record, n, tmp_path)
        made = find(name).build({"data": {"source": str(file), **options}})
        _, context = next(iter(train_loader(made.data, made.path.space, 0, lambda: 0, 0, 1)))
        assert context.size
        assert len(made.data.train) + len(made.data.validation) <= n
        assert made.data.digest == Prepared(file).digest
        sizes.append(memory_of(made.data))
        whole.append(file.stat().st_size)
    assert sizes[1] - sizes[0] < PER_RECORD * 750 < (whole[1] - whole[0]) / 5


@pytest.mark.parametrize(("name", "record", "options"), CASES, ids=[case[0] for case in CASES])
def test_processes_together_draw_what_one_draws(
    tmp_path: Path, name: str, record: Any, options: dict[str, Any]
) -> None:
    """Each of two processes reads its own half of the batch of one."""
    file = written(name, record, 60, tmp_path)

    def batch(size: int, rank: int, world: int) -> Any:
        data = find(name).build({"data": {"source": str(file), "batch": size, **options}})
        x, _ = next(iter(train_loader(data.data, data.path.space, 0, lambda: 0, rank, world)))
        return x["positions"] if name == "molecule" else x

    def rows(x: torch.Tensor) -> set[bytes]:
        return {row[row.abs().flatten(1).sum(1) > 0].numpy().tobytes() for row in x}

    one, two = batch(8, 0, 1), [batch(4, rank, 2) for rank in (0, 1)]
    assert [len(part) for part in two] == [4, 4]
    assert rows(one) == rows(two[0]) | rows(two[1])
