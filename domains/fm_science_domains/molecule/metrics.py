"""How good generated molecules are, each number compared with that of the data.

A metric takes samples and a reference set and returns named numbers. None of them is sufficient alone: a graph can be
perfect while its geometry is not, low temperatures trade diversity for validity, and QM9 is an exhaustive list, so that
a good model of it repeats many of its molecules and high novelty is no merit. Read validity, uniqueness and geometry
together, compared with the rows of ``references``: molecules held out from training, and the training set itself.

Shares count all samples, including broken ones, unless a name ends in ``_valid``. A number that is not defined is NaN,
and those of optional packages that are not installed are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fm_science.domain import option
from fm_science.metrics import Metric

from . import geometry, strain
from .collection import Library
from .geometry import Geometry
from .molecule import Molecule, quiet
from .validity import formula, judge, stable, stable_by_distance
from .vocabulary import Vocabulary

HELD_OUT = 1_000  # molecules of the reference, at least (as far as there are)
COMMON = {"C-C": (6, 1, 6), "C=C": (6, 2, 6), "C-N": (6, 1, 7), "C-O": (6, 1, 8), "C=O": (6, 2, 8)}


@dataclass(frozen=True)
class Metrics:
    """How many molecules of each row the slow metrics use. The others use all."""

    drug: int = option(500, "molecules for QED and synthetic accessibility (5 ms each); 0: none", low=0)
    strain: int = option(200, "molecules relaxed in MMFF94 (10 ms each); 0: none", low=0)
    posebusters: int = option(200, "molecules tested by PoseBusters (50 ms each; needs the extra); 0: none", low=0)
    xtb: int = option(30, "molecules relaxed in GFN2-xTB (0.2 s each for QM9; needs the extra); 0: none", low=0)
    processes: int = option(0, "processes for these; 0: one per core", low=0)


class Known(Protocol):
    """What metrics need in addition to the reference; a :class:`~.data.Library` has all of it.

    Attributes:
        vocabulary: the classes of atoms, charges and bonds.
        valences: the sums of bond orders that occur, by (atomic number, formal charge).
        smiles: canonical SMILES of the training molecules; ``None``: they are missing, and so is novelty.
    """

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def valences(self) -> Mapping[tuple[int, int], frozenset[int]]: ...
    @property
    def smiles(self) -> Container[str] | None: ...


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _quantile(values: Sequence[float], at: float) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.quantile(known, at)) if known else math.nan


# ------------------------------------------------------------------------------------------------------- the graph


def validity(library: Known, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """valid: sanitised as a whole without radicals. connected: valid and one fragment. unique: different SMILES among
    the connected. novel: of those, not in the training set. neutral: valid without net charge. Without stereo."""
    verdicts = [judge(m) for m in samples]
    whole = [v.smiles for v in verdicts if v.connected]
    different = set(whole)
    return {
        "valid": _mean([v.valid for v in verdicts]),
        "connected": _mean([v.connected for v in verdicts]),
        "neutral": _mean([v.neutral for v in verdicts]),
        "unique": len(different) / len(whole) if whole else math.nan,
        "novel": _mean([v not in library.smiles for v in different]) if library.smiles is not None else math.nan,
    }


def stability(library: Known, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """atom_stable, molecule_stable: atoms whose element, charge and sum of bond orders occur together in the training
    set, and molecules of such atoms only. edm_*: the same from distances alone, by EDM's rule (explicit hydrogens)."""
    found = {"atom_stable": [stable(m, library.valences) for m in samples]}
    if library.vocabulary.hydrogens:
        found["edm_atom_stable"] = [s for m in samples if (s := stable_by_distance(m)) is not None]
    numbers = {}
    for name, each in found.items():
        each = [atoms for atoms in each if len(atoms)]
        numbers[name] = _mean(np.concatenate(each)) if each else math.nan
        numbers[name.replace("atom", "molecule")] = _mean([float(atoms.all()) for atoms in each])
    return numbers


