"""The molecules of a source in three parts, as items for training, and what was derived from the training part."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.errors import nearest

from . import fixture
from .cache import Dropped
from .molecule import Molecule
from .pack import PARTS, Pack, Packed, square
from .stored import StoredPack
from .vocabulary import Vocabulary

Item = tuple[dict[str, Tensor], dict[str, Tensor]]


class Molecules(Dataset):
    """A part of the data as items ``(state, conditions)``, encoded once. sizes: (len,) int64, atoms of each; pack: the
    molecules themselves."""

    def __init__(self, pack: Pack, vocabulary: Vocabulary) -> None:
        self.pack: Packed = pack
        self.arrays, self.vocabulary = pack, vocabulary
        self.sizes = torch.from_numpy(pack.lengths.astype(np.int64))
        self._atoms = _lookup(pack.atoms, vocabulary.elements)
        self._charges = _lookup(pack.charges, vocabulary.charges)
        self._orders = _lookup(pack.orders, vocabulary.bonds)
        self._places = _centred(pack)

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, index: int) -> Item:
        i = range(len(self))[index]
        pack = self.arrays
        first, n, bond = pack.first[i], int(pack.lengths[i]), pack.first_bond[i]
        atoms, bonds = slice(first, first + n), slice(bond, bond + pack.counts[i])
        state = {
            "positions": torch.from_numpy(self._places[atoms]).clone(),
            "atoms": torch.from_numpy(self._atoms[atoms]).clone(),
            "bonds": square(pack.ends[bonds], self._orders[bonds], n),
            "charges": torch.from_numpy(self._charges[atoms]).clone(),
        }
        return state, {name: torch.tensor(float(v[i])) for name, v in pack.properties.items()}


class StoredMolecules(Molecules):
    """Molecules of a prepared file as items, each encoded when it is asked for."""

    def __init__(self, pack: StoredPack, vocabulary: Vocabulary) -> None:
        self.pack, self.stored, self.vocabulary = pack, pack, vocabulary
        self.sizes = torch.from_numpy(pack.lengths)

    def __getitem__(self, index: int) -> Item:
        i = range(len(self))[index]
        return Molecules(self.stored.some(np.array([i])), self.vocabulary)[0]


def items(pack: Packed, vocabulary: Vocabulary) -> Molecules:
    """The molecules of a pack as items."""
    if isinstance(pack, StoredPack):
        return StoredMolecules(pack, vocabulary)
    assert isinstance(pack, Pack)
    return Molecules(pack, vocabulary)


@dataclass(frozen=True, eq=False)
class Library:
    """All molecules of a domain, in three parts, and what was derived from the training part.

    Attributes:
        train, validation, test: the parts.
        vocabulary: the classes that occur.
        drops: molecules that were left out.
        source: where the molecules come from.
        digest: of a prepared file that they come from.
    """

    train: Molecules
    validation: Molecules
    test: Molecules
    vocabulary: Vocabulary
    drops: tuple[Dropped, ...] = ()
    source: str = "fixture"
    digest: str = ""

    def part(self, split: str) -> Molecules:
        """A part by its name. Raises KeyError for an unknown one."""
        if split not in PARTS:
            raise KeyError(f"unknown part {split!r} of the data; {nearest(split, PARTS)}")
        return getattr(self, split)

    def molecules(self, split: str, n: int = 0, seed: int = 0) -> list[Molecule]:
        """``n`` different molecules of a part in random order, drawn with ``seed``; fewer if there are fewer, and all
        of them in their own order if ``n`` is 0."""
        pack = self.part(split).pack
        if n == 0:
            return list(pack)
        order = torch.randperm(len(pack), generator=torch.Generator().manual_seed(seed))[:n]
        return [pack[int(i)] for i in order]

    @cached_property
    def sizes_histogram(self) -> Tensor:
        """(largest + 1,) how many training molecules have each number of atoms."""
        return torch.bincount(self.train.sizes)

    @cached_property
    def valences(self) -> dict[tuple[int, int], frozenset[int]]:
        """The sums of bond orders that occur in the training part, by (atomic number, formal charge). If hydrogens are
        implied, bonds to them are not counted."""
        seen: set[tuple[int, int, int]] = set()
        for pack in self.train.pack.pieces():
            rows = np.stack([pack.atoms.astype(int), pack.charges.astype(int), pack.valences])
            seen.update((z, q, v) for z, q, v in np.unique(rows, axis=1).T.tolist())
        return {
            (z, q): frozenset(v for a, b, v in seen if (a, b) == (z, q))
            for z, q in sorted({(z, q) for z, q, _ in seen})
        }

    @cached_property
    def properties(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each property over the training part; without NaN values."""
        found = self.train.pack.properties
        return {name: (float(np.nanmean(v)), float(np.nanstd(v))) for name, v in found.items()}

    @cached_property
    def smiles(self) -> Container[str]:
        """Canonical SMILES of the training part, without stereo and hydrogens, as the installed RDKit writes them."""
        pack = self.train.pack
        return frozenset(fixture.canonical([*map(str, pack.smiles)])) if self.source == "fixture" else pack.known()


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs to know about the training molecules, and the small part of what metrics need.

    Attributes:
        vocabulary: the classes.
        spread: standard deviation of a coordinate, angstrom.
        histogram: ``(M + 1,)`` how many training molecules have each number of atoms.
        properties: mean and standard deviation of each property.
        valences: the sums of bond orders that occur, by (atomic number, formal charge).
    """

    vocabulary: Vocabulary
    spread: float
    histogram: Tensor
    properties: Mapping[str, tuple[float, float]]
    valences: Mapping[tuple[int, int], frozenset[int]]

    @staticmethod
    def of(library: Library) -> Summary:
        """From the training part of a library."""
        return Summary(
            library.vocabulary, spread(library), library.sizes_histogram, library.properties, library.valences
        )  # fmt: skip

    def packed(self) -> dict[str, Any]:
        """Plain values and tensors, for the statistics of a run."""
        valences = [[z, q, sorted(found)] for (z, q), found in self.valences.items()]
        return {
            "vocabulary": vars(self.vocabulary), "spread": self.spread, "histogram": self.histogram,
            "properties": {name: list(known) for name, known in self.properties.items()}, "valences": valences,
        }  # fmt: skip

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """The inverse of :meth:`packed`."""
        words: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in kept["vocabulary"].items()}
        properties = {name: (mean, std) for name, (mean, std) in kept["properties"].items()}
        valences = {(z, q): frozenset(found) for z, q, found in kept["valences"]}
        return Summary(Vocabulary(**words), kept["spread"], kept["histogram"], properties, valences)


def spread(library: Library, most: int = 1000) -> float:
    """Standard deviation of a coordinate over training molecules, angstrom."""
    count = len(library.train.sizes)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].tolist()
    return float(torch.cat([library.train[i][0]["positions"] for i in chosen]).square().mean().sqrt().clamp_min(0.1))


def _lookup(values: np.ndarray, known: tuple[int, ...]) -> np.ndarray:
    """Class numbers of values, int64."""
    table: Mapping[int, int] = {value: k for k, value in enumerate(known)}
    kinds, inverse = np.unique(values.astype(np.int64), return_inverse=True)
    return np.array([table[int(kind)] for kind in kinds], np.int64)[inverse]


def _centred(pack: Pack) -> np.ndarray:
    """(A, 3) float32 positions, the centre of each molecule at the origin."""
    if not len(pack):
        return pack.positions
    centre = np.add.reduceat(pack.positions.astype(np.float64), pack.first) / pack.lengths[:, None]
    return (pack.positions - np.repeat(centre, pack.lengths, axis=0)).astype(np.float32)
