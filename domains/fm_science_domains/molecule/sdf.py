"""SDF files in: every record becomes a molecule, or a line that says why not.

Reading sanitises with RDKit, keeps hydrogens as they are in the file, and takes numbers among the fields of a record as
properties. Files may be gzipped; they are opened for reading only.
"""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fm_science.errors import UserError
from fm_science.samples import files_in

from .cache import Dropped, Parsed
from .molecule import Molecule, quiet
from .workers import spread

SUFFIXES = (".sdf", ".sd", ".mol")
END = "$$$$"


def files(paths: Sequence[Path]) -> list[Path]:
    """The SDF files that the paths name, those of folders included (:func:`~fm_science.samples.files_in`). Raises
    UserError when there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in files_in(path) if suffix(p) in SUFFIXES]
            if not inside:
                raise UserError(f"no SDF file in the folder {path}; expected {', '.join(SUFFIXES)} (or .gz)")
            found += inside
        elif not path.is_file():
            raise UserError(f"no file or folder {path}")
        elif suffix(path) not in SUFFIXES:
            raise UserError(f"{path} is no SDF file; expected {', '.join(SUFFIXES)} (or .gz)")
        else:
            found.append(path)
    return found


def suffix(path: Path) -> str:
    """The ending of a file name, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def elements(text: str) -> list[int]:
    """Atomic numbers of symbols such as ``H,C,N``. Raises UserError at a word that is no element."""
    from rdkit import Chem

    found = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        with quiet():
            try:
                found.append(Chem.GetPeriodicTable().GetAtomicNumber(word))
            except RuntimeError as error:
                raise UserError(f"data.elements={text}: {word!r} is no element; write symbols: H,C,N,O") from error
    return found


def records(file: Path) -> Iterator[tuple[str, str]]:
    """The records of a file as (name, text); the name is the file's stem, with a number when there are several."""
    opened: Any = gzip.open if file.name.lower().endswith(".gz") else open
    stem = file.name[: -len(".gz")] if file.name.lower().endswith(".gz") else file.name
    stem = stem[: -len(Path(stem).suffix)]
    try:
        with opened(file, "rt", encoding="utf-8", errors="replace", newline=None) as stream:
            lines: list[str] = []
            number = 0
            for line in stream:
                if line.rstrip() == END:
                    number += 1
                    yield f"{stem}:{number}", "".join(lines)
                    lines = []
                else:
                    lines.append(line)
            if any(line.strip() for line in lines):  # the last record may lack its end, and a .mol file has none
                yield f"{stem}:{number + 1}" if number else stem, "".join(lines)
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {file}: {error}") from error


def read(paths: Sequence[Path], processes: int = 1) -> Iterator[Parsed]:
    """Every record of SDF files, in order: a molecule with its canonical SMILES, or why it is left out."""
    every = (record for file in paths for record in records(file))
    return spread(parse, every, processes, label="reading SDF")


def parse(record: tuple[str, str]) -> Parsed:
    """A record as a molecule with its canonical SMILES, or why it cannot be one."""
    from rdkit import Chem

    name, text = record
    with quiet():
        mol = block(text)
        if mol is None:
            return Dropped(name, "no readable MOL block")
        try:
            Chem.SanitizeMol(mol)
            molecule = Molecule.from_rdkit(mol, properties=fields(text))
        except ValueError as error:  # RDKit's exceptions are ValueErrors too
            return Dropped(name, str(error).strip().splitlines()[0][:120])
        if len(Chem.GetMolFrags(mol)) > 1:
            return Dropped(name, "several fragments (a salt or a complex)")
        plain = Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)
    return (molecule if molecule.name else named(molecule, name)), plain


def block(text: str) -> Any:
    """The RDKit molecule of a record, unsanitised; None where it is no MOL block."""
    from rdkit import Chem

    make = partial(Chem.MolFromMolBlock, sanitize=False, removeHs=False, strictParsing=False)
    try:
        return make(text)
    except RuntimeError:
        return None


def named(molecule: Molecule, name: str) -> Molecule:
    """The same molecule under another name."""
    from dataclasses import replace

    return replace(molecule, name=name)


def fields(text: str) -> dict[str, float]:
    """The fields of a record, ``> <name>`` and a line, whose value is a finite number."""
    lines = text.splitlines()
    found: dict[str, float] = {}
    for key, value in itertools.pairwise(lines):
        if key.startswith(">") and "<" in key:
            number = _number(value)
            if math.isfinite(number):
                found[key[key.index("<") + 1 :].rpartition(">")[0]] = number
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def isfinite(molecule: Molecule) -> bool:
    """Whether all coordinates are numbers."""
    return bool(np.isfinite(molecule.positions.numpy()).all())