def composition(samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """Atoms per molecule, and total variation distances of sizes, elements, bond orders and charges to the
    reference."""
    numbers = {"atoms": _mean([len(m) for m in samples])}
    kinds: dict[str, Callable[[Molecule], list[int]]] = {
        "size_tv": lambda m: [len(m)], "element_tv": lambda m: m.atoms.tolist(),
        "order_tv": lambda m: m.bonds[m.bonds.triu(1) > 0].tolist(), "charge_tv": lambda m: m.charges.tolist(),
    }  # fmt: skip
    for name, take in kinds.items():
        x, y = ([v for m in row for v in take(m)] for row in (samples, reference))
        numbers[name] = geometry.total_variation(x, y)
    return numbers


# ---------------------------------------------------------------------------------------------------- the geometry


def shapes(samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """Bond lengths (angstrom), angles and torsions (degrees) against the reference, kind by kind; see ``geometry``.

    *_w1: Wasserstein-1; *_js: Jensen-Shannon divergence in bits. bond_off: the mean error of mean lengths, and
    bond_off_worst the largest, over kinds that make up at least 1 % of bonds. length_*: mean lengths themselves.
    """
    x, y = Geometry.of(samples), Geometry.of(reference)
    off = np.abs(list(geometry.mean_errors(x.bonds, y.bonds).values()))
    lengths = {f"length_{name}": _mean(x.bonds.get(kind, ())) for name, kind in COMMON.items() if kind in y.bonds}
    return {
        "bond_w1": geometry.wasserstein(x.bonds, y.bonds),
        "bond_js": geometry.divergence(x.bonds, y.bonds, "bonds"),
        "bond_off": _mean(off),
        "bond_off_worst": float(off.max()) if len(off) else math.nan,
        **lengths,
        "angle_w1": geometry.wasserstein(x.angles, y.angles),
        "angle_js": geometry.divergence(x.angles, y.angles, "angles"),
        "torsion_js": geometry.divergence(x.torsions, y.torsions, "torsions"),
    }


def force_field(o: Metrics, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """Energy above the nearest minimum of MMFF94, kcal/mol: median and 95th percentile of connected molecules."""
    found = strain.many(strain.force_field, samples, o.strain, o.processes, "MMFF94")
    values = [v for v in found if v is not None]
    return {"mmff_strain": _quantile(values, 0.5), "mmff_strain_95": _quantile(values, 0.95)}


def quantum(o: Metrics, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """Relaxation in GFN2-xTB of connected molecules: energy released (kcal/mol; median and mean), median displacement
    of atoms, mean change of bond lengths (angstrom), and the share of calculations that failed."""
    found = [f for f in strain.many(strain.relax, samples, o.xtb, o.processes, "GFN2-xTB") if f is not None]
    energy, moved, stretch = ([f[k] for f in found if math.isfinite(f[k])] for k in range(3))
    return {
        "xtb_energy": _quantile(energy, 0.5), "xtb_energy_mean": _mean(energy), "xtb_moved": _quantile(moved, 0.5),
        "xtb_bond_change": _mean(stretch), "xtb_failed": 1 - len(energy) / len(found) if found else math.nan,
    }  # fmt: skip


def posebusters(o: Metrics, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """posebusters: samples that pass every fast test; *_valid: of the connected ones. pb_*: connected ones that pass a
    single test."""
    found = strain.many(strain.busted, samples, o.posebusters, o.processes, "PoseBusters")
    good = [f for f in found if f is not None]
    passed = [all(f.values()) for f in good]
    tests = {name: _mean([f[name] for f in good]) for name in (good[0] if good else ())}
    telling = ("bond_lengths", "bond_angles", "internal_steric_clash", "aromatic_ring_flatness",
               "non-aromatic_ring_non-flatness", "double_bond_flatness")  # fmt: skip
    return {
        "posebusters": sum(passed) / len(found) if found else math.nan,
        "posebusters_valid": _mean(passed),
        **{f"pb_{name}": tests[name] for name in telling if name in tests},
    }


# --------------------------------------------------------------------------------------------------- drug-likeness


@cache
def _accessibility() -> Any:
    """RDKit's own synthetic accessibility score, which it ships among its contributions."""
    import importlib.util
    from pathlib import Path

    from rdkit import RDConfig

    file = Path(RDConfig.RDContribDir) / "SA_Score" / "sascorer.py"
    spec = importlib.util.spec_from_file_location("sascorer", file)
    if spec is None or spec.loader is None or not file.is_file():
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def drug_scores(smiles: str) -> tuple[float, float]:
    """QED (Bickerton et al. 2012; 0 to 1) and synthetic accessibility (Ertl & Schuffenhauer 2009; 1 easy to 10)."""
    from rdkit import Chem
    from rdkit.Chem.QED import qed

    with quiet():
        mol = Chem.MolFromSmiles(smiles)
        score = _accessibility()
        if mol is None:
            return math.nan, math.nan
        return float(qed(mol)), float(score.calculateScore(mol)) if score is not None else math.nan


def drug_likeness(o: Metrics, samples: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """Mean QED and synthetic accessibility of connected molecules."""
    whole = [v.smiles for m in samples[: o.drug] if (v := judge(m)).connected]
    scores = np.array([drug_scores(s) for s in whole]).reshape(-1, 2)
    means = [_mean(column[np.isfinite(column)]) for column in scores.T]
    return {"qed": means[0], "sa": means[1]}


# ---------------------------------------------------------------------------------------------------------- together


def metrics(options: Metrics | None, library: Known) -> dict[str, Metric]:
    """All metrics by name, if they are requested and their packages are installed."""
    o = options or Metrics()
    known: dict[str, tuple[bool, Metric]] = {
        "validity": (True, partial(validity, library)),
        "stability": (True, partial(stability, library)),
        "composition": (True, composition),
        "geometry": (True, shapes),
        "force_field": (o.strain > 0, partial(force_field, o)),
        "posebusters": (o.posebusters > 0 and strain.has_posebusters(), partial(posebusters, o)),
        "quantum": (o.xtb > 0 and strain.has_xtb(), partial(quantum, o)),
        "drug_likeness": (o.drug > 0, partial(drug_likeness, o)),
    }
    return {name: metric for name, (wanted, metric) in known.items() if wanted}


def references(
    samples: Sequence[Molecule], library: Library, generator: torch.Generator | None = None
) -> dict[str, list[Molecule]]:
    """Rows to compare samples with: molecules held out from training (the test part; at least 1,000 if there are that
    many), and as many of the training set as there are samples: the best values for this number."""
    draw = torch.randint(1 << 30, (2,), generator=generator or torch.Generator().manual_seed(0)).tolist()
    return {
        "held-out": library.molecules("test", max(len(samples), HELD_OUT), draw[0]),
        "training set": library.molecules("train", max(len(samples), 1), draw[1]),
    }


def table(samples: Sequence[Molecule], library: Known, options: Metrics | None = None) -> list[dict[str, Any]]:
    """One row per sample: its SMILES, validity and other measurements."""
    o = options or Metrics()
    strains = strain.many(strain.force_field, samples, o.strain, o.processes) if o.strain else []
    rows, known = [], library.smiles
    for i, molecule in enumerate(samples):
        v = judge(molecule)
        row: dict[str, Any] = {
            "name": molecule.name, "formula": formula(molecule), "smiles": v.smiles, "valid": v.valid,
            "connected": v.connected, "novel": math.nan if known is None else v.connected and v.smiles not in known,
            "stable": bool(stable(molecule, library.valences).all()), "charge": int(molecule.charges.sum()),
            "reason": v.reason, **molecule.properties,
        }  # fmt: skip
        if i < o.drug and v.connected:
            row["qed"], row["sa"] = drug_scores(v.smiles)
        if i < len(strains) and strains[i] is not None:
            row["mmff_strain"] = strains[i]
        rows.append(row)
    return rows


def bootstrap(
    metric: Metric, samples: Sequence[Molecule], reference: Sequence[Molecule], times: int = 200, seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """Each number of a metric on these samples, and its standard deviation under resampling of these with replacement.
    Uniqueness decreases under resampling; use only its deviation."""
    generator = torch.Generator().manual_seed(seed)
    whole = metric(samples, reference)
    draws: list[Tensor] = [torch.randint(len(samples), (len(samples),), generator=generator) for _ in range(times)]
    again = [metric([samples[i] for i in draw.tolist()], reference) for draw in draws]
    return {name: (value, float(np.nanstd([a.get(name, math.nan) for a in again]))) for name, value in whole.items()}
