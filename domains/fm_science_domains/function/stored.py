"""Functions that ``fm-science prepare`` has read: kept in one file.

Functions of one file that stand on the same sensors share them: only the first of such records holds places and
weights. Values and places are kept in double precision, as the readers give them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import Dropped, reason_of
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, text

from .files import Layout, listed, read_file
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


def functions(kept: Prepared) -> list[Sampled]:
    """The functions of a prepared file; those that share their sensors hold the same tensors."""
    numbers = np.arange(len(kept))
    owners = np.maximum.accumulate(np.where(kept.lengths("weights") > 0, numbers, 0)).tolist()
    names, found = kept.texts("name"), []
    sensors: tuple[Tensor, Tensor] | None = None
    for i, owner in enumerate(owners):
        if owner == i or sensors is None:
            weights = torch.from_numpy(kept.get("weights", owner))
            sensors = torch.from_numpy(kept.get("coords", owner)).reshape(len(weights), -1), weights
        values = torch.from_numpy(kept.get("values", i)).reshape(len(sensors[1]), -1)
        grid = tuple(kept.get("grid", i).tolist()) or None
        found.append(Sampled(values, sensors[0], grid, sensors[1], names[i]))
    return found
