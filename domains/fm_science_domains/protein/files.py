"""Reading and writing protein structure files: PDB, mmCIF and BinaryCIF, with a reason for every chain left out.

Reading uses the first model, the most occupied alternative location, and every chain as a separate backbone, with
residues in the order of the file, with the chain's name and its numbering (including insertion codes). A modified
residue is read as its parent (MSE as MET) when it is part of the chain; waters and ligands are skipped. Files are
opened for reading only; see :mod:`.atoms` for the formats and :mod:`.residues` for where chains begin and end.

:mod:`.writing` writes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.samples import files_in

from . import atoms as tables
from . import residues, side_chains
from .residues import BREAK, Residue
from .structure import ATOMS, Backbone, with_oxygen
from .writing import write_cif as write_cif
from .writing import write_pdb as write_pdb
from .writing import write_trajectory as write_trajectory

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
BREAKS = ("drop", "split", "keep")  # the treatment of a chain with breaks or incomplete residues
TINY = 0.5  # angstrom between N and CA; smaller distances mean another unit, or no chain
Paths = str | os.PathLike | Iterable[str | os.PathLike]


def read(paths: Paths) -> list[Backbone]:
    """The chains of files and folders, including broken ones, for evaluation. Raises what :func:`read_backbones`
    does."""
    return read_backbones(paths, max_bond=None)[0]


def read_backbones(
    paths: Paths,
    min_length: int = 1,
    max_length: int | None = None,
    max_bond: float | None = BREAK,
    breaks: str = "drop",
) -> tuple[list[Backbone], list[Dropped]]:
    """All usable chains of files and folders, and what was dropped.

    A chain is named after its file, with ``_chain`` when the file has several. Chains are dropped outside
    ``min_length`` to ``max_length`` residues. A missing O is rebuilt. With ``breaks="drop"`` chains are dropped also
    when N, CA or C of a residue is missing, and at a C-N distance above ``max_bond`` angstrom (None keeps broken
    chains, for the evaluation of generated structures). With ``"split"`` incomplete residues are left out and the
    chain is cut at its breaks; with ``"keep"`` it stays one chain with gaps. If a folder has the same name as PDB and
    mmCIF, the mmCIF is used.

    Raises UserError when a path does not exist or is not a structure file, or if no usable chain remains.
    """
    kept: list[Backbone] = []
    dropped: list[Dropped] = []
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for file in structure_files([Path(path) for path in given], dropped):
        for found in read_file(file, min_length, max_length, max_bond, breaks):
            if isinstance(found, Backbone):
                kept.append(found)
            else:
                dropped.append(found)
    if not kept:
        first = f"; first: {dropped[0].file} {dropped[0].part}".rstrip() + f": {dropped[0].reason}" if dropped else ""
        where = ", ".join(map(str, given[:3])) + (", ..." if len(given) > 3 else "")
        raise UserError(f"no usable protein chain in {where} ({len(dropped)} dropped{first})")
    return kept, dropped


def read_file(
    file: Path, min_length: int = 1, max_length: int | None = None, max_bond: float | None = BREAK, breaks: str = "drop"
) -> list[Backbone | Dropped]:
    """The chains of one file, each or why it is left out; see :func:`read_backbones`."""
    found: list[Backbone | Dropped] = []
    for chain, one in _read(file, max_bond, breaks):
        if isinstance(one, str):
            found.append(Dropped(str(file), chain, one))
        elif min_length <= len(one) <= (max_length or len(one)):
            found.append(one)
        else:
            found.append(outside(file, one, min_length, max_length))
    return found


def outside(file: str | Path, chain: Backbone, min_length: int, max_length: int | None) -> Dropped:
    """The line of a chain that is too short or too long."""
    return Dropped(str(file), chain.chain, f"{len(chain)} residues, wanted {min_length} to {max_length or 'any'}")


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    return re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)[: -len(_suffix(path))]


def structure_files(paths: Sequence[Path], dropped: list[Dropped]) -> Iterator[Path]:
    """The structure files that the paths name, without the PDB twin of an mmCIF file in a folder."""
    for path in paths:
        if path.is_dir():
            inside = [p for p in files_in(path) if _suffix(p) in SUFFIXES]
            if not inside:
                raise UserError(f"no structure files in the folder {path}; expected {', '.join(SUFFIXES)} (or .gz)")
            cif = {(p.parent, _stem(p)): p for p in inside if "cif" in _suffix(p)}
            for p in inside:
                twin = cif.get((p.parent, _stem(p)), p)
                if twin == p:
                    yield p
                else:
                    dropped.append(Dropped(str(p), "", f"same name as {twin.name}, which is used"))
        elif not path.exists():
            raise UserError(f"no such file or folder: {path}")
        elif _suffix(path) not in SUFFIXES:
            raise UserError(f"{path} is no structure file; expected {', '.join(SUFFIXES)} (or .gz)")
        else:
            yield path


def _chains(path: Path, wanted: Container[str] = ATOMS) -> list[tuple[str, list[Residue]]]:
    """Every chain of a file: its name and its residues. Raises ValueError with the reason if there are none."""
    try:
        found = residues.chains(tables.read(path, wanted))
    except OSError as error:
        raise ValueError(f"cannot be opened: {error.strerror or error}") from error
    if not found:
        raise ValueError("holds no amino-acid residues")
    return found


def _read(path: Path, max_bond: float | None, breaks: str) -> list[tuple[str, Backbone | str]]:
    """Every chain of a file: its name, and the backbone or the reason why there is none."""
    try:
        chains = _chains(path)
    except ValueError as error:
        if isinstance(error, UserError):  # a package is missing
            raise
        return [("", str(error))]
    found: list[tuple[str, Backbone | str]] = []
    for chain, rows in chains:
        name = f"{_stem(path)}_{chain}" if len(chains) > 1 and chain else _stem(path)
        if breaks == "drop":
            found.append((chain, _build(path, name, chain, rows, max_bond)))
            continue
        whole = [r for r in rows if _complete(r)]
        if not whole:
            found.append((chain, "no residue has N, CA and C"))
        pieces = _pieces(whole) if breaks == "split" else [whole] if whole else []
        for piece in pieces:
            part = f"{name}_{piece[0].number}-{piece[-1].number}" if len(pieces) > 1 else name
            found.append((chain, _build(path, part, chain, piece, None)))
    return found


def _complete(residue: Residue) -> bool:
    return all(atom in residue.places for atom in ATOMS[:3])


def _pieces(rows: Sequence[Residue]) -> list[list[Residue]]:
    """The segments of residues that are connected by peptide bonds."""
    pieces = [[rows[0]]] if rows else []
    for before, after in pairwise(rows):
        if residues.bonded(before, after):
            pieces[-1].append(after)
        else:
            pieces.append([after])
    return pieces


def read_numbered(path: str | os.PathLike) -> dict[str, tuple[Backbone, list[str]]]:
    """The chains of one file by their names, each with the numbers of its residues (``52``, ``52A``). Residues
    without N, CA and C are left out, and breaks are kept; with side chains. Raises UserError if it is not a readable
    file."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; name one of its structure files")
    (file,) = structure_files([Path(path)], [])
    try:
        chains = _chains(file, side_chains.NAMES)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} {error}") from error
    whole = [(name, [r for r in rows if _complete(r)]) for name, rows in chains]
    found = {name: (_build(file, name, name, rows, None), rows) for name, rows in whole if rows}
    return {
        name: (replace(chain, sides=side_chains.places(rows)), [r.number for r in rows])
        for name, (chain, rows) in found.items() if isinstance(chain, Backbone)
    }  # fmt: skip


