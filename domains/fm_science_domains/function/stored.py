"""Functions that ``fm-science prepare`` has read: kept in one file, and mapped into memory from there.

Functions of one file that stand on the same sensors share them: only the first of such records holds places and
weights. Values and places are kept in double precision, as the readers give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import Dropped, reason_of
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, text

from .files import Layout, listed, read_file
from .gathered import Gathered
from .sensors import Sampled


class FunctionPreparation(Preparation[Path]):
    """Files of functions as records, one a function. A thing is a file."""

    domain = "function"
    reads = ("array", "axis", "channel_axis", "periodic")
    columns: Mapping[str, Column] = {
        "values": Column("float64"), "coords": Column("float64"), "weights": Column("float64"),
        "channels": Column("int32"), "grid": Column("int32"), "name": TEXT,
    }  # fmt: skip

    def plan(self, inputs: Sequence[Path]) -> Plan[Path]:
        files = listed(inputs)
        return Plan(files, files, len(files))

    def convert(self, thing: Path) -> list[Record | Dropped]:
        dropped: list[Dropped] = []
        try:
            functions = read_file(thing, layout(self.options), dropped)
        except UserError as error:
            return [Dropped(str(thing), "", reason_of(error, thing))]
        before = [None, *functions]
        return [*(_record(f, b) for f, b in zip(functions, before, strict=False)), *dropped]


def layout(options: Mapping[str, Any]) -> Layout:
    """How arrays are to be understood, by the options of the data."""
    return Layout(options["array"], options["axis"], options["channel_axis"], options["periodic"])


def _record(f: Sampled, before: Sampled | None) -> Record:
    shared = before is not None and f.coords is before.coords and f.weights is before.weights
    nothing = np.zeros(0)
    return {
        "values": f.values.double().flatten().numpy(), "channels": np.array([f.values.shape[1]], np.int32),
        "coords": nothing if shared else f.coords.double().flatten().numpy(),
        "weights": nothing if shared else f.weights.double().numpy(),
        "grid": np.array(f.grid or (), np.int32), "name": text(f.name),
    }  # fmt: skip


class StoredFunctions(Gathered):
    """Functions of a prepared file, each read when it is asked for; those that share their sensors hold the same
    tensors where they are read one after the other.

    Args:
        prepared: the file.
        chosen: ``(n,)`` int64, the numbers of its records that are meant; ``None``: all.
    """

    def __init__(self, prepared: Prepared, chosen: Tensor | None = None) -> None:
        self.prepared = prepared
        self.chosen = torch.arange(len(prepared)) if chosen is None else chosen
        self._sensors: tuple[int, Tensor, Tensor] | None = None  # of the record that was read last

    @cached_property
    def _owners(self) -> Tensor:
        """(n,) the record that holds the sensors of each function."""
        numbers = np.arange(len(self.prepared))
        found = np.maximum.accumulate(np.where(self.prepared.lengths("weights") > 0, numbers, 0))
        return torch.from_numpy(found)[self.chosen]

    def _lengths(self, name: str) -> Tensor:
        """(records,) the lengths of a column of all records."""
        return torch.from_numpy(self.prepared.lengths(name))

    @cached_property
    def sizes(self) -> Tensor:
        return self._lengths("weights")[self._owners]

    @cached_property
    def kinds(self) -> set[tuple[int, int]]:
        channels = torch.from_numpy(np.array(self.prepared.flat("channels"), np.int64))[self.chosen]
        coords = self._lengths("coords")[self._owners] // self.sizes.clamp_min(1)
        return {(a, b) for a, b in torch.stack([channels, coords], 1).unique(dim=0).tolist()}

    @cached_property
    def gridded(self) -> Tensor:
        return (self._lengths("grid") > 0)[self.chosen]

    @cached_property
    def layouts(self) -> Tensor:
        owners, which = self._owners.unique(return_inverse=True)
        return torch.empty_like(owners).index_copy_(0, which, torch.arange(len(which)))

    def take(self, index: Tensor) -> StoredFunctions:
        return StoredFunctions(self.prepared, self.chosen[index])

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> Sampled: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sampled]: ...
    def __getitem__(self, index: int | slice) -> Sampled | list[Sampled]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        kept, i = self.prepared, int(self.chosen[index])
        coords, weights = self._read(int(self._owners[index]))
        values = torch.from_numpy(kept.get("values", i)).reshape(len(weights), -1)
        return Sampled(values, coords, tuple(kept.get("grid", i).tolist()) or None, weights, kept.text("name", i))

    def _read(self, owner: int) -> tuple[Tensor, Tensor]:
        """The positions and the weights of sensors."""
        if self._sensors is None or self._sensors[0] != owner:
            weights = torch.from_numpy(self.prepared.get("weights", owner))
            coords = torch.from_numpy(self.prepared.get("coords", owner)).reshape(len(weights), -1)
            self._sensors = owner, coords, weights
        return self._sensors[1:]
