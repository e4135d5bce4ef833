"""How far a molecule is from a minimum of energy: its geometry by a force field, quantum chemistry and PoseBusters.

Energies are differences between a molecule and the same molecule after relaxation, kcal/mol. Real geometries are not
minima of another method either (QM9 in MMFF94: median 5 kcal/mol), so compare every number with that of the data. If
hydrogens are implied they are added first, and relaxed with the heavy atoms fixed.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .molecule import Molecule, quiet
from .validity import judge
from .workers import spread

KCAL = 627.509474  # of one hartree
BOHR = 0.529177210903  # angstrom
RELAX = 500  # steps of the force field at most
GRADIENT = 5e-4  # hartree / bohr; below it a molecule is at a minimum
FEW = 24  # for this few molecules no processes are started
log = logging.getLogger(__name__)
_kept: dict[Any, WeakKeyDictionary[Molecule, Any]] = {}


def ready(molecule: Molecule) -> Any:
    """The sanitised RDKit molecule with all hydrogens in place, or None unless it is valid and connected."""
    from rdkit import Chem

    verdict = judge(molecule)
    if not verdict.connected:
        return None
    return Chem.Mol(verdict.mol) if molecule.hydrogens else _with_hydrogens(verdict.mol)


def _with_hydrogens(mol: Any) -> Any:
    """Hydrogens added by geometry, then relaxed in MMFF94 with the heavy atoms fixed."""
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers as fields

    full = Chem.AddHs(mol, addCoords=True)
    properties = fields.MMFFGetMoleculeProperties(full)
    field = fields.MMFFGetMoleculeForceField(full, properties) if properties is not None else None
    if field is not None:
        field.Initialize()
        for i in range(mol.GetNumAtoms()):
            field.AddFixedPoint(i)
        _downhill(field)
    return full


def _downhill(field: Any) -> bool:
    """Relax in a force field; returns whether it has not converged. If atoms nearly coincide RDKit cannot minimise and
    raises: the molecule is left as it is then."""
    try:
        return bool(field.Minimize(maxIts=RELAX))
    except RuntimeError:
        return False


# ----------------------------------------------------------------------------------------------------- force field


def force_field(mol: Any) -> float:
    """MMFF94 energy above the nearest minimum, kcal/mol (a lower bound if atoms nearly coincide); NaN if MMFF94 has no
    parameters for the molecule."""
    from rdkit.Chem import rdForceFieldHelpers as fields

    with quiet():
        properties = fields.MMFFGetMoleculeProperties(mol)
        field = fields.MMFFGetMoleculeForceField(mol, properties) if properties is not None else None
        if field is None:
            return math.nan
        field.Initialize()
        before = field.CalcEnergy()
        for _ in range(4):
            if not _downhill(field):
                break
        return before - field.CalcEnergy()


# ---------------------------------------------------------------------------------------------- quantum chemistry


@cache
def has_xtb() -> bool:
    """Whether tblite is installed, with one thread per calculation: several molecules are relaxed at once."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the library is loaded
    try:
        return usable("tblite", "tblite.interface")
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


def usable(package: str, module: str) -> bool:
    """Whether a module of an optional package can be imported; a warning if the package is installed but cannot be
    imported."""
    if find_spec(package) is None:
        return False
    try:
        import_module(module)
    except ImportError as error:
        log.warning("%s is installed but cannot be used (%s), so its rows are missing", package, error)
        return False
    return True


def relax(mol: Any) -> tuple[float, float, float]:
    """Relaxation in GFN2-xTB (Bannwarth, Ehlert & Grimme 2019).

    Returns:
        The energy that is released (kcal/mol), the root mean square displacement of atoms after superposition and the
        mean absolute change of bond lengths (angstrom); NaN if the calculation fails.
    """
    from rdkit import Chem
    from scipy.optimize import minimize
    from tblite.exceptions import TBLiteRuntimeError
    from tblite.interface import Calculator

    numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
    start = mol.GetConformer().GetPositions() / BOHR
    try:
        calculator = Calculator("GFN2-xTB", numbers, start, charge=float(Chem.GetFormalCharge(mol)))
        calculator.set("verbosity", 0)

        def energy(x: np.ndarray) -> tuple[float, np.ndarray]:
            calculator.update(x.reshape(-1, 3))
            found = calculator.singlepoint()
            return found.get("energy"), found.get("gradient").ravel()

        begin = energy(start.ravel())[0]
        found = minimize(energy, start.ravel(), jac=True, method="L-BFGS-B", options={"gtol": GRADIENT, "maxiter": 300})
    except (TBLiteRuntimeError, RuntimeError, ValueError):
        return math.nan, math.nan, math.nan
    end = found.x.reshape(-1, 3) * BOHR
    return KCAL * (begin - found.fun), superposed(start * BOHR, end), _stretch(mol, start * BOHR, end)


def superposed(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square distance of two sets of points (N, 3) after the best rotation (Kabsch 1976)."""
    x, y = x - x.mean(0), y - y.mean(0)
    u, s, v = np.linalg.svd(x.T @ y)
    s[-1] *= np.sign(np.linalg.det(u @ v))
    return math.sqrt(max(0.0, float((x**2).sum() + (y**2).sum() - 2 * s.sum()) / len(x)))


def _stretch(mol: Any, before: np.ndarray, after: np.ndarray) -> float:
    ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).reshape(-1, 2).T
    lengths = [np.linalg.norm(x[ends[0]] - x[ends[1]], axis=-1) for x in (before, after)]
    return float(np.abs(lengths[0] - lengths[1]).mean()) if ends.size else math.nan


# ---------------------------------------------------------------------------------------------------- PoseBusters


@cache
def has_posebusters() -> bool:
    """Whether PoseBusters is installed, with everything that it needs."""
    return usable("posebusters", "posebusters")


@cache
def _buster() -> Any:
    from posebusters import PoseBusters

    return PoseBusters(config="mol_fast")


def busted(mol: Any) -> dict[str, bool]:
    """The result of each fast test of PoseBusters (Buttenschoen, Morris & Deane 2024) on one molecule."""
    import warnings

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = _buster().bust([mol], full_report=False)
    return {str(name): bool(value) for name, value in table.iloc[0].items()}


# --------------------------------------------------------------------------------------------------------- many


def many(
    task: Callable[[Any], Any], molecules: Sequence[Molecule], most: int, processes: int = 0, label: str = "",
) -> list[Any]:  # fmt: skip
    """``task`` of each of the first ``most`` molecules; None for those that are not valid and connected. Results are
    cached as long as the molecule exists."""
    kept = _kept.setdefault(task, WeakKeyDictionary())
    chosen = list(molecules[:most])
    new = [m for m in chosen if m not in kept]
    hands = 1 if len(new) <= FEW else processes
    for molecule, found in zip(new, spread(partial(_one, task), new, hands, len(new), label), strict=True):
        kept[molecule] = found
    return [kept[m] for m in chosen]


def _one(task: Callable[[Any], Any], molecule: Molecule) -> Any:
    mol = ready(molecule)
    return None if mol is None else task(mol)
