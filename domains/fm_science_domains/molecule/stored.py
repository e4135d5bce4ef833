"""Molecules that ``fm-science prepare`` has read: kept in one file with all their hydrogens, and mapped into memory
from there.

A thing is a record of an SDF file or a frame of an XYZ file, so one large file is shared among processes too. What the
options of the data leave out, such as hydrogens, is left out when a training reads the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, Texts, text

from . import drugs, sdf
from .molecule import Molecule
from .pack import Pack, Packed, ranges

PIECE = 4096  #: molecules that are looked at together
SMILES = "a file of SMILES is folded by training itself, which keeps what it has folded: train with data.source={}"


class MoleculePreparation(Preparation[sdf.Record | Dropped]):
    """The records of SDF and XYZ files as molecules."""

    domain = "molecule"
    chunk = 512
    columns: Mapping[str, Column] = {
        "positions": Column("float32", (3,)), "atoms": Column("uint8"), "charges": Column("int8"),
        "ends": Column("int16", (2,)), "orders": Column("uint8"), "properties": Column("float32"), "smiles": TEXT,
        "name": TEXT, "known": TEXT, "hydrogens": Column("uint8"),
    }  # fmt: skip

    def plan(self, inputs: Sequence[Path]) -> Plan[sdf.Record | Dropped]:
        for path in inputs:
            if drugs.is_smiles(path):
                raise UserError(SMILES.format(path))
        files = sdf.files(inputs)
        return Plan(files, _things(files))

    def convert(self, thing: sdf.Record | Dropped) -> list[Record | Dropped]:
        found = sdf.parse(thing)
        return [found if isinstance(found, Dropped) else _record(*found)]


def _things(files: Sequence[Path]) -> Iterator[sdf.Record | Dropped]:
    """The records of all files; a file that cannot be read is left out."""
    for file in files:
        try:
            yield from sdf.records(file)
        except UserError as error:
            yield Dropped(str(file), "", str(error))


def _record(molecule: Molecule, smiles: str) -> Record:
    pairs = molecule.bonds.triu(1).nonzero()
    return {
        "positions": molecule.positions.float().numpy(), "atoms": molecule.atoms.numpy().astype(np.uint8),
        "charges": molecule.charges.numpy().astype(np.int8), "ends": pairs.numpy().astype(np.int16),
        "orders": molecule.bonds[pairs[:, 0], pairs[:, 1]].numpy().astype(np.uint8),
        "properties": np.array(list(molecule.properties.values()), np.float32),
        "known": text("\n".join(molecule.properties)), "smiles": text(smiles), "name": text(molecule.name),
        "hydrogens": np.array([molecule.hydrogens], np.uint8),
    }  # fmt: skip


def opened(options: Mapping[str, Any]) -> Prepared | None:
    """The prepared file that the options of the data name; ``None``: they name something else."""
    return MoleculePreparation(options).open(Path(options["source"]).expanduser())


@dataclass(frozen=True, eq=False)
class StoredPack(Packed):
    """Molecules of a prepared file, whose atoms and bonds stay in it until they are asked for.

    Attributes:
        prepared: the file.
        chosen: (M,) int64, the numbers of its records that are meant.
    """

    prepared: Prepared
    chosen: np.ndarray
    lengths: np.ndarray
    part: np.ndarray
    properties: Mapping[str, np.ndarray]
    hydrogens: bool

    @cached_property
    def explicit(self) -> bool:
        """Whether hydrogens are explicit atoms in the file."""
        return bool(self.prepared.flat("hydrogens").all())

    @staticmethod
    def of(kept: Prepared) -> StoredPack:
        """All molecules of a file, in one part."""
        numbers, explicit = np.arange(len(kept)), bool(kept.flat("hydrogens").all())
        lengths, part = kept.lengths("atoms"), np.zeros(len(kept), np.int8)
        return StoredPack(kept, numbers, lengths, part, _properties(kept), explicit)

    @property
    def smiles(self) -> Texts:
        return Texts(self.prepared, "smiles", self.chosen)

    @property
    def names(self) -> Texts:
        return Texts(self.prepared, "name", self.chosen)

    def some(self, index: np.ndarray) -> Pack:
        """The molecules ``index`` in memory."""
        kept, numbers = self.prepared, self.chosen[index]
        first, bond = (kept.offsets(name)[numbers] for name in ("atoms", "orders"))
        sizes, counts = (kept.offsets(name)[numbers + 1] - kept.offsets(name)[numbers] for name in ("atoms", "orders"))
        atoms, bonds = ranges(first, sizes), ranges(bond, counts)
        places, elements, charges = (np.asarray(kept.flat(name)[atoms]) for name in ("positions", "atoms", "charges"))
        ends, orders = (np.asarray(kept.flat(name)[bonds]) for name in ("ends", "orders"))
        smiles, names = (np.array([kept.text(n, int(i)) for i in numbers], dtype=str) for n in ("smiles", "name"))
        pack = Pack(
            places, elements, charges, sizes, ends, orders, counts, smiles, names, self.part[index],
            {name: values[index] for name, values in self.properties.items()}, self.explicit,
        )  # fmt: skip
        return pack if self.hydrogens or not pack.hydrogens else pack.without_hydrogens()

    def pieces(self) -> Iterator[Pack]:
        for start in range(0, len(self), PIECE):
            yield self.some(np.arange(start, min(start + PIECE, len(self))))

    def take(self, index: Any) -> StoredPack:
        named = {name: values[index] for name, values in self.properties.items()}
        return replace(self, chosen=self.chosen[index], lengths=self.lengths[index], part=self.part[index],
                       properties=named)  # fmt: skip

    def without_hydrogens(self) -> StoredPack:
        heavy = replace(self, hydrogens=False)
        return replace(heavy, lengths=np.concatenate([piece.lengths for piece in heavy.pieces()]))

    def parted(self, part: np.ndarray) -> StoredPack:
        """The same molecules in these parts ``(M,)``."""
        return replace(self, part=part)

    def known(self) -> Container[str]:
        return Hashes(self.smiles)

    @overload
    def __getitem__(self, index: int) -> Molecule: ...
    @overload
    def __getitem__(self, index: slice) -> list[Molecule]: ...
    def __getitem__(self, index: int | slice) -> Molecule | list[Molecule]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        found: Molecule = self.some(np.array([range(len(self))[index]]))[0]
        return found


class Hashes(Container[str]):
    """Texts by hashes of 64 bits, in 8 bytes each: of a million texts one in 10^13 others is taken for one of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.kept = np.unique(np.fromiter(map(self._of, texts), np.uint64))

    def __contains__(self, word: object) -> bool:
        place = int(np.searchsorted(self.kept, self._of(str(word))))
        return place < len(self.kept) and bool(self.kept[place] == self._of(str(word)))

    @staticmethod
    def _of(word: str) -> np.uint64:
        return np.uint64(int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little"))


def _properties(kept: Prepared) -> dict[str, np.ndarray]:
    """Named numbers, ``(M,)`` float32 each; NaN where a molecule lacks one."""
    found: dict[str, np.ndarray] = {}
    values, begin = kept.flat("properties"), kept.offsets("properties")[:-1]
    codes, lists = kept.coded("known")
    for code, names in enumerate(lists):
        rows = np.flatnonzero(codes == code)
        for k, name in enumerate(names.split("\n") if names else ()):
            found.setdefault(name, np.full(len(kept), np.nan, np.float32))[rows] = values[begin[rows] + k]
    return found
