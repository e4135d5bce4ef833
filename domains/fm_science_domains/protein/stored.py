"""Chains that ``fm-science prepare`` has read: kept in one file, and mapped into memory from there.

A record holds what a chain of a file is, with the secondary structure and the pairs of its strands, which take as long
to work out as the file takes to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fm_science.files import Dropped
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, below, text

from . import sheets
from .files import read_file, structure_files
from .geometry import secondary
from .structure import Backbone


class ChainPreparation(Preparation[tuple[Path, str]]):
    """PDB and mmCIF files as records, one a chain. A thing is a file, and its name below the folder that was given.

    The range of lengths may be narrower in training.
    """

    domain = "protein"
    option = "dir"
    reads = ("min_length", "max_length", "breaks")
    columns: Mapping[str, Column] = {
        "coords": Column("float32", (4, 3)), "kinds": Column("int8"), "pairs": Column("int16", (3,)),
        "sequence": TEXT, "name": TEXT, "source": TEXT, "chain": TEXT, "numbers": TEXT,
    }  # fmt: skip

    def plan(self, inputs: Sequence[Path]) -> Plan[tuple[Path, str]]:
        dropped: list[Dropped] = []
        files = list(structure_files(inputs, dropped))
        return Plan(files, [(file, below(file, inputs)) for file in files], len(files), dropped)

    def convert(self, thing: tuple[Path, str]) -> list[Record | Dropped]:
        file, source = thing
        o = self.options
        found = read_file(file, o["min_length"], o["max_length"], breaks=o["breaks"])
        return [one if isinstance(one, Dropped) else _record(one, source) for one in found]

    def fits(self, name: str, prepared: Any, requested: Any) -> bool:
        if name == "min_length":
            return bool(prepared <= requested)
        return bool(prepared >= requested) if name == "max_length" else bool(prepared == requested)


def _record(chain: Backbone, source: str) -> Record:
    kinds = secondary(chain.coords)
    return {
        "coords": chain.coords.numpy(),
        "kinds": kinds.numpy().astype(np.int8),
        "pairs": sheets.pairs(chain.coords, kinds).numpy().astype(np.int16).reshape(-1, 3),
        "sequence": text(chain.sequence or ""), "name": text(chain.name), "source": text(source),
        "chain": text(chain.chain), "numbers": text("\n".join(chain.numbers)),
    }  # fmt: skip


class StoredBackbones(Sequence[Backbone]):
    """Chains of a prepared file, each made when it is asked for.

    Args:
        prepared: the file.
        chosen: ``(n,)`` the numbers of its records that are meant; ``None``: all.
    """

    def __init__(self, prepared: Prepared, chosen: np.ndarray | None = None) -> None:
        self.prepared = prepared
        self.chosen = np.arange(len(prepared)) if chosen is None else chosen

    @property
    def sizes(self) -> Tensor:
        """(n,) int64: residues of each chain."""
        return torch.from_numpy(self.prepared.lengths("coords")[self.chosen])

    @property
    def sources(self) -> list[str]:
        """The file of each chain."""
        found = self.prepared.texts("source")
        return [found[i] for i in self.chosen.tolist()]

    def take(self, index: Sequence[int]) -> StoredBackbones:
        """The chains ``index``, in that order."""
        return StoredBackbones(self.prepared, self.chosen[np.asarray(index, dtype=np.int64)])

    def folded(self, index: int) -> tuple[Tensor, Tensor]:
        """The kinds (N,) of the residues of one chain and the pairs (P, 3) of its strands."""
        i = int(self.chosen[index])
        kinds, pairs = (torch.from_numpy(self.prepared.get(name, i).astype(np.int64)) for name in ("kinds", "pairs"))
        return kinds, pairs

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Backbone]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Backbone: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Backbone]: ...
    def __getitem__(self, index: int | slice) -> Backbone | Sequence[Backbone]:
        if isinstance(index, slice):
            return StoredBackbones(self.prepared, self.chosen[index])
        i, kept = int(self.chosen[index]), self.prepared
        numbers = kept.text("numbers", i)
        return Backbone(
            torch.from_numpy(kept.get("coords", i)), kept.text("sequence", i), kept.text("name", i),
            kept.text("source", i), kept.text("chain", i), tuple(numbers.split("\n")) if numbers else (),
        )  # fmt: skip
