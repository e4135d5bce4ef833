"""Molecules in files: writing SDF and SMILES, reading SDF and XYZ from any source, and trajectories of samples.

Samples go into one ``samples.sdf`` with its properties in the fields, and their SMILES into ``samples.smi``.
They are written unchanged, including broken ones. Reading keeps broken molecules too, so that they are evaluated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fm_science.errors import UserError
from fm_science.files import Dropped, write_dropped

from . import sdf, xyz
from .collection import Library
from .molecule import OTHER, Molecule, quiet, symbol
from .validity import NO_NUMBERS, judge

log = logging.getLogger(__name__)
LIMIT = 999  # atoms or bonds that the columns of a MOL block can count
HYDROGENS = "hydrogens"  # the field that says whether they are explicit


def mol_block(molecule: Molecule, name: str = "") -> str:
    """A molecule as a MOL block, version V2000, whether its valences are valid or not.

    Raises:
        UserError: when it does not fit the columns of the format.
    """
    ends = molecule.bonds.triu(1).nonzero().tolist()
    if max(len(molecule), len(ends)) > LIMIT:
        raise UserError(f"cannot write {name or molecule.name}: a MOL block holds at most {LIMIT} atoms and bonds")
    places = molecule.positions.nan_to_num(0.0, 0.0, 0.0).clamp(-9999, 9999).tolist()
    charges = [(i + 1, q) for i, q in enumerate(molecule.charges.tolist()) if q]
    lines = [(name or molecule.name).replace("\n", " ")[:80], "  fm-sci            3D", ""]
    lines.append(f"{len(molecule):3d}{len(ends):3d}  0  0  0  0  0  0  0  0999 V2000")
    for (x, y, z), number in zip(places, molecule.atoms.tolist(), strict=True):
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol(number):<3s} 0  0  0  0  0  0  0  0  0  0  0  0")
    for i, j in ends:
        order = int(molecule.bonds[i, j])
        lines.append(f"{i + 1:3d}{j + 1:3d}{8 if order == OTHER else order:3d}  0")
    for k in range(0, len(charges), 8):
        some = charges[k : k + 8]
        lines.append(f"M  CHG{len(some):3d}" + "".join(f" {i:3d} {q:3d}" for i, q in some))
    return "\n".join([*lines, "M  END", ""])


def record(molecule: Molecule, name: str = "") -> str:
    """A record of an SDF file: the MOL block, then validity and properties as fields."""
    v = judge(molecule)
    known: dict[str, Any] = {
        HYDROGENS: "explicit" if molecule.hydrogens else "implied", "SMILES": v.smiles, "valid": int(v.valid),
        "connected": int(v.connected), "reason": v.reason, **molecule.properties,
    }  # fmt: skip
    fields = [f"> <{key}>\n{value}\n\n" for key, value in known.items() if str(value)]
    return mol_block(molecule, name) + "".join(fields) + f"{sdf.END}\n"


def write(samples: Sequence[Molecule], folder: str | os.PathLike, first: int = 0) -> list[Path]:
    """``samples.sdf`` and ``samples.smi`` in the folder, samples named by their number from ``first``. Samples from
    number 0 on start new files; later ones are added to them."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    mode = "a" if first else "w"
    names = [f"sample_{first + i:04d}" for i in range(len(samples))]
    files = [place / "samples.sdf", place / "samples.smi"]
    with files[0].open(mode, encoding="utf-8", newline="\n") as stream:
        stream.writelines(record(m, name) for m, name in zip(samples, names, strict=True))
    with files[1].open(mode, encoding="utf-8", newline="\n") as stream:
        verdicts = zip(map(judge, samples), names, strict=True)
        stream.writelines(f"{v.smiles} {name}\n" for v, name in verdicts if v.valid)
    return files


