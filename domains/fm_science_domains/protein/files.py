"""Protein structure files in and out: PDB, mmCIF and BinaryCIF, with a reason for every chain left out.

Reading takes the first model, the most occupied alternative location, and every chain as a backbone of its own, with
residues in the order of the file, under the chain's name and with its numbering (insertion codes included). A modified
residue counts as its parent (MSE as MET) when it is part of the chain; waters and ligands are skipped. Files are opened
for reading only; see :mod:`.atoms` for the formats and :mod:`.residues` for where chains begin and end.

Writing puts one chain into one file: under its own name and numbers where it has them, else as A from 1; columns are
checked. A backbone without a sequence is written as glycine, the one residue that is complete with N, CA, C and O, so
that no program looks for missing side chains.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.samples import files_in

from . import atoms as tables
from . import residues
from .residues import BREAK, Residue
from .structure import ATOMS, Backbone, with_oxygen

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
BREAKS = ("drop", "split", "keep")  # what becomes of a chain with breaks or incomplete residues
LETTERS = "ARNDCQEGHILKMFPSTWYVX"
RESIDUES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL UNK"
NAMES = dict(zip(LETTERS, RESIDUES.split(), strict=True))
Paths = str | os.PathLike | Iterable[str | os.PathLike]


def read(paths: Paths) -> list[Backbone]:
    """The chains of files and folders, broken ones too, as they are scored. Raises what :func:`read_backbones` does."""
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
    chains, as when generated structures are to be scored). With ``"split"`` incomplete residues are left out and the
    chain is cut at its breaks; with ``"keep"`` it stays one chain with gaps. Where a folder holds the same name as PDB
    and mmCIF, the mmCIF counts.

    Raises UserError when a path does not exist or is no structure file, or when no usable chain remains.
    """
    kept: list[Backbone] = []
    dropped: list[Dropped] = []
    asked = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for file in _files([Path(path) for path in asked], dropped):
        for chain, found in _read(file, max_bond, breaks):
            if isinstance(found, Backbone) and min_length <= len(found) <= (max_length or len(found)):
                kept.append(found)
            elif isinstance(found, Backbone):
                wanted = f"{min_length} to {max_length or 'any'}"
                dropped.append(Dropped(str(file), chain, f"{len(found)} residues, wanted {wanted}"))
            else:
                dropped.append(Dropped(str(file), chain, found))
    if not kept:
        first = f"; first: {dropped[0].file} {dropped[0].part}".rstrip() + f": {dropped[0].reason}" if dropped else ""
        where = ", ".join(map(str, asked[:3])) + (", ..." if len(asked) > 3 else "")
        raise UserError(f"no usable protein chain in {where} ({len(dropped)} dropped{first})")
    return kept, dropped


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _stem(path: Path) -> str:
    return re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)[: -len(_suffix(path))]


def _files(paths: Sequence[Path], dropped: list[Dropped]) -> Iterator[Path]:
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


def _chains(path: Path) -> list[tuple[str, list[Residue]]]:
    """Every chain of a file: its name and its residues. Raises ValueError, which says why, where there are none."""
    try:
        found = residues.chains(tables.read(path))
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
    """The stretches of residues that peptide bonds hold together."""
    pieces = [[rows[0]]] if rows else []
    for before, after in pairwise(rows):
        if residues.bonded(before, after):
            pieces[-1].append(after)
        else:
            pieces.append([after])
    return pieces


