"""Protein chains as training data: one rigid frame a residue, translations in nanometres.

The chains are the shipped ones, or those of a folder of PDB and mmCIF files. A chain of N residues becomes the state
``{"translations": (N, 3), "rotations": (N, 3, 3)}`` and the conditions ``residue`` (N,), the index of each residue
along the chain, and ``structure`` (N,), which are coil, helix or strand. Everything is kept in memory: a thousand
chains of a hundred residues take 5 MB.
"""

from __future__ import annotations

import csv
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError
from fm_science.tables import cell

from . import chains
from .files import Dropped, read_backbones
from .geometry import secondary
from .structure import NANOMETRE, Backbone, frames

log = logging.getLogger(__name__)
Item = tuple[dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Data:
    """Which chains to learn from, and how many at a time."""

    dir: str | None = option(None, "folder of PDB and mmCIF files, plain or .gz; none: the 2,948 chains shipped")
    min_length: int = option(40, "shortest chain", unit="residues", low=3)
    max_length: int = option(128, "longest chain", unit="residues", low=3)
    limit: int = option(0, "use at most this many training chains; 0: all", low=0)
    batch: int = option(16, "chains a batch", low=1)
    budget: int = option(150_000, "at most this many padded residue pairs a batch; 0: no limit", low=0)
    workers: int = option(0, "processes that load data; chains are in memory, so 0 is fast", low=0)


class Chains(Dataset):
    """Chains as items. sizes: (len,) int64, residues of each; backbones: the chains in angstrom; dropped: left out."""

    def __init__(self, backbones: Sequence[Backbone], dropped: Sequence[Dropped] = ()) -> None:
        self.backbones = tuple(backbones)
        self.dropped = tuple(dropped)
        self.sizes = torch.tensor([len(b) for b in self.backbones], dtype=torch.long)
        self._items = [item(b) for b in self.backbones]
        self._structures: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        state, conditions = self._items[index]
        return state, {**conditions, "structure": self.structure(index)}

    def structure(self, index: int) -> Tensor:
        """(N,) int64: 0 coil, 1 helix, 2 strand of the residues of one chain, worked out when first asked."""
        if index not in self._structures:
            self._structures[index] = secondary(self.backbones[index].coords)
        return self._structures[index]


def item(backbone: Backbone) -> Item:
    """State of one chain, translations in nanometres, centred on the mean CA, and rotations; its residues' numbers."""
    n, ca, c = backbone.coords[:, :3].unbind(1)
    rotations, translations = frames(n, ca, c)
    translations = (translations - translations.mean(0)) / NANOMETRE
    return {"translations": translations, "rotations": rotations}, {"residue": torch.arange(len(backbone))}


def load(options: Data) -> tuple[Chains, Chains]:
    """Training and validation chains.

    The shipped chains are split by sequence cluster. A folder is split by a hash of the file name, one file in ten for
    validation (at least one when there are two), so that chains of one entry stay together; close relatives in other
    files are yours to remove. Raises UserError when nothing usable remains.
    """
    if options.min_length > options.max_length:
        raise UserError(f"data.min_length={options.min_length} is above data.max_length={options.max_length}")
    dropped: list[Dropped] = []
    if options.dir is None:
        train, validation = (
            [b for b in chains.backbones(side) if options.min_length <= len(b) <= options.max_length]
            for side in (False, True)
        )
        where = "the shipped chains"
    else:
        found, dropped = read_backbones(options.dir, options.min_length, options.max_length)
        train, validation = _split(found)
        where = options.dir
    if not train:
        raise UserError(f"no chain of {options.min_length} to {options.max_length} residues in {where}")
    if options.limit and options.limit < len(train):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        train = [train[i] for i in sorted(order[: options.limit].tolist())]
    counts = f"{len(train)} chains to train, {len(validation)} to validate"
    log.info("%s: %s, %d dropped", where, counts, len(dropped))
    return Chains(train, dropped), Chains(validation or train[:1], dropped)


def _split(found: Sequence[Backbone]) -> tuple[list[Backbone], list[Backbone]]:
    hashes = {b.source: zlib.crc32(Path(b.source).name.encode()) for b in found}
    held_out = {source for source, value in hashes.items() if value % 10 == 1}
    if not held_out or len(held_out) == len(hashes):
        held_out = {min(hashes, key=lambda source: hashes[source])} if len(hashes) > 1 else set()
        if not held_out:
            log.warning("only one file with usable chains: validation repeats the training chain")
    return [b for b in found if b.source not in held_out], [b for b in found if b.source in held_out]


def write_drop_report(dropped: Sequence[Dropped], path: str | Path) -> Path:
    """Write one line (file, chain, reason) for every dropped chain as CSV."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["file", "chain", "reason"])
        writer.writerows([cell(d.file), cell(d.chain), cell(d.reason)] for d in dropped)
    return path
