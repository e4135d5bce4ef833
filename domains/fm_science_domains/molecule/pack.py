"""Many molecules in a few arrays: a hundred thousand of them take 40 MB, load in a second and can be sliced like one
list.

Atoms of all molecules are concatenated, and so are their bonds, each bond once with its ends numbered within its
molecule. Every source of data is converted to a pack; a pack is a sequence of molecules.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .molecule import Molecule

PARTS = ("train", "validation", "test")
FORMAT = 1


class Packed(Sequence[Molecule]):
    """Many molecules with a few numbers of each, in memory (:class:`Pack`) or in a prepared file.

    Attributes:
        lengths: (M,) int64, atoms of each molecule.
        smiles, names: (M,) texts.
        part: (M,) int8: 0 to train, 1 to validate, 2 to test.
        properties: named numbers, (M,) float32 each; NaN if one is missing.
        hydrogens: whether hydrogens are explicit atoms.
    """

    lengths: np.ndarray
    smiles: Any
    names: Any
    part: np.ndarray
    properties: Mapping[str, np.ndarray]
    hydrogens: bool

    @abstractmethod
    def take(self, index: Any) -> Packed:
        """The molecules ``index`` (numbers, or a mask of bool), in that order."""

    @abstractmethod
    def without_hydrogens(self) -> Packed:
        """The heavy atoms alone. Molecules of hydrogen alone are left with no atom."""

    @abstractmethod
    def pieces(self) -> Iterator[Pack]:
        """All molecules in packs of bounded size."""

    @abstractmethod
    def known(self) -> Container[str]:
        """What tells whether a SMILES is among those of the molecules."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Molecule]:
        return (self[i] for i in range(len(self)))