def read_numbered(path: str | os.PathLike) -> dict[str, tuple[Backbone, list[str]]]:
    """The chains of one file by their names, each with the numbers of its residues (``52``, ``52A``). Residues
    without N, CA and C are left out, and breaks are kept. Raises UserError where it is no file that can be read."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; name one of its structure files")
    (file,) = _files([Path(path)], [])
    try:
        chains = _chains(file)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} {error}") from error
    whole = [(name, [r for r in rows if _complete(r)]) for name, rows in chains]
    found = {name: (_build(file, name, name, rows, None), [r.number for r in rows]) for name, rows in whole if rows}
    return {name: (chain, numbers) for name, (chain, numbers) in found.items() if isinstance(chain, Backbone)}


def _build(path: Path, name: str, chain: str, rows: Sequence[Residue], max_bond: float | None) -> Backbone | str:
    """The backbone of residues, or why there is none."""
    missing = [(r, atom) for r in rows for atom in ATOMS[:3] if atom not in r.places]
    if missing:
        residue, atom = missing[0]
        return f"missing backbone atoms: {residue.name} {residue.number} has no {atom}"
    coords = torch.tensor([[r.places[atom] for atom in ATOMS[:3]] for r in rows], dtype=torch.float64)
    if not coords.isfinite().all():
        return "coordinates are not finite numbers"
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


# ---------------------------------------------------------------------------------------------------------- writing


def _rows(backbone: Backbone) -> Iterator[tuple[int, str, str, int, str, list[float], float]]:
    """Atoms as (serial, atom, residue name, residue number, insertion code, xyz, B-factor: 1 for a motif's)."""
    sequence = backbone.sequence or "G" * len(backbone)
    numbers = _numbers(backbone)
    serial = 0
    marks = backbone.held.double().tolist()
    for letter, (number, code), atoms, mark in zip(sequence, numbers, backbone.coords.tolist(), marks, strict=True):
        for atom, xyz in zip(ATOMS, atoms, strict=True):
            serial += 1
            yield serial, atom, NAMES.get(letter, "UNK"), number, code, xyz, mark


def _numbers(backbone: Backbone) -> list[tuple[int, str]]:
    """Numbers and insertion codes of residues: those of its file where all of them fit the columns, else from 1."""
    found = [re.fullmatch(r"(-?\d+)([A-Za-z]?)", number) for number in backbone.numbers]
    if len(found) == len(backbone) and all(m and -999 <= int(m[1]) <= 9999 for m in found):
        return [(int(m[1]), m[2]) for m in found if m]
    return [(number, "") for number in range(1, len(backbone) + 1)]


def _checked(backbone: Backbone, path: Path, columns: bool) -> Backbone:
    coords = backbone.coords
    if not coords.isfinite().all():
        raise UserError(f"cannot write {path}: coordinates are not finite numbers")
    if columns and (len(backbone) > 9999 or coords.max() >= 9999.9995 or coords.min() <= -999.9995):
        raise UserError(f"cannot write {path}: too large for the columns of a PDB file; write mmCIF (.cif) instead")
    return backbone


def _pdb(backbone: Backbone) -> list[str]:
    chain = backbone.chain if re.fullmatch(r"[A-Za-z0-9]", backbone.chain) else "A"
    lines = [
        f"ATOM  {serial:5d}  {atom:<3s} {residue:3s} {chain}{number:4d}{code or ' '}   {x:8.3f}{y:8.3f}{z:8.3f}"
        f"{1:6.2f}{mark:6.2f}          {atom[0]:>2s}"
        for serial, atom, residue, number, code, (x, y, z), mark in _rows(backbone)
    ]
    return [*lines, f"TER   {len(lines) + 1:5d}      {lines[-1][17:27].rstrip()}"]


def _save(path: str | os.PathLike, lines: Iterable[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def write_pdb(backbone: Backbone, path: str | os.PathLike) -> Path:
    """Write one chain as PDB. Raises UserError when numbers do not fit the columns."""
    return _save(path, [*_pdb(_checked(backbone, Path(path), columns=True)), "END"])


def write_trajectory(frames: Sequence[Backbone], path: str | os.PathLike) -> Path:
    """Write states of one chain as a PDB file with models numbered 1, 2, ...; molecular viewers play it as a film."""
    if len(frames) > 9999:
        raise UserError(f"cannot write {path}: {len(frames)} frames, but a PDB file numbers at most 9999 models")
    lines: list[str] = []
    for number, frame in enumerate(frames, 1):
        lines += [f"MODEL     {number:4d}", *_pdb(_checked(frame, Path(path), columns=True)), "ENDMDL"]
    return _save(path, [*lines, "END"])


def write_cif(backbone: Backbone, path: str | os.PathLike) -> Path:
    """Write one chain as mmCIF."""
    _checked(backbone, Path(path), columns=False)
    names = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
        "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id "
        "auth_atom_id pdbx_PDB_model_num"
    )
    block = re.sub(r"[^A-Za-z0-9_.-]", "_", backbone.name) or "backbone"
    chain = re.sub(r"[^A-Za-z0-9_-]", "", backbone.chain) or "A"
    lines = [
        f"ATOM {serial} {atom[0]} {atom} . {residue} A 1 {(serial + 3) // 4} {code or '?'} {x:.3f} {y:.3f} {z:.3f} "
        f"1.00 {mark:.2f} {number} {residue} {chain} {atom} 1"
        for serial, atom, residue, number, code, (x, y, z), mark in _rows(backbone)
    ]
    return _save(path, [f"data_{block}", "#", "loop_", *(f"_atom_site.{name}" for name in names.split()), *lines, "#"])
