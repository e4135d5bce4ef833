"""Side chains of fixed residues: they are given in the frame of their residue and kept unchanged.

Only heavy atoms of the twenty amino acids are kept, in the order below; hydrogens are easily added again. Of a modified
residue the atoms of its parent are kept, the selenium of selenomethionine as a sulfur.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .atoms import BACKBONE
from .residues import Residue

MOST = 10  # heavy atoms of a side chain: tryptophan's
ATOMS = {
    letter: tuple(names.split()) for letter, names in {
        "A": "CB", "R": "CB CG CD NE CZ NH1 NH2", "N": "CB CG OD1 ND2", "D": "CB CG OD1 OD2", "C": "CB SG",
        "Q": "CB CG CD OE1 NE2", "E": "CB CG CD OE1 OE2", "H": "CB CG ND1 CD2 CE1 NE2", "I": "CB CG1 CG2 CD1",
        "L": "CB CG CD1 CD2", "K": "CB CG CD CE NZ", "M": "CB CG SD CE", "F": "CB CG CD1 CD2 CE1 CE2 CZ",
        "P": "CB CG CD", "S": "CB OG", "T": "CB OG1 CG2", "W": "CB CG CD1 CD2 NE1 CE2 CE3 CZ2 CZ3 CH2",
        "Y": "CB CG CD1 CD2 CE1 CE2 CZ OH", "V": "CB CG1 CG2",
    }.items()
}  # fmt: skip
ALIASES = {"SD": "SE", "CD1": "CD"}  # names in selenomethionine, and of isoleucine in CHARMM

#: every atom that is read with side chains, including the backbone
NAMES = frozenset((*BACKBONE, *ALIASES.values(), *(name for names in ATOMS.values() for name in names)))


def places(residues: Sequence[Residue]) -> Tensor:
    """(L, 10, 3) the coordinates of the side-chain atoms of residues, angstrom, in the order of ``ATOMS``; NaN if there
    is none, or none in the file."""
    found = torch.full((len(residues), MOST, 3), torch.nan)
    for row, residue in zip(found, residues, strict=True):
        for k, name in enumerate(ATOMS.get(residue.letter, ())):
            place = residue.places.get(name) or residue.places.get(ALIASES.get(name, ""))
            if place is not None:
                row[k] = torch.tensor(place)
    return found


def atoms(letter: str, places: Tensor) -> Iterator[tuple[str, list[float]]]:
    """The atoms of the side chain of one residue (10, 3): name and position."""
    for name, place in zip(ATOMS.get(letter, ()), places[: len(ATOMS.get(letter, ()))].tolist(), strict=True):
        if place[0] == place[0]:
            yield name, place
