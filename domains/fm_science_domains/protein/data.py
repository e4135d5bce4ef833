"""Protein chains as training data: one rigid frame per residue, translations in nanometres.

The chains are the shipped ones, or those of a folder of PDB and mmCIF files. A chain of N residues becomes the state
``{"translations": (N, 3), "rotations": (N, 3, 3)}`` and the conditions ``residue`` (N,), the index of each residue
along the chain, ``structure`` (N,), which are coil, helix or strand, and ``sheet`` (N, N), which strands lie side by
side. All chains are kept in memory, a thousand chains of a hundred residues in 5 MB, but for those that ``fm-science
prepare`` has read, which stay in their file until they are asked for.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError
from fm_science.files import Dropped

from . import chains, sheets
from .files import BREAKS, outside, read_backbones
from .geometry import secondary
from .residues import BREAK
from .stored import ChainPreparation, StoredBackbones
from .structure import NANOMETRE, Backbone, frames

log = logging.getLogger(__name__)
Item = tuple[dict[str, Tensor], dict[str, Tensor]]
MOST = 5_000  # chains whose secondary structure new chains follow


@dataclass(frozen=True)
class Data:
    """Which chains to learn from, and how many at a time."""

    dir: str | None = option(
        None, "folder of PDB and mmCIF files, plain or .gz, or a prepared file; none: the 2,948 chains shipped"
    )
    min_length: int = option(40, "shortest chain", unit="residues", low=3)
    max_length: int = option(128, "longest chain", unit="residues", low=3)
    breaks: str = option(
        "drop", "chains with breaks or incomplete residues: left out, split at their breaks, or kept with gaps",
        choices=BREAKS,
    )  # fmt: skip
    limit: int = option(0, "use at most this many training chains; 0: all", low=0)
    batch: int = option(16, "chains per batch", low=1)
    budget: int = option(150_000, "at most this many padded residue pairs per batch; 0: no limit", low=0)
    workers: int = option(0, "processes that load data; chains are in memory, so 0 is fast", low=0)


class Chains(Dataset):
    """Chains as items. sizes: (len,) int64, residues of each; backbones: the chains in angstrom; dropped: left out;
    digest: of a prepared file that they lie in."""

    digest = ""

    def __init__(self, backbones: Sequence[Backbone], dropped: Sequence[Dropped] = ()) -> None:
        self.backbones: Sequence[Backbone] = tuple(backbones)
        self.dropped = tuple(dropped)
        self.sizes = torch.tensor([len(b) for b in self.backbones], dtype=torch.long)
        self._items = [item(b) for b in self.backbones]
        self._structures: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.sizes)

    def _item(self, index: int) -> Item:
        return self._items[index]

    def __getitem__(self, index: int) -> Item:
        state, conditions = self._item(index)
        kinds, pairs = self.folded(index)
        return state, {**conditions, "structure": kinds, "sheet": sheets.condition(kinds, pairs)}

    def first(self) -> Chains:
        """The first chain alone."""
        return Chains(self.backbones[:1], self.dropped)

    def structure(self, index: int) -> Tensor:
        """(N,) int64: 0 coil, 1 helix, 2 strand of the residues of one chain."""
        return self.folded(index)[0]

    def folded(self, index: int) -> tuple[Tensor, Tensor]:
        """The kinds (N,) of the residues of one chain and the pairs (P, 3) of its strands (:func:`~.sheets.pairs`),
        computed at first use."""
        if index not in self._structures:
            coords = self.backbones[index].coords
            kinds = secondary(coords)
            self._structures[index] = kinds, sheets.pairs(coords, kinds)
        return self._structures[index]


class StoredChains(Chains):
    """Chains of a prepared file as items, each made when it is asked for."""

    def __init__(self, backbones: StoredBackbones, dropped: Sequence[Dropped] = ()) -> None:
        self.backbones: Sequence[Backbone] = backbones
        self.stored, self.dropped, self.sizes = backbones, tuple(dropped), backbones.sizes
        self.digest = backbones.prepared.digest

    def _item(self, index: int) -> Item:
        return item(self.stored[index])

    def folded(self, index: int) -> tuple[Tensor, Tensor]:
        return self.stored.folded(index)


@dataclass(frozen=True, eq=False)
class Structures:
    """The secondary structure and the sheets of chains, without their coordinates.

    Attributes:
        sizes: (C,) int64, residues of each chain.
        kinds: (R,) int64, coil 0, helix 1, strand 2 of all residues, chain after chain.
        pairs: (P, 3) int64, the pairs of strands of all chains (:func:`~.sheets.pairs`), chain after chain.
        paired: (C,) int64, how many pairs each chain has.
    """

    sizes: Tensor
    kinds: Tensor
    pairs: Tensor
    paired: Tensor

    @staticmethod
    def of(chains: Chains) -> Structures:
        """Those of chains, or of a random choice of MOST if there are more."""
        order = torch.randperm(len(chains), generator=torch.Generator().manual_seed(0))[:MOST].sort().values
        kinds, pairs = zip(*(chains.folded(i) for i in order.tolist()), strict=True)
        return Structures(
            chains.sizes[order], torch.cat(kinds), torch.cat(pairs), torch.tensor([len(rows) for rows in pairs])
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def structure(self, index: int) -> Tensor:
        """(N,) int64: the kinds of the residues of one chain."""
        end = int(self.sizes[: index + 1].sum())
        return self.kinds[end - int(self.sizes[index]) : end]

    def folded(self, index: int) -> tuple[Tensor, Tensor]:
        """The kinds (N,) of the residues of one chain and the pairs (P, 3) of its strands."""
        end = int(self.paired[: index + 1].sum())
        return self.structure(index), self.pairs[end - int(self.paired[index]) : end]

    def packed(self) -> dict[str, Tensor]:
        """As runs of equal kinds, in small integers: 150 kB for the chains shipped."""
        kinds, runs = torch.unique_consecutive(self.kinds, return_counts=True)
        return {
            "sizes": self.sizes.int(), "kinds": kinds.to(torch.int8), "runs": runs.int(),
            "pairs": self.pairs.to(torch.int16), "paired": self.paired.to(torch.int16),
        }  # fmt: skip

    @staticmethod
    def unpacked(kept: Mapping[str, Tensor]) -> Structures:
        """The inverse of :meth:`packed`."""
        kinds = kept["kinds"].long().repeat_interleave(kept["runs"].long())
        return Structures(kept["sizes"].long(), kinds, kept["pairs"].long(), kept["paired"].long())


def item(backbone: Backbone) -> Item:
    """State of one chain, translations in nanometres, centred on the mean CA, and rotations; the numbers of its
    residues."""
    n, ca, c = backbone.coords[:, :3].unbind(1)
    rotations, translations = frames(n, ca, c)
    translations = (translations - translations.mean(0)) / NANOMETRE
    return {"translations": translations, "rotations": rotations}, {"residue": positions(backbone)}


def positions(backbone: Backbone) -> Tensor:
    """(N,) int64: the index of each residue along its chain, from 0. Across a break as many residues are skipped as in
    the numbering, or one if the numbering does not tell."""
    n, c = backbone.coords[1:, 0], backbone.coords[:-1, 2]
    step = torch.ones(len(backbone), dtype=torch.long)
    step[0] = 0
    for i in (torch.linalg.vector_norm(n - c, dim=-1) > BREAK).nonzero().flatten().tolist():
        ends = [re.match(r"-?\d+", number) for number in backbone.numbers[i : i + 2]]
        apart = int(ends[1][0]) - int(ends[0][0]) if len(ends) == 2 and ends[0] and ends[1] else 2
        step[i + 1] = max(2, apart)
    return step.cumsum(0)


def load(options: Data) -> tuple[Chains, Chains]:
    """Training and validation chains.

    The shipped chains are split by sequence cluster. A folder is split by a hash of the file name, one file in ten for
    validation (at least one when there are two), so that chains of one entry stay together; you have to remove close
    relatives in other files yourself. Raises UserError when nothing usable remains.
    """
    if options.min_length > options.max_length:
        raise UserError(f"data.min_length={options.min_length} is above data.max_length={options.max_length}")
    stored = ChainPreparation(vars(options)).open(options.dir)
    if stored is not None:
        train, validation = _stored(options, StoredBackbones(stored))
    else:
        train, validation = _shipped(options) if options.dir is None else _read(options, options.dir)
    where = options.dir or "the shipped chains"
    if not len(train):
        raise UserError(f"no chain of {options.min_length} to {options.max_length} residues in {where}")
    counts = f"{len(train)} chains to train, {len(validation)} to validate"
    log.info("%s: %s, %d dropped", where, counts, len(train.dropped))
    return train, validation if len(validation) else train.first()


def _shipped(options: Data) -> tuple[Chains, Chains]:
    train, validation = (
        [b for b in chains.backbones(side) if options.min_length <= len(b) <= options.max_length]
        for side in (False, True)
    )
    return Chains([train[i] for i in _limited(range(len(train)), options.limit)]), Chains(validation)


def _read(options: Data, folder: str) -> tuple[Chains, Chains]:
    found, dropped = read_backbones(folder, options.min_length, options.max_length, breaks=options.breaks)
    train, validation = _split([b.source for b in found])
    chosen = [found[i] for i in _limited(train, options.limit)]
    return Chains(chosen, dropped), Chains([found[i] for i in validation], dropped)


def _stored(options: Data, found: StoredBackbones) -> tuple[Chains, Chains]:
    sizes = found.sizes
    wanted = (sizes >= options.min_length) & (sizes <= options.max_length)
    dropped = list(found.prepared.dropped)
    for chain in found.take((~wanted).nonzero()[:, 0].tolist()):
        dropped.append(outside(chain.source, chain, options.min_length, options.max_length))
    found = found.take(wanted.nonzero()[:, 0].tolist())
    train, validation = _split(found.sources)
    return (
        StoredChains(found.take(_limited(train, options.limit)), dropped),
        StoredChains(found.take(validation), dropped),
    )


def _limited(numbers: Sequence[int], limit: int) -> Sequence[int]:
    """At most ``limit`` of these numbers, a random choice that is always the same."""
    if not 0 < limit < len(numbers):
        return numbers
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))
    return [numbers[i] for i in sorted(order[:limit].tolist())]


def _split(sources: Sequence[str]) -> tuple[list[int], list[int]]:
    """The numbers of the chains to train and to validate, by the files that they come from."""
    hashes = {source: zlib.crc32(Path(source).name.encode()) for source in sources}
    held_out = {source for source, value in hashes.items() if value % 10 == 1}
    if not held_out or len(held_out) == len(hashes):
        held_out = {min(hashes, key=lambda source: hashes[source])} if len(hashes) > 1 else set()
        if not held_out:
            log.warning("only one file with usable chains: validation repeats the training chain")
    numbered = list(enumerate(sources))
    return [i for i, source in numbered if source not in held_out], [i for i, source in numbered if source in held_out]
