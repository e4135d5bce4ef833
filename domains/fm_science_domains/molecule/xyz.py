"""Molecules from XYZ files, which have elements and coordinates but no bonds: RDKit perceives those.

Bonds come from distances, their orders from valences and the charge of the whole molecule (Kim & Kim 2015), which the
comment may give as ``charge=1``; all hydrogens must be there. Frames are a number of atoms, a comment, and a line for
each atom: its symbol or atomic number, x, y, z in angstrom, and anything else.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from fm_science.cells import number

SUFFIX = ".xyz"
MOST = 10_000  # trials of bond orders before a molecule is skipped
CHARGE = re.compile(r"\b(?:total_)?charge\s*[=:]\s*\"?([+-]?\d+)", re.IGNORECASE)


def frames(stream: Iterable[str]) -> Iterator[str]:
    """The frames of a file. Lines between frames that are not atoms, such as those of QM9, are skipped.

    Raises ValueError if a frame does not begin with its number of atoms, or ends early.
    """
    lines = iter(stream)
    count = 0
    for line in lines:
        words = line.split()
        if not words:
            continue
        if not (len(words) == 1 and words[0].isdecimal() and int(words[0]) > 0):
            if count and not _atom(words):
                continue
            raise ValueError(f"frame {count + 1} begins with {line.strip()[:40]!r}, not with its number of atoms")
        size = int(words[0])
        body = list(itertools.islice(lines, size + 1))
        if len(body) <= size or not all(map(str.strip, body[1:])):
            raise ValueError(f"a frame of {size} atoms ends early")
        count += 1
        yield line + "".join(body)


def _atom(words: list[str]) -> bool:
    """Whether a line looks like one of an atom."""
    named = re.fullmatch(r"[A-Za-z]{1,2}|\d+", words[0]) is not None
    return named and len(words) >= 4 and _numbers(words[1:4]) is not None


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [number(word.replace("*^", "e")) for word in words]  # QM9 writes 1.2*^-6
    except ValueError:
        return None


def perceived(text: str) -> Any:
    """The RDKit molecule of a frame, with bonds, orders and charges. Raises ValueError if they cannot be found."""
    from rdkit import Chem, Geometry
    from rdkit.Chem import rdDetermineBonds

    lines = text.splitlines()
    comment, rows = lines[1], [line.split() for line in lines[2:]]
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(rows))
    for k, row in enumerate(rows):
        places = _numbers(row[1:4]) if len(row) >= 4 else None
        if places is None or not all(map(math.isfinite, places)):
            raise ValueError(f"atom {k + 1} is {' '.join(row)[:40]!r}; expected a symbol and three finite numbers")
        try:
            mol.AddAtom(Chem.Atom(int(row[0]) if row[0].isdecimal() else row[0].capitalize()))
        except RuntimeError as error:
            raise ValueError(f"atom {k + 1}: {row[0]!r} is no element") from error
        conformer.SetAtomPosition(k, Geometry.Point3D(*places))
    mol.AddConformer(conformer)
    said = CHARGE.search(comment)
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=int(said[1]) if said else 0, embedChiral=False, maxIterations=MOST)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            "bonds cannot be perceived; are all hydrogens there, and is the charge right (charge=1 in the comment)?"
        ) from error
    made = mol.GetMol()
    made.SetProp("_Name", "")
    return made
