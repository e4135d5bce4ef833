"""A molecule as chemists draw it: atoms in space, joined by single, double and triple bonds, with formal charges.

Bonds are those of one Kekulé structure; there is no aromatic class, so that the valence of an atom is a plain sum of
bond orders. RDKit perceives aromaticity again where it is needed. Lengths are in angstrom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science import viewer
from fm_science.errors import UserError

ORDERS = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3}
OTHER = 4  # a bond that is none of these: dative, or aromatic without a Kekulé structure. Never valid, never data
SHORTER = {"DOUBLE": 0.87, "TRIPLE": 0.79, "AROMATIC": 0.92}  # than a single bond
UNKNOWN = 0  # the atomic number of an undecided atom


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule, on the CPU.

    Attributes:
        positions: (N, 3) float32, angstrom.
        atoms: (N,) int64 atomic numbers; 0: undecided (as during sampling).
        bonds: (N, N) int64, symmetric: 0 none, 1 single, 2 double, 3 triple (4: another kind, only in foreign files).
        charges: (N,) int64 formal charges.
        name: any text.
        properties: named numbers, as written into and read from SDF files.
        hydrogens: True if every hydrogen is an explicit atom, False if they are implied by valence.
    """

    positions: Tensor
    atoms: Tensor
    bonds: Tensor
    charges: Tensor
    name: str = ""
    properties: Mapping[str, float] = field(default_factory=dict)
    hydrogens: bool = True

    def __len__(self) -> int:
        return self.atoms.shape[0]

    def __repr__(self) -> str:
        return f"Molecule({self.name!r}, {len(self)} atoms)"

    def _repr_html_(self) -> str:
        from .files import mol_block

        return viewer.frame(viewer.Scene(self.name, "sdf", f"{mol_block(self)}$$$$\n"))

    @property
    def valences(self) -> Tensor:
        """(N,) int64: the sum of the orders of each atom's bonds, to the atoms that are written."""
        return self.bonds.sum(1)

    def to_rdkit(self, sanitize: bool = False) -> Any:
        """An RDKit molecule with these atoms in this order and one conformer.

        Explicit molecules get NoImplicit on every atom, so that RDKit adds no hydrogens. With ``sanitize``, raises
        RDKit's ``MolSanitizeException`` if valence rules are violated.
        """
        from rdkit import Chem

        edited = Chem.RWMol()
        for number, charge in zip(self.atoms.tolist(), self.charges.tolist(), strict=True):
            atom = Chem.Atom(number)
            atom.SetFormalCharge(charge)
            atom.SetNoImplicit(self.hydrogens)
            edited.AddAtom(atom)
        kinds = (None, *(getattr(Chem.BondType, name) for name in (*ORDERS, "UNSPECIFIED")))
        ends = self.bonds.triu(1).nonzero()
        for (i, j), order in zip(ends.tolist(), self.bonds[ends[:, 0], ends[:, 1]].tolist(), strict=True):
            edited.AddBond(i, j, kinds[order])
        conformer = Chem.Conformer(len(self))
        conformer.SetPositions(self.positions.double().numpy())
        edited.AddConformer(conformer)
        made = edited.GetMol()
        if self.name:
            made.SetProp("_Name", self.name)
        if sanitize:
            Chem.SanitizeMol(made)
        return made

    @classmethod
    def from_rdkit(
        cls, mol: Any, name: str = "", properties: Mapping[str, float] | None = None, strict: bool = True
    ) -> Molecule:  # fmt: skip
        """The molecule of an RDKit one, bonds Kekulé. ``mol`` is not changed.

        Hydrogens count as explicit if no atom lacks one. Raises ValueError with a short reason when there are no
        coordinates in space; with ``strict`` also when there is no atom, an atom is a placeholder or a radical, or a
        bond is neither single, double nor triple.
        """
        from rdkit import Chem

        mol = Chem.Mol(mol)
        mol.UpdatePropertyCache(strict=False)
        try:
            plain = Chem.Mol(mol)  # a failure would leave some bonds changed
            Chem.Kekulize(plain, clearAromaticFlags=True)
            mol = plain
        except Chem.KekulizeException as error:
            if strict:
                raise ValueError("aromatic bonds without a Kekulé structure") from error
        _refuse(mol, strict)
        n = mol.GetNumAtoms()
        bonds = torch.zeros(n, n, dtype=torch.long)
        for bond in mol.GetBonds():
            i, j, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), str(bond.GetBondType())
            if kind not in ORDERS and strict:
                raise ValueError(f"a {kind.lower()} bond; known are single, double and triple ones")
            bonds[i, j] = bonds[j, i] = ORDERS.get(kind, OTHER)
        return cls(
            positions=torch.from_numpy(mol.GetConformer().GetPositions()).float() if n else torch.zeros(0, 3),
            atoms=torch.tensor([a.GetAtomicNum() for a in mol.GetAtoms()], dtype=torch.long),
            bonds=bonds,
            charges=torch.tensor([a.GetFormalCharge() for a in mol.GetAtoms()], dtype=torch.long),
            name=name or (mol.GetProp("_Name") if mol.HasProp("_Name") else ""),
            properties=dict(properties or {}),
            hydrogens=all(a.GetTotalNumHs() == 0 for a in mol.GetAtoms()),
        )


