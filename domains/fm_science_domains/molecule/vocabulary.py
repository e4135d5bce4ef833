"""The elements, charges and bonds that occur: the classes of a molecule's state, from the data.

A state is ``{"positions": (N, 3) float32 angstrom, centred; "atoms": (N,); "bonds": (N, N) symmetric, diagonal 0;
"charges": (N,)}`` with class numbers as int64. Class 0 of charges is always the charge 0, and class 0 of bonds no bond.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.errors import UserError

from .molecule import Molecule, symbol


@dataclass(frozen=True)
class Vocabulary:
    """The classes of atoms, charges and bonds, without any mask class.

    Attributes:
        elements: atomic number of each class of atoms.
        charges: formal charge of each class of charges; the first is 0.
        bonds: bond order of each class of bonds; the first is 0, no bond.
        hydrogens: whether hydrogens are explicit atoms.
    """

    elements: tuple[int, ...]
    charges: tuple[int, ...] = (0,)
    bonds: tuple[int, ...] = (0, 1, 2, 3)
    hydrogens: bool = True

    def __post_init__(self) -> None:
        if self.charges[:1] != (0,) or self.bonds[:1] != (0,):
            raise ValueError(f"class 0 of charges and of bonds must be 0, not {self.charges[:1]} and {self.bonds[:1]}")

    @staticmethod
    def of(elements: Iterable[int], charges: Iterable[int], hydrogens: bool = True) -> Vocabulary:
        """The vocabulary of these atomic numbers and charges, sorted; it always has all three bond orders."""
        others = sorted(set(charges) - {0}, key=lambda q: (abs(q), -q))
        return Vocabulary(tuple(sorted(set(elements))), (0, *others), hydrogens=hydrogens)

    def covering(self, other: Vocabulary, whose: str) -> Vocabulary:
        """This vocabulary, which must have every class of another. Raises UserError otherwise."""
        strange = [symbol(z) for z in sorted(set(other.elements) - set(self.elements))]
        strange += [f"charge {q:+d}" for q in sorted(set(other.charges) - set(self.charges))]
        if other.hydrogens != self.hydrogens:
            strange.append("hydrogens as atoms" if other.hydrogens else "implied hydrogens")
        if strange:
            raise UserError(f"{whose} have {', '.join(strange)}, which training has not; leave them out")
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbol of each class of atoms."""
        return tuple(symbol(number) for number in self.elements)

    def encode(self, molecule: Molecule) -> dict[str, Tensor]:
        """The unbatched state of a molecule, its centre at the origin.

        Raises:
            ValueError: for an element, a charge or a bond order that is not in the vocabulary.
        """
        return {
            "positions": (molecule.positions - molecule.positions.mean(0)).float(),
            "atoms": _classes(molecule.atoms, self.elements, "element"),
            "bonds": _classes(molecule.bonds, self.bonds, "bond order"),
            "charges": _classes(molecule.charges, self.charges, "charge"),
        }

    def decode(
        self, positions: Tensor, atoms: Tensor, bonds: Tensor, charges: Tensor | None = None, name: str = ""
    ) -> Molecule:  # fmt: skip
        """The molecule of an unbatched state, on the CPU. Classes beyond the vocabulary, such as the mask class, become
        undecided atoms, no bond and charge 0. Without ``charges`` all are 0."""
        atoms = _values(atoms, self.elements)
        orders = _values(bonds, self.bonds).triu(1)
        return Molecule(
            positions.detach().cpu().float(), atoms, orders + orders.T,
            torch.zeros_like(atoms) if charges is None else _values(charges, self.charges), name,
            hydrogens=self.hydrogens,
        )  # fmt: skip


def _classes(values: Tensor, known: tuple[int, ...], what: str) -> Tensor:
    table = torch.tensor(known)
    found = values[..., None] == table
    if not bool(found.any(-1).all()):
        strange = sorted(set(values.flatten().tolist()) - set(known))
        raise ValueError(f"{what} {strange[0]} is not in the vocabulary {known}")
    return found.long().argmax(-1)


def _values(classes: Tensor, known: tuple[int, ...]) -> Tensor:
    table = torch.tensor([*known, 0])
    return table[classes.detach().cpu().long().clamp(0, len(known))]
