"""QM9: 130,831 small organic molecules with geometries from density functional theory (Ramakrishnan et al. 2014).

The molecules come from the package ``qm9pack``, published by the first author of QM9; only its CSV files are read.
They have no bonds, but their SMILES do: the k-th atom of the SMILES is the k-th heavy atom of the geometry, and each
hydrogen belongs to the nearest heavy atom. That recovers bonds and charges of all but eight molecules exactly, without
guessing bonds from distances; the eight are left out. The split is the one that Anderson et al. (2019) and Hoogeboom et
al. (2022, EDM) published: rows in the order of their index, permuted with numpy's seed 0, then 100,000 to train, 17,748
to validate and 13,083 to test.
"""

from __future__ import annotations

import ast
import csv
import itertools
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from fm_science.errors import UserError

from .cache import Dropped, Parsed, Prepared, gather
from .molecule import Molecule
from .workers import spread

ROWS = 130_831
SPLIT = (100_000, 17_748)  # rows to train and to validate; the others test
LONGEST_XH = 1.35  # angstrom; beyond, a hydrogen belongs to no atom
BONDS = (1.0, 1.9)  # angstrom, shortest and longest bond of heavy atoms
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
HARTREE = 27.211386  # eV
#: our name: (column, factor). Units: debye, cubic bohr, eV, eV, eV, cal / (mol K).
PROPERTIES = {
    "mu": (13, 1.0), "alpha": (14, 1.0), "homo": (15, HARTREE), "lumo": (16, HARTREE), "gap": (17, HARTREE),
    "Cv": (24, 1.0),
}  # fmt: skip
Row = list[str]


def files() -> list[Path]:
    """The three CSV files of the installed qm9pack. Raises UserError if it is not installed."""
    try:
        package = metadata.distribution("qm9pack")
    except metadata.PackageNotFoundError as error:
        raise UserError(
            "data.source=qm9 needs the package qm9pack (104 MB): pip install 'fm-science[qm9]'. "
            "Without it, data.source=fixture has 10,000 molecules of QM9."
        ) from error
    found = [Path(str(package.locate_file(f"qm9pack/data/qm9_part{k}.csv"))) for k in (1, 2, 3)]
    missing = [file for file in found if not file.is_file()]
    if missing:
        raise UserError(f"qm9pack lacks {missing[0]}: reinstall it, pip install --force-reinstall qm9pack==1.0.3")
    return found


def rows() -> Iterator[Row]:
    """All lines of the CSV files, in the order of the index."""
    csv.field_size_limit(10**9)
    for file in files():
        with file.open(newline="", encoding="utf-8") as stream:
            lines = csv.reader(stream)
            next(lines)
            yield from lines


def split(count: int = ROWS) -> np.ndarray:
    """(count,) int8: 0 to train, 1 to validate, 2 to test, as published; numpy's legacy generator with seed 0."""
    order = np.random.RandomState(0).permutation(count)
    part = np.full(count, 2, np.int8)
    part[order[: SPLIT[0]]] = 0
    part[order[SPLIT[0] : sum(SPLIT)]] = 1
    return part


def prepare(processes: int = 0) -> Prepared:
    """All of QM9 as a pack, and what was left out; about three minutes of processor time."""
    parts = split()
    found = spread(parse, rows(), processes, ROWS, "reading QM9")
    pack, dropped = gather(found, lambda k, _: int(parts[k % ROWS]), "QM9")
    if len(pack) + len(dropped) != ROWS:
        raise UserError(f"qm9pack holds {len(pack) + len(dropped)} molecules instead of {ROWS}; install qm9pack==1.0.3")
    return pack, dropped


def some(index: list[int]) -> Iterator[Parsed]:
    """The rows ``index``, ascending."""
    wanted = set(index)
    return (parse(row) for k, row in enumerate(itertools.islice(rows(), max(index) + 1)) if k in wanted)


def parse(row: Row) -> Parsed:
    """One line of the CSV file as a molecule with its canonical SMILES, or why it is left out."""
    from rdkit import Chem

    name = f"qm9_{int(row[1]):06d}"
    numbers = np.array([NUMBERS[e] for e in ast.literal_eval(row[6])])
    places = np.array(json.loads(row[7].replace(".,", ".0,").replace(".]", ".0]")))
    mol = Chem.MolFromSmiles(row[2])
    heavy = np.flatnonzero(numbers > 1)
    if mol is None or numbers[heavy].tolist() != [a.GetAtomicNum() for a in mol.GetAtoms()]:
        return Dropped("", name, "SMILES and geometry list different atoms")
    smiles = Chem.MolToSmiles(mol, isomericSmiles=False)
    bonds = np.zeros((len(numbers), len(numbers)), np.int64)
    reason = _hydrogens(mol, numbers, places, bonds) or _heavy(mol, heavy, places, bonds)
    if reason:
        return Dropped("", name, reason)
    charges = np.zeros(len(numbers), np.int64)
    charges[heavy] = [a.GetFormalCharge() for a in mol.GetAtoms()]
    values = {key: factor * float(row[column]) for key, (column, factor) in PROPERTIES.items()}
    atoms, matrix, formal = (torch.from_numpy(x) for x in (numbers, bonds, charges))
    return Molecule(torch.from_numpy(places).float(), atoms, matrix, formal, name, values), smiles


def _hydrogens(mol: object, numbers: np.ndarray, places: np.ndarray, bonds: np.ndarray) -> str:
    """Bond each hydrogen to the nearest heavy atom; returns why that failed, or an empty text."""
    heavy, light = np.flatnonzero(numbers > 1), np.flatnonzero(numbers == 1)
    wanted = [a.GetTotalNumHs() for a in mol.GetAtoms()]  # type: ignore[attr-defined]
    if len(light) == 0:
        return "hydrogens are missing" if sum(wanted) else ""
    apart = np.linalg.norm(places[light, None] - places[heavy], axis=-1)
    owner = apart.argmin(1)
    if np.bincount(owner, minlength=len(heavy)).tolist() != wanted:
        return "hydrogens sit at other atoms than the SMILES says"
    if apart.min(1).max() > LONGEST_XH:
        return f"a hydrogen further than {LONGEST_XH} angstrom from every atom"
    bonds[light, heavy[owner]] = bonds[heavy[owner], light] = 1
    return ""


def _heavy(mol: object, heavy: np.ndarray, places: np.ndarray, bonds: np.ndarray) -> str:
    """Bonds of heavy atoms from the SMILES, Kekulé; returns why that failed, or an empty text."""
    from rdkit import Chem

    Chem.Kekulize(mol, clearAromaticFlags=True)
    for bond in mol.GetBonds():  # type: ignore[attr-defined]
        i, j = heavy[bond.GetBeginAtomIdx()], heavy[bond.GetEndAtomIdx()]
        length = np.linalg.norm(places[i] - places[j])
        if not BONDS[0] < length < BONDS[1]:
            return f"a bond of {length:.2f} angstrom"
        bonds[i, j] = bonds[j, i] = int(bond.GetBondTypeAsDouble())
    return ""