def _refuse(mol: Any, strict: bool) -> None:
    """Raise ValueError for what is not a molecule, or with ``strict`` not a state."""
    if mol.GetNumAtoms() == 0:
        if strict:
            raise ValueError("no atoms")
        return
    if mol.GetNumConformers() == 0 or (not mol.GetConformer().Is3D() and is_drawing(mol)):
        raise ValueError("no coordinates in space (a 2D drawing?)")
    if strict and any(a.GetAtomicNum() == 0 for a in mol.GetAtoms()):
        raise ValueError("a placeholder atom (R, * or A)")
    if strict and any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()):
        raise ValueError("a radical: an unpaired electron")


def is_drawing(mol: Any) -> bool:
    """Whether a flat RDKit molecule is a drawing rather than a planar molecule in space.

    It is, if the header says 2D; else by lengths: those of a drawing are all equal, whatever the bonds are, or far from
    chemical ones.
    """
    said = (mol.GetProp("_MolFileInfo") if mol.HasProp("_MolFileInfo") else "")[20:22].upper()
    lengths, expected = bond_lengths(mol)
    if said == "2D" or not len(lengths) or lengths.min() < 1e-3:
        return True
    ratio = lengths / expected
    if said == "3D" or ratio.min() < 0.8 or ratio.max() > 1.2:
        return said != "3D"
    alike = bool(np.ptp(lengths) < 0.01 * lengths.mean())
    return alike and (np.ptp(expected) > 0.01 or all(a.GetAtomicNum() != 1 for a in mol.GetAtoms()))


def bond_lengths(mol: Any) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the length of each bond of an RDKit molecule with coordinates, and its expected length, angstrom: the
    sum of the covalent radii (Pyykkö & Atsumi 2009 shorten double and triple bonds by about an eighth and a fifth)."""
    from rdkit import Chem

    table, places = Chem.GetPeriodicTable(), mol.GetConformer().GetPositions()
    ends = [(bond.GetBeginAtom(), bond.GetEndAtom(), str(bond.GetBondType())) for bond in mol.GetBonds()]
    radii = [table.GetRcovalent(a.GetAtomicNum()) + table.GetRcovalent(b.GetAtomicNum()) for a, b, _ in ends]
    shorter = [SHORTER.get(kind, 1.0) for _, _, kind in ends]
    apart = [float(np.linalg.norm(places[a.GetIdx()] - places[b.GetIdx()])) for a, b, _ in ends]
    return np.array(apart), np.array(radii) * np.array(shorter)


def plain_smiles(mol: Any) -> str:
    """Canonical SMILES of a sanitised RDKit molecule without stereo, isotopes and hydrogens: its identity, both in the
    data and among samples. ``mol`` is not changed."""
    from rdkit import Chem

    plain = Chem.Mol(mol)
    for atom in plain.GetAtoms():  # RDKit treats deuterium as a separate atom
        atom.SetIsotope(0)
    return str(Chem.MolToSmiles(Chem.RemoveHs(plain), isomericSmiles=False))


def without_hydrogens(molecule: Molecule) -> Molecule:
    """The heavy atoms alone, hydrogens implied. Hydrogen without a heavy neighbour is lost."""
    heavy = molecule.atoms != 1
    return Molecule(
        molecule.positions[heavy], molecule.atoms[heavy], molecule.bonds[heavy][:, heavy], molecule.charges[heavy],
        molecule.name, molecule.properties, hydrogens=False,
    )  # fmt: skip


@cache
def symbol(number: int) -> str:
    """The symbol of an element, ``*`` for 0."""
    from rdkit import Chem

    return Chem.GetPeriodicTable().GetElementSymbol(number)


def rdkit() -> str:
    """The version of RDKit: canonical SMILES may differ between versions.

    Raises:
        UserError: if RDKit is not installed.
    """
    try:
        from rdkit import rdBase
    except ImportError as error:
        raise UserError("molecules need RDKit: pip install 'fm-science[molecule]'") from error
    return str(rdBase.rdkitVersion)


def quiet() -> Any:
    """A context in which RDKit prints nothing: its messages are counted instead."""
    from rdkit import rdBase

    return rdBase.BlockLogs()
