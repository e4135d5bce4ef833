"""Validity of a single molecule: valence rules, fragments, distances.

A molecule is *valid* when RDKit sanitises the whole of it and no electron is unpaired. If hydrogens are explicit none
may be added (NoImplicit). Many published numbers sanitise the largest fragment only, which hides fragmented molecules:
here *connected* requires one fragment. Results are cached as long as the molecule exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from .molecule import ORDERS, Molecule, plain_smiles, quiet, symbol

NO_NUMBERS = "coordinates that are no numbers"
Valences = Mapping[tuple[int, int], frozenset[int]]
_kept: WeakKeyDictionary[Molecule, Verdict] = WeakKeyDictionary()


@dataclass(frozen=True)
class Verdict:
    """The result of RDKit for one molecule.

    Attributes:
        valid: sanitised as a whole, every atom decided, no unpaired electron, finite coordinates.
        connected: valid, and one fragment.
        neutral: valid, and without net charge.
        smiles: canonical SMILES without stereo and hydrogens; empty unless valid.
        reason: why it is not valid; empty when it is.
        mol: the sanitised RDKit molecule, hydrogens as they are written; None unless valid.
    """

    valid: bool = False
    connected: bool = False
    neutral: bool = False
    smiles: str = ""
    reason: str = ""
    mol: Any = None


def judge(molecule: Molecule) -> Verdict:
    """The validity of a molecule; computed once."""
    if molecule not in _kept:
        _kept[molecule] = _judged(molecule)
    return _kept[molecule]


def _judged(molecule: Molecule) -> Verdict:
    from rdkit import Chem

    reason = _unfit(molecule)
    if reason:
        return Verdict(reason=reason)
    with quiet():
        try:
            mol = molecule.to_rdkit(sanitize=True)
        except ValueError as error:  # RDKit's MolSanitizeException is one
            return Verdict(reason=_short(str(error)))
        lonely = next((a for a in mol.GetAtoms() if a.GetNumRadicalElectrons()), None)
        if lonely is not None:
            missing = ": hydrogens are missing" if molecule.hydrogens else ""
            return Verdict(reason=f"unpaired electron on {lonely.GetSymbol()} (atom {lonely.GetIdx()}){missing}")
        smiles = plain_smiles(mol)
        connected = len(Chem.GetMolFrags(mol)) == 1
    return Verdict(True, connected, int(molecule.charges.sum()) == 0, smiles, "", mol)


def _short(said: str) -> str:
    """RDKit's message for a molecule that it cannot sanitise, in one short line."""
    line = said.strip().splitlines()[0]
    found = re.search(r"valence for atom # (\d+) ([A-Z][a-z]?), (-?\d+)", line)
    return f"valence {found[3]} on {found[2]} (atom {found[1]})" if found else line[:120]


def _unfit(molecule: Molecule) -> str:
    """The reason why RDKit is not needed, or an empty text."""
    if len(molecule) == 0:
        return "no atoms"
    if not bool(torch.isfinite(molecule.positions).all()):
        return NO_NUMBERS
    if bool((molecule.atoms == 0).any()):
        return "an atom without an element"
    if int(molecule.bonds.max()) > max(ORDERS.values()):
        return "a bond that is neither single, double nor triple (dative, or aromatic without a Kekulé structure)"
    return ""


def stable(molecule: Molecule, valences: Valences) -> np.ndarray:
    """(N,) bool: atoms whose sum of bond orders occurs in the data for their element and charge."""
    states = zip(molecule.atoms.tolist(), molecule.charges.tolist(), molecule.valences.tolist(), strict=True)
    return np.array([v in valences.get((z, q), ()) for z, q, v in states], bool)


# ------------------------------------------------------------------------------- EDM's rule, for coordinates alone

#: Bond lengths in picometres by pairs of symbols, and the margins beyond them (Hoogeboom et al. 2022, appendix).
SINGLE = {
    "HH": 74, "HC": 109, "HN": 101, "HO": 96, "HF": 92, "CC": 154, "CN": 147, "CO": 143, "CF": 135, "NN": 145,
    "NO": 140, "NF": 136, "OO": 148, "OF": 142, "FF": 142,
}  # fmt: skip
DOUBLE = {"CC": 134, "CN": 129, "CO": 120, "NN": 125, "NO": 121, "OO": 121}
TRIPLE = {"CC": 120, "CN": 116, "CO": 113, "NN": 110}
MARGINS = (10, 5, 3)
ALLOWED = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}


def _table(lengths: Mapping[str, int], margin: int) -> np.ndarray:
    """(10, 10) the distance in angstrom below which two atoms have a bond of this order; 0 if they never have."""
    table = np.zeros((10, 10))
    numbers = dict(zip("HCNOF", ALLOWED, strict=True))
    for pair, length in lengths.items():
        a, b = numbers[pair[0]], numbers[pair[1]]
        table[a, b] = table[b, a] = (length + margin) / 100
    return table


LIMITS = tuple(_table(lengths, margin) for lengths, margin in zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True))


def orders_by_distance(positions: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """(N, N) bond orders that EDM derives from the distances of atoms of H, C, N, O and F."""
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(apart, np.inf)
    pair = (atoms[:, None], atoms[None])
    one, two, three = (apart < limit[pair] for limit in LIMITS)
    return one.astype(int) + (one & two) + (one & two & three)


def stable_by_distance(molecule: Molecule) -> np.ndarray | None:
    """(N,) bool: atoms that are stable by EDM's rule; None if it does not apply: hydrogens implied, other elements."""
    atoms = molecule.atoms.numpy()
    if not molecule.hydrogens or not len(atoms) or not np.isin(atoms, list(ALLOWED)).all():
        return None
    found = orders_by_distance(molecule.positions.double().numpy(), atoms).sum(1)
    return found == np.array([ALLOWED[z] for z in atoms.tolist()])


def reasons(molecules: Sequence[Molecule]) -> dict[str, int]:
    """How often each kind of reason makes a molecule invalid, the most common first. Numbers of atoms are left out."""
    found: dict[str, int] = {}
    for molecule in molecules:
        kind = re.sub(r" ?\(atom \d+\)|#? ?\b\d+(?! on)\b", "", judge(molecule).reason)
        if kind:
            found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def formula(molecule: Molecule) -> str:
    """The written atoms in Hill's order, such as C2H6O."""
    counts: dict[str, int] = {}
    for number in molecule.atoms.tolist():
        counts[symbol(number)] = counts.get(symbol(number), 0) + 1
    order = sorted(counts, key=lambda s: ({"C": 0, "H": 1}.get(s, 2) if "C" in counts else 2, s))
    return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)
