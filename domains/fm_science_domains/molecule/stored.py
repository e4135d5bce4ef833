"""Molecules that ``fm-science prepare`` has read: kept in one file, with all their hydrogens.

A thing is a record of an SDF file or a frame of an XYZ file, so one large file is shared among processes too. What the
options of the data leave out, such as hydrogens, is left out when a training reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, text

from . import drugs, sdf
from .molecule import Molecule
from .pack import Pack

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


def pack(kept: Prepared) -> Pack:
    """The molecules of a prepared file, whose atoms and bonds stay in it until they are asked for."""
    return Pack(
        kept.flat("positions"), kept.flat("atoms"), kept.flat("charges"), kept.lengths("atoms"),
        kept.flat("ends"), kept.flat("orders"), kept.lengths("orders"), np.array(kept.texts("smiles"), dtype=str),
        np.array(kept.texts("name"), dtype=str), np.zeros(len(kept), np.int8), _properties(kept),
        bool(kept.flat("hydrogens").all()),
    )  # fmt: skip


def _properties(kept: Prepared) -> dict[str, np.ndarray]:
    """Named numbers, ``(M,)`` float32 each; NaN where a molecule lacks one."""
    found: dict[str, np.ndarray] = {}
    values, ends = kept.flat("properties"), kept.offsets("properties").tolist()
    for i, names in enumerate(kept.texts("known")):
        for k, name in enumerate(names.split("\n") if names else ()):
            found.setdefault(name, np.full(len(kept), np.nan, np.float32))[i] = values[ends[i] + k]
    return found
