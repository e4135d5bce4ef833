"""Drug-sized molecules from SMILES: hydrogens added, one conformer each, relaxed in a force field.

Coordinates come from distance geometry with torsion knowledge (ETKDGv3, Wang et al. 2020) and are then relaxed with
MMFF94s (Halgren 1999). They are force-field conformers, not quantum chemistry: a model trained on them learns the force
field's geometry. SMILES come from the MOSES set (Polykovskiy et al. 2020), or from the user's own ``.smi`` file.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fm_science.errors import UserError

from .cache import Dropped, Parsed
from .molecule import Molecule, plain_smiles, quiet
from .workers import spread

RECIPE = "ETKDGv3 seed 7, MMFF94s 1000 steps, format 2"  # part of the name of cached files
RELAX = 1000  # steps of the force field at most
PATIENCE = 30  # seconds that embedding one molecule may take
SUFFIXES = (".smi", ".smiles", ".txt", ".csv")


def is_smiles(path: Path) -> bool:
    """Whether a file has the extension of SMILES."""
    return path.is_file() and Path(path.name.lower().removesuffix(".gz")).suffix in SUFFIXES


def molsets(count: int) -> list[tuple[str, str]]:
    """``count`` (name, SMILES) drawn with a fixed seed from the training set of the installed package ``molsets``.

    Raises UserError if it is not installed.
    """
    try:
        package = metadata.distribution("molsets")
    except metadata.PackageNotFoundError as error:
        raise UserError(
            "data.source=drugs needs the package molsets (52 MB, for its list of SMILES): "
            "pip install --no-deps molsets. Or name your own file, data.source=my.smi"
        ) from error
    file = Path(str(package.locate_file("moses/dataset/data/train.csv.gz")))
    if not file.is_file():
        raise UserError(f"molsets lacks {file}: reinstall it, pip install --no-deps --force-reinstall molsets")
    with gzip.open(file, "rt", encoding="ascii") as stream:
        smiles = stream.read().split()[1:]
    order = torch.randperm(len(smiles), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return [(f"moses_{i:07d}", smiles[i].split(",")[0]) for i in order.tolist()]


def read_smiles(path: Path, count: int) -> list[tuple[str, str]]:
    """The first ``count`` lines ``SMILES [name]`` of a file as (name, SMILES); a heading line is skipped.

    Raises UserError when there are none.
    """
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            lines = [line.replace(",", " ").replace(";", " ").split() for line in stream if line.strip()]
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if lines and lines[0][0].lower() in ("smiles", "canonical_smiles"):
        lines = lines[1:]
    if not lines:
        raise UserError(f"no SMILES in {path}: expected one per line, followed by a name if you like")
    return [(words[1] if len(words) > 1 else f"{path.name.split('.')[0]}_{k:06d}", words[0])
            for k, words in enumerate(lines[:count])]  # fmt: skip


def fold(lines: Sequence[tuple[str, str]], processes: int = 0) -> Iterator[Parsed]:
    """One conformer of each (name, SMILES), in order; 40 to 70 ms of processor time for a drug-sized molecule."""
    return spread(conformer, lines, processes, len(lines), "folding molecules")


def conformer(line: tuple[str, str]) -> Parsed:
    """A (name, SMILES) as a molecule in space with all its hydrogens, or the reason why not."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom
    from rdkit.Chem import rdForceFieldHelpers as fields

    name, smiles = line
    with quiet():
        flat = Chem.MolFromSmiles(smiles)
        if flat is None:
            return Dropped("", name, "no valid SMILES")
        if len(Chem.GetMolFrags(flat)) > 1:
            return Dropped("", name, "several fragments (a salt or a complex)")
        mol = Chem.AddHs(flat)
        if rdDistGeom.EmbedMolecule(mol, _settings()) != 0:
            return Dropped("", name, "no conformer found")
        if fields.MMFFHasAllMoleculeParams(mol):
            fields.MMFFOptimizeMolecule(mol, mmffVariant="MMFF94s", maxIters=RELAX)
        elif fields.UFFHasAllMoleculeParams(mol):
            fields.UFFOptimizeMolecule(mol, maxIters=RELAX)
        else:
            return Dropped("", name, "no force field knows its atoms")
        try:
            molecule = Molecule.from_rdkit(mol, name)
        except ValueError as error:
            return Dropped("", name, str(error))
        return molecule, plain_smiles(flat)


def _settings() -> Any:
    from rdkit.Chem import rdDistGeom

    settings: Any = rdDistGeom.ETKDGv3()
    settings.randomSeed = 7
    if hasattr(settings, "timeout"):
        settings.timeout = PATIENCE
    return settings