def read(
    paths: str | os.PathLike | Iterable[Any], hydrogens: bool | None = None, dropped: list[Dropped] | None = None
) -> list[Molecule]:
    """All molecules of SDF and XYZ files and folders, including broken ones, in the order of the files.

    Files of SMILES are skipped if there is also an SDF file. Our own files say whether hydrogens are explicit; in other
    files they are if any molecule has a hydrogen atom. ``hydrogens`` is that of the molecules for comparison: if it is
    False, explicit ones raise an error, and vice versa. Records that are not molecules, and files of a folder that
    cannot be read, are listed in ``dropped``.

    Raises:
        UserError: when a path does not exist, has no molecule in space, a file that is named itself cannot be read,
            or hydrogens are not as expected.
    """
    given = [Path(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    solid = [p for p in given if p.is_dir() or sdf.suffix(p) in (*sdf.SUFFIXES, xyz.SUFFIX) or not p.exists()]
    if not solid:
        raise UserError(f"{', '.join(map(str, given[:3]))}: no SDF file; expected {', '.join(sdf.SUFFIXES)} (or .gz)")
    found: list[Molecule] = []
    strange: list[Dropped] = []
    said: set[str] = set()
    lengths = sdf.Lengths()
    for record in _records(sdf.files(solid), given, strange):
        molecule = _read(record)
        if isinstance(molecule, str):
            strange.append(Dropped(record.file, record.name, molecule))
        else:
            found.append(molecule)
            if f"> <{HYDROGENS}>" not in record.text:  # our own samples are never in another unit
                lengths.add(molecule)
            said |= {word for word in ("explicit", "implied") if f"> <{HYDROGENS}>\n{word}\n" in record.text}
    if not found:
        first = f"; first: {strange[0].part or strange[0].file}: {strange[0].reason}" if strange else ""
        raise UserError(f"no molecule in {', '.join(map(str, given[:3]))} ({len(strange)} unreadable{first})")
    if strange:
        log.warning("%d records are no molecules and are not counted; first: %s: %s",
                    len(strange), strange[0].part or strange[0].file, strange[0].reason)  # fmt: skip
    if dropped is not None:
        dropped += strange
    lengths.warn(given)
    explicit = said == {"explicit"} if said else any(bool((m.atoms == 1).any()) for m in found)
    _expected(explicit, hydrogens, given)
    return [replace(m, hydrogens=explicit) for m in found]


def _records(files: Sequence[Path], named: Sequence[Path], strange: list[Dropped]) -> Iterator[sdf.Record]:
    """The records of files; those of a folder that cannot be read are listed in ``strange``."""
    for file in files:
        try:
            yield from sdf.records(file)
        except UserError as error:
            if file in named:
                raise
            strange.append(Dropped(str(file), "", str(error)))


def _expected(explicit: bool, wanted: bool | None, paths: Sequence[Path]) -> None:
    if wanted is not None and explicit != wanted:
        have = "hydrogens of their own" if explicit else "no hydrogens of their own"
        raise UserError(
            f"the molecules of {paths[0]} have {have}, those they would be compared with are otherwise: "
            f"say data.hydrogens={str(explicit).lower()}"
        )


def _read(record: sdf.Record) -> Molecule | str:
    """A record as a molecule, or the reason why not."""
    from rdkit import Chem

    ours = f"> <{HYDROGENS}>" in record.text
    with quiet():
        try:
            mol = sdf.block(record)
            if mol is None:
                return "no readable MOL block"
            if not ours:  # as in training: N(=O)=O is written with charges
                Chem.Cleanup(mol)
            made = Molecule.from_rdkit(mol, properties=sdf.fields(record.text), strict=False)
        except ValueError as error:
            return str(error)
    own = {key: value for key, value in made.properties.items() if key not in ("valid", "connected")}
    lost = f"> <reason>\n{NO_NUMBERS}\n" in record.text  # they could not be written as numbers
    places = torch.full_like(made.positions, torch.nan) if lost else made.positions
    return replace(made, positions=places, name=made.name or record.name, properties=own)


def trajectory(frames: Sequence[Sequence[Molecule]], folder: str | os.PathLike, first: int = 0) -> list[Path]:
    """One XYZ trajectory per sample with one frame per step, numbered from ``first``; ``frames[k][i]`` is sample i
    after step k. Atoms that are undecided are written as X."""
    place = Path(folder) / "trajectories"
    place.mkdir(parents=True, exist_ok=True)
    files = []
    for i, way in enumerate(zip(*frames, strict=True)):
        files.append(place / f"sample_{first + i:04d}.xyz")
        files[-1].write_text("".join(frame(m, f"step {k}") for k, m in enumerate(way)), encoding="ascii")
    return files


def frame(molecule: Molecule, comment: str = "") -> str:
    """A frame of an XYZ file, angstrom."""
    places = torch.nan_to_num(molecule.positions, 0.0, 0.0, 0.0).tolist()
    names = [symbol(n) if n else "X" for n in molecule.atoms.tolist()]
    lines = [f"{name:<2s} {x:12.5f} {y:12.5f} {z:12.5f}" for name, (x, y, z) in zip(names, places, strict=True)]
    return "\n".join([str(len(molecule)), comment, *lines, ""])


def drops(library: Library, folder: str | os.PathLike) -> list[Path]:
    """``dropped.csv`` in the folder: the molecules that were left out of the data, and why; nothing if there are
    none."""
    return [write_dropped(library.drops, Path(folder) / "dropped.csv")] if library.drops else []
