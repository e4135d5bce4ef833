"""From atoms to chains of amino-acid residues: where chains begin and end, and which atoms of a residue are used.

A chain ends at TER, where the file gives it another name, and where its numbering starts again without a peptide bond
across; two chains of one name get different names. Of alternative locations the one of highest occupancy is used, the
first on a tie, and of two residue types at one position likewise. A modified residue is used if it is bonded by a
peptide bond; waters, ions, nucleotides and ligands are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from fm_science.errors import UserError

from .atoms import BACKBONE, NEEDS_BIOPYTHON, Atom, Place

BREAK = 1.8  # angstrom; a longer C-N distance is a chain break
NUCLEOTIDES = {"A", "C", "G", "U", "I", "N", "DA", "DC", "DG", "DT", "DU", "DI"}
WATERS = {"HOH", "WAT", "H2O", "DOD", "D2O", "SOL", "TIP", "TIP3", "TIP4", "SPC"}
#: Names that force fields and modelling programs give to protonation states and bridges: AMBER, CHARMM, GROMACS
STATES = {
    "H": "HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS1 HIS2", "C": "CYX CYM CYS2 CYSH CYN CY1 CY2",
    "E": "GLH GLUH GLUP GLZ", "D": "ASH ASPH ASPP ASZ", "K": "LYN LYSH LSN LYP LYSN", "R": "ARN ARGN", "Y": "TYM TYRM",
}  # fmt: skip


@dataclass
class Residue:
    """One residue with all its alternatives, until :meth:`remove_mean` chooses among them."""

    chain: str
    number: str
    order: int
    atoms: list[Atom] = field(default_factory=list)
    name: str = ""
    hetero: bool = False
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        """The letter of its amino acid, X where unknown."""
        return letters().get(self.name, "X")

    @property
    def known(self) -> bool:
        """Whether this is an amino acid: by its name, or by an alpha carbon with N or C (calcium is alone)."""
        named = self.name in letters()
        return named or (not self.hetero and "CA" in self.places and ("N" in self.places or "C" in self.places))

    def settled(self) -> Residue:
        """Itself, with one residue type and one position for each atom."""
        self.name = self._type()
        mine = [a for a in self.atoms if a.residue == self.name]
        self.hetero = mine[0].hetero
        shared = [a for a in self.atoms if a.residue != self.name and not a.alternative]
        best: dict[str, Atom] = {}
        for atom in (*mine, *shared):
            if atom.name not in best or atom.occupancy > best[atom.name].occupancy:
                best[atom.name] = atom
        self.places = {name: atom.place for name, atom in best.items() if atom.place is not None}
        return self

    def _type(self) -> str:
        """The residue type of highest occupancy, the first on a tie; atoms that all types share are not counted."""
        types = dict.fromkeys(a.residue for a in self.atoms)
        if len(types) == 1:
            return next(iter(types))
        shares = {}
        for name in types:
            own = [a for a in self.atoms if a.residue == name]
            shares[name] = max(a.occupancy for a in ([a for a in own if a.alternative] or own))
        return max(types, key=lambda name: shares[name])


@cache
def letters() -> dict[str, str]:
    """One-letter codes by the names of residues: amino acids, their modifications and protonation states, and those at
    the ends of a chain as AMBER names them (NALA, CHIE). Raises UserError if Biopython is not installed."""
    try:
        from Bio.Data.PDBData import protein_letters_3to1, protein_letters_3to1_extended
    except ImportError as error:
        raise UserError(NEEDS_BIOPYTHON) from error
    known = {name.strip(): letter for name, letter in protein_letters_3to1_extended.items()}
    states = {name: letter for letter, names in STATES.items() for name in names.split()}
    plain = {**{name.upper(): letter for name, letter in protein_letters_3to1.items()}, **states}
    ends = {end + name: letter for name, letter in plain.items() for end in "NC" if len(name) == 3}
    return {"UNK": "X", **ends, **known, **states}


def bonded(first: Residue, second: Residue) -> bool:
    """Whether a peptide bond joins two residues, by the distance from C to N."""
    return "C" in first.places and "N" in second.places and math.dist(first.places["C"], second.places["N"]) <= BREAK


def chains(atoms: Iterable[Atom]) -> list[tuple[str, list[Residue]]]:
    """The chains of amino acids in the order of the file, each with a unique name."""
    runs: dict[tuple[str, str], list[list[Residue]]] = {}
    seen: dict[tuple[str, str], dict[str, Residue]] = {}
    for atom in atoms:
        if atom.residue in WATERS or atom.residue in NUCLEOTIDES:
            continue
        key = (atom.chain, atom.segment)
        _add(atom, runs.setdefault(key, []), seen.setdefault(key, {}))
    found: list[tuple[str, list[Residue]]] = []
    taken = {chain for chain, _ in runs}
    used: set[str] = set()
    for (chain, _), parts in runs.items():
        kept = [_amino_acids([r.settled() for r in part]) for part in parts]
        for residues in _joined([part for part in kept if part]):
            name = chain
            if name in used:
                name = next(f"{chain}{k}" for k in range(2, len(taken) + 3) if f"{chain}{k}" not in taken)
            used.add(name)
            taken.add(name)
            found.append((name, residues))
    return found


def _add(atom: Atom, runs: list[list[Residue]], seen: dict[str, Residue]) -> None:
    """Add an atom to its residue. If it has such an atom already, numbering started again: a new run begins."""
    ligand = atom.hetero and atom.residue not in letters()  # it may be numbered like a residue of the chain
    key = f"{atom.number}/{atom.order}" + (f"/{atom.residue}" if ligand else "")
    residue = seen.get(key)
    if residue is not None and not ligand and atom.name in BACKBONE[:3] and any(
        a.name == atom.name and a.alternative == atom.alternative and (a.residue == atom.residue or not a.alternative)
        for a in residue.atoms
    ):  # fmt: skip
        residue = None
        seen.clear()
        runs.append([])
    if residue is None:
        residue = seen[key] = Residue(atom.chain, atom.number, atom.order)
        if not runs:
            runs.append([])
        runs[-1].append(residue)
    residue.atoms.append(atom)


def _amino_acids(residues: Sequence[Residue]) -> list[Residue]:
    """The amino acids among residues; hetero ones only if they are bonded by a peptide bond."""
    known = [r for r in residues if r.known]
    tied = [not r.hetero for r in known]
    for i in range(len(known) - 1):
        if bonded(known[i], known[i + 1]):
            tied[i] = tied[i + 1] = True
    return [r for r, keep in zip(known, tied, strict=True) if keep]


def _joined(runs: Sequence[list[Residue]]) -> list[list[Residue]]:
    """Runs of residues as chains: split where numbers decrease, and joined again across a peptide bond."""
    pieces: list[list[Residue]] = []
    for run in runs:
        start = 0
        for i in range(1, len(run) + 1):
            if i == len(run) or run[i].order < run[i - 1].order:
                pieces.append(run[start:i])
                start = i
    found: list[list[Residue]] = []
    for piece in pieces:
        if found and bonded(found[-1][-1], piece[0]):
            found[-1].extend(piece)
        else:
            found.append(piece)
    return found