def _build(path: Path, name: str, chain: str, rows: Sequence[Residue], max_bond: float | None) -> Backbone | str:
    """The backbone of residues, or the reason why there is none."""
    missing = [(r, atom) for r in rows for atom in ATOMS[:3] if atom not in r.places]
    if missing:
        residue, atom = missing[0]
        return f"missing backbone atoms: {residue.name} {residue.number} has no {atom}"
    coords = torch.tensor([[r.places[atom] for atom in ATOMS[:3]] for r in rows], dtype=torch.float64)
    if not coords.isfinite().all():
        return "coordinates are not finite numbers"
    inside = float(torch.linalg.vector_norm(coords[:, 0] - coords[:, 1], dim=-1).median())
    if inside < TINY:
        unit = "are these nanometres?" if inside > 0 else "most atoms lie at one point"
        return f"N-CA is {inside:.2f} angstrom, where chains have 1.46: {unit}"
    gaps = torch.linalg.vector_norm(coords[1:, 0] - coords[:-1, 2], dim=-1)
    if max_bond is not None and (gaps > max_bond).any():
        i = int((gaps > max_bond).nonzero()[0])
        where = f"between {rows[i].number} and {rows[i + 1].number}"
        return f"chain break {where}: C-N is {gaps[i]:.2f} angstrom"
    full = with_oxygen(coords[:, 0], coords[:, 1], coords[:, 2])
    for i, r in enumerate(rows):
        if "O" in r.places:
            full[i, 3] = torch.tensor(r.places["O"], dtype=torch.float64)
    if not full.isfinite().all():
        return "coordinates are not finite numbers"
    return Backbone(
        full.float(), "".join(r.letter for r in rows), name, str(path), chain, tuple(r.number for r in rows)
    )