@dataclass(frozen=True, eq=False)
class Pack(Packed):
    """M molecules with A atoms and E bonds in total.

    Attributes:
        positions: (A, 3) float32, angstrom.
        atoms: (A,) uint8 atomic numbers.
        charges: (A,) int8 formal charges.
        lengths: (M,) int64, atoms of each molecule.
        ends: (E, 2) int16, the two atoms of each bond, the lower first, numbered within the molecule.
        orders: (E,) uint8 bond orders.
        counts: (M,) int64, bonds of each molecule.
        smiles: (M,) canonical SMILES without stereo and hydrogens, for comparisons.
        names: (M,) text.
        part: (M,) int8: 0 to train, 1 to validate, 2 to test.
        properties: named numbers, (M,) float32 each; NaN if one is missing.
        hydrogens: whether hydrogens are explicit atoms.
    """

    positions: np.ndarray
    atoms: np.ndarray
    charges: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray
    orders: np.ndarray
    counts: np.ndarray
    smiles: np.ndarray
    names: np.ndarray
    part: np.ndarray
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    hydrogens: bool = True

    @cached_property
    def first(self) -> np.ndarray:
        """(M,) the row of the first atom of each molecule."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def first_bond(self) -> np.ndarray:
        """(M,) the row of the first bond of each molecule."""
        return np.cumsum(self.counts) - self.counts

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        i = int(index) % len(self)
        atoms = slice(self.first[i], self.first[i] + self.lengths[i])
        rows = slice(self.first_bond[i], self.first_bond[i] + self.counts[i])
        return Molecule(
            torch.from_numpy(self.positions[atoms]).clone(),
            torch.from_numpy(self.atoms[atoms]).long(),
            square(self.ends[rows], self.orders[rows], int(self.lengths[i])),
            torch.from_numpy(self.charges[atoms]).long(),
            str(self.names[i]),
            {name: float(values[i]) for name, values in self.properties.items()},
            self.hydrogens,
        )

    def take(self, index: Any) -> Pack:
        """The molecules ``index`` (numbers, or a mask of bool), in that order."""
        index = np.arange(len(self))[index]
        atoms = ranges(self.first[index], self.lengths[index])
        bonds = ranges(self.first_bond[index], self.counts[index])
        return Pack(
            self.positions[atoms], self.atoms[atoms], self.charges[atoms], self.lengths[index],
            self.ends[bonds], self.orders[bonds], self.counts[index],
            self.smiles[index], self.names[index], self.part[index],
            {name: values[index] for name, values in self.properties.items()}, self.hydrogens,
        )  # fmt: skip

    def without_hydrogens(self) -> Pack:
        """The heavy atoms alone. Molecules of hydrogen alone are left with no atom."""
        owner = np.repeat(np.arange(len(self)), self.lengths)
        heavy = self.atoms != 1
        number = np.cumsum(heavy) - 1  # of each heavy atom among all of them
        lengths = np.bincount(owner[heavy], minlength=len(self))
        first = np.cumsum(lengths) - lengths
        which = np.repeat(np.arange(len(self)), self.counts)
        rows = self.ends.astype(np.int64) + self.first[which, None]
        kept = heavy[rows].all(1) if len(rows) else np.zeros(0, bool)
        ends = (number[rows[kept]] - first[which[kept], None]).astype(np.int16)
        return Pack(
            self.positions[heavy], self.atoms[heavy], self.charges[heavy], lengths, ends, self.orders[kept],
            np.bincount(which[kept], minlength=len(self)), self.smiles, self.names, self.part, self.properties, False,
        )  # fmt: skip

    def pieces(self) -> Iterator[Pack]:
        yield self

    def known(self) -> Container[str]:
        return frozenset(self.smiles.tolist())

    def parted(self, part: np.ndarray) -> Pack:
        """The same molecules in these parts ``(M,)``."""
        return replace(self, part=part)

    @cached_property
    def valences(self) -> np.ndarray:
        """(A,) int64: the sum of the orders of each atom's bonds, to the atoms that are written."""
        which = np.repeat(np.arange(len(self)), self.counts)
        rows = self.ends.astype(np.int64) + self.first[which, None]
        return np.bincount(rows.ravel(), np.repeat(self.orders, 2), minlength=len(self.atoms)).astype(np.int64)

    @staticmethod
    def of(molecules: Sequence[Molecule], smiles: Sequence[str], part: Sequence[int]) -> Pack:
        """The pack of these molecules. Properties that some of them lack are NaN there."""
        if not molecules:
            raise ValueError("a pack needs at least one molecule")
        pairs = [m.bonds.triu(1).nonzero() for m in molecules]
        names = list(dict.fromkeys(name for m in molecules for name in m.properties))
        return Pack(
            torch.cat([m.positions for m in molecules]).float().numpy(),
            torch.cat([m.atoms for m in molecules]).numpy().astype(np.uint8),
            torch.cat([m.charges for m in molecules]).numpy().astype(np.int8),
            np.array([len(m) for m in molecules]),
            torch.cat(pairs).numpy().astype(np.int16),
            torch.cat([m.bonds[p[:, 0], p[:, 1]] for m, p in zip(molecules, pairs, strict=True)]).numpy().astype("u1"),
            np.array([len(p) for p in pairs]),
            np.array(list(smiles), dtype=str),
            np.array([m.name for m in molecules], dtype=str),
            np.array(list(part), dtype=np.int8),
            {k: np.array([m.properties.get(k, np.nan) for m in molecules], np.float32) for k in names},
            all(m.hydrogens for m in molecules),
        )

    @staticmethod
    def join(packs: Sequence[Pack]) -> Pack:
        """The concatenation of packs. Properties that some of them lack are NaN there."""
        arrays = {
            name: np.concatenate([getattr(p, name) for p in packs])
            for name in Pack.__dataclass_fields__
            if name not in ("properties", "hydrogens")
        }
        names = list(dict.fromkeys(name for p in packs for name in p.properties))
        empty = [np.full(len(p), np.nan, np.float32) for p in packs]
        named = {k: np.concatenate([p.properties.get(k, e) for p, e in zip(packs, empty, strict=True)]) for k in names}
        return Pack(**arrays, properties=named, hydrogens=all(p.hydrogens for p in packs))

    def save(self, file: Path) -> Path:
        """Write as one ``.npz``; a crash leaves no partly written file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        known = self.__dataclass_fields__
        arrays: dict[str, Any] = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray) and k in known}
        named: dict[str, Any] = {f"property_{name}": values for name, values in self.properties.items()}
        draft = file.with_name(f".{file.name}.{np.random.default_rng().integers(1 << 40)}.npz")
        np.savez_compressed(draft, format=FORMAT, hydrogens=self.hydrogens, **arrays, **named)
        return draft.replace(file)

    @staticmethod
    def load(file: Path) -> Pack:
        """Read what :meth:`save` wrote. Raises ValueError if it has another format."""
        with np.load(file, allow_pickle=False) as archive:
            if int(archive["format"]) != FORMAT:
                raise ValueError(f"{file} has format {int(archive['format'])}, not {FORMAT}")
            known = [name for name in Pack.__dataclass_fields__ if name not in ("properties", "hydrogens")]
            named = {k.removeprefix("property_"): archive[k] for k in archive.files if k.startswith("property_")}
            hydrogens = bool(archive["hydrogens"])
            return Pack(**{name: archive[name] for name in known}, properties=named, hydrogens=hydrogens)


def square(ends: np.ndarray, orders: np.ndarray, size: int) -> torch.Tensor:
    """Bonds as a symmetric matrix (size, size) of int64."""
    bonds = np.zeros((size, size), np.int64)
    bonds[ends[:, 0], ends[:, 1]] = orders
    bonds[ends[:, 1], ends[:, 0]] = orders
    return torch.from_numpy(bonds)


def ranges(first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows first, first + 1, ... of each of several ranges, concatenated."""
    start = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(first - start, lengths)
