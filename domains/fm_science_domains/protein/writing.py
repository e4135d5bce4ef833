"""Writing protein structures as PDB and mmCIF files.

A file has one chain, with its own name and numbers if it has them, else as A from 1; columns are checked. A backbone
without a sequence is written as glycine, the only residue that is complete with N, CA, C and O, so that no program
expects side chains.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fm_science.errors import UserError

from . import side_chains
from .structure import ATOMS, Backbone

LETTERS = "ARNDCQEGHILKMFPSTWYVX"
RESIDUES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL UNK"
NAMES = dict(zip(LETTERS, RESIDUES.split(), strict=True))
HEADER = "HEADER    PROTEIN BACKBONE"  # DSSP 4 takes a file without it for mmCIF


Row = tuple[int, str, str, int, str, list[float], float, int]


def _rows(backbone: Backbone) -> Iterator[Row]:
    """Atoms as (serial, atom, residue name, residue number, insertion code, xyz, B-factor: 1 for a motif's, number of
    the residue from 1)."""
    sequence = backbone.sequence or "G" * len(backbone)
    marks, serial = backbone.fixed.double().tolist(), 0
    for i, (letter, (number, code), mark) in enumerate(zip(sequence, _numbers(backbone), marks, strict=True)):
        atoms = list(zip(ATOMS, backbone.coords[i].tolist(), strict=True))
        if backbone.sides is not None:
            atoms += side_chains.atoms(letter, backbone.sides[i])
        for atom, xyz in atoms:
            serial += 1
            yield serial, atom, NAMES.get(letter, "UNK"), number, code, xyz, mark, i + 1


def _numbers(backbone: Backbone) -> list[tuple[int, str]]:
    """Numbers and insertion codes of residues: those of its file if all of them fit the columns, else from 1."""
    found = [re.fullmatch(r"(-?\d+)([A-Za-z]?)", number) for number in backbone.numbers]
    if len(found) == len(backbone) and all(m and -999 <= int(m[1]) <= 9999 for m in found):
        return [(int(m[1]), m[2]) for m in found if m]
    return [(number, "") for number in range(1, len(backbone) + 1)]


def numbers(backbone: Backbone) -> list[str]:
    """The numbers that residues have in written files, with their insertion codes."""
    return [f"{number}{code}" for number, code in _numbers(backbone)]


def chain_name(backbone: Backbone) -> str:
    """The name that a chain has in a written PDB file."""
    return backbone.chain if re.fullmatch(r"[A-Za-z0-9]", backbone.chain) else "A"


def _checked(backbone: Backbone, path: Path, columns: bool) -> Backbone:
    coords = backbone.coords
    if not coords.isfinite().all():
        raise UserError(f"cannot write {path}: coordinates are not finite numbers")
    if columns and (len(backbone) > 9999 or coords.max() >= 9999.9995 or coords.min() <= -999.9995):
        raise UserError(f"cannot write {path}: too large for the columns of a PDB file; write mmCIF (.cif) instead")
    return backbone


def _pdb(backbone: Backbone) -> list[str]:
    chain = chain_name(backbone)
    lines = [
        f"ATOM  {serial:5d}  {atom:<3s} {residue:3s} {chain}{number:4d}{code or ' '}   {x:8.3f}{y:8.3f}{z:8.3f}"
        f"{1:6.2f}{mark:6.2f}          {atom[0]:>2s}"
        for serial, atom, residue, number, code, (x, y, z), mark, _ in _rows(backbone)
    ]
    return [*lines, f"TER   {len(lines) + 1:5d}      {lines[-1][17:27].rstrip()}"]


def _save(path: str | os.PathLike, lines: Iterable[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def write_pdb(backbone: Backbone, path: str | os.PathLike) -> Path:
    """Write one chain as PDB. Raises UserError when numbers do not fit the columns."""
    return _save(path, [HEADER, *_pdb(_checked(backbone, Path(path), columns=True)), "END"])


def pdb(backbone: Backbone) -> str:
    """One chain as the text of a PDB file. Raises UserError when numbers do not fit the columns."""
    return "\n".join([HEADER, *_pdb(_checked(backbone, Path(f"{backbone.name}.pdb"), columns=True)), "END", ""])


def write_trajectory(frames: Sequence[Backbone], path: str | os.PathLike) -> Path:
    """Write states of one chain as a PDB file with models numbered 1, 2, ...; molecular viewers show it as a
    trajectory."""
    if len(frames) > 9999:
        raise UserError(f"cannot write {path}: {len(frames)} frames, but a PDB file numbers at most 9999 models")
    lines = [HEADER]
    for number, frame in enumerate(frames, 1):
        lines += [f"MODEL     {number:4d}", *_pdb(_checked(frame, Path(path), columns=True)), "ENDMDL"]
    return _save(path, [*lines, "END"])


ATOM_COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id label_seq_id "
    "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_seq_id auth_comp_id auth_asym_id "
    "auth_atom_id pdbx_PDB_model_num"
)
SCHEME_COLUMNS = (
    "asym_id entity_id seq_id mon_id ndb_seq_num pdb_seq_num auth_seq_num pdb_mon_id auth_mon_id pdb_strand_id "
    "pdb_ins_code hetero"
)


def write_cif(backbone: Backbone, path: str | os.PathLike) -> Path:
    """Write one chain as mmCIF, with the tables from which DSSP and others take the sequence of its polymer."""
    _checked(backbone, Path(path), columns=False)
    block = re.sub(r"[^A-Za-z0-9_.-]", "_", backbone.name) or "backbone"
    chain = re.sub(r"[^A-Za-z0-9_-]", "", backbone.chain) or "A"
    rows = list(_rows(backbone))
    atoms = [
        f"ATOM {serial} {atom[0]} {atom} . {residue} A 1 {place} {code or '?'} {x:.3f} {y:.3f} {z:.3f} "
        f"1.00 {mark:.2f} {number} {residue} {chain} {atom} 1"
        for serial, atom, residue, number, code, (x, y, z), mark, place in rows
    ]
    scheme = [
        f"A 1 {place} {residue} {place} {number} {number} {residue} {residue} {chain} {code or '.'} n"
        for _, atom, residue, number, code, _, _, place in rows
        if atom == "CA"
    ]
    polymer = [
        "_entity.id 1", "_entity.type polymer", "#", "_entity_poly.entity_id 1", "_entity_poly.type polypeptide(L)",
        f"_entity_poly.pdbx_strand_id {chain}", "#", "_struct_asym.id A", "_struct_asym.entity_id 1",
    ]  # fmt: skip
    tables = (_loop("pdbx_poly_seq_scheme", SCHEME_COLUMNS, scheme), _loop("atom_site", ATOM_COLUMNS, atoms))
    return _save(path, [f"data_{block}", "#", *polymer, *(line for table in tables for line in table), "#"])


def _loop(table: str, columns: str, rows: Sequence[str]) -> list[str]:
    """A table of mmCIF with its columns."""
    return ["#", "loop_", *(f"_{table}.{name}" for name in columns.split()), *rows]
