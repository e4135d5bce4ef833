"""Protein structure files in and out: PDB and mmCIF, plain or gzipped, with a reason for every chain left out.

Reading takes the first model, the most occupied alternative location, and every chain as a backbone of its own, with
residues in the order of the file (insertion codes included). A modified residue counts as its parent (MSE as MET) when
it is part of the chain; waters and ligands are skipped. Files are opened for reading only.

Writing puts one chain, A, numbered from 1, into one file; columns are checked. A backbone without a sequence is written
as glycine, the one residue that is complete with N, CA, C and O, so that no program looks for missing side chains.
"""

from __future__ import annotations

import gzip
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fm_science.errors import UserError
from fm_science.samples import files_in

from .structure import ATOMS, Backbone, with_oxygen

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
BREAK = 1.8  # angstrom; a longer C-N distance is a chain break
LETTERS = "ARNDCQEGHILKMFPSTWYVX"
RESIDUES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL UNK"
NAMES = dict(zip(LETTERS, RESIDUES.split(), strict=True))
NUCLEOTIDES = {"A", "C", "G", "U", "I", "N", "DA", "DC", "DG", "DT", "DU", "DI"}
Paths = str | os.PathLike | Iterable[str | os.PathLike]


@dataclass(frozen=True)
class Dropped:
    """A chain (or a whole file, then chain is empty) that was not used, and why."""

    file: str
    chain: str
    reason: str


def read_backbones(
    paths: Paths,
    min_length: int = 1,
    max_length: int | None = None,
    max_bond: float | None = BREAK,
) -> tuple[list[Backbone], list[Dropped]]:
    """All usable chains of files and folders, and what was dropped.

    A chain is named after its file, with ``_chain`` when the file has several. Chains are dropped outside
    ``min_length`` to ``max_length`` residues, when N, CA or C of a residue is missing (a missing O is rebuilt), and
    at a C-N distance above ``max_bond`` angstrom (None keeps broken chains, as when generated structures are to be
    scored). Where a folder holds the same name as PDB and mmCIF, the mmCIF counts.

    Raises UserError when a path does not exist or is no structure file, or when no usable chain remains.
    """
    kept: list[Backbone] = []
    dropped: list[Dropped] = []
    asked = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    for file in _files([Path(path) for path in asked], dropped):
        for chain, found in _read(file, max_bond):
            if isinstance(found, Backbone) and min_length <= len(found) <= (max_length or len(found)):
                kept.append(found)
            elif isinstance(found, Backbone):
                wanted = f"{min_length} to {max_length or 'any'}"
                dropped.append(Dropped(str(file), chain, f"{len(found)} residues, wanted {wanted}"))
            else:
                dropped.append(Dropped(str(file), chain, found))
    if not kept:
        first = f"; first: {dropped[0].file} {dropped[0].chain}".rstrip() + f": {dropped[0].reason}" if dropped else ""
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


def _parse(path: Path) -> Any:
    """The first model of a file as a Biopython Model. Raises ValueError where there is none."""
    try:
        from Bio.PDB import MMCIFParser, PDBParser
    except ImportError as error:
        raise UserError("reading protein files needs Biopython: pip install 'fm-science[protein]'") from error

    parser = MMCIFParser(QUIET=True) if "cif" in _suffix(path) else PDBParser(QUIET=True)
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with warnings.catch_warnings(), opener(path, "rt", errors="replace") as handle:
        warnings.simplefilter("ignore")
        model = next(iter(parser.get_structure("", handle)), None)
    if model is None:
        raise ValueError("no atoms found")
    return model


def _chains(path: Path) -> list[tuple[str, list]]:
    """Every chain of a file: its letter and its residues. Raises ValueError, which says why, where there are none."""
    try:
        chains = [(chain.id.strip(), _residues(chain)) for chain in _parse(path)]
    except UserError:
        raise
    except Exception as error:  # parsers fail in many ways on broken files; all mean the same to the user
        kind = "mmCIF" if "cif" in _suffix(path) else "PDB"
        raise ValueError(f"cannot be read as {kind}: {' '.join(str(error).split()) or type(error).__name__}") from error
    chains = [(chain, residues) for chain, residues in chains if residues]
    if not chains:
        raise ValueError("holds no amino-acid residues")
    return chains


def _read(path: Path, max_bond: float | None) -> list[tuple[str, Backbone | str]]:
    """Every chain of a file: its letter, and the backbone or the reason why there is none."""
    try:
        chains = _chains(path)
    except ValueError as error:
        return [("", str(error))]
    several = len(chains) > 1
    return [(c, _build(path, c if several else "", r, max_bond)) for c, r in chains]


def read_numbered(path: str | os.PathLike) -> dict[str, tuple[Backbone, list[str]]]:
    """The chains of one file by their letters, each with the numbers of its residues (``52``, ``52A``). Residues
    without N, CA and C are left out, and breaks are kept. Raises UserError where it is no file that can be read."""
    if Path(path).is_dir():
        raise UserError(f"{path} is a folder; name one of its structure files")
    (file,) = _files([Path(path)], [])
    try:
        chains = _chains(file)
    except ValueError as error:
        raise UserError(f"{path} {error}") from error
    whole = [(name, [r for r in residues if all(atom in r for atom in ATOMS[:3])]) for name, residues in chains]
    found = {name: (_build(file, name, rows, None), [_number(r) for r in rows]) for name, rows in whole if rows}
    return {name: (chain, numbers) for name, (chain, numbers) in found.items() if isinstance(chain, Backbone)}


def _build(path: Path, chain: str, residues: list, max_bond: float | None) -> Backbone | str:
    from Bio.Data.PDBData import protein_letters_3to1_extended as letters

    missing = [(r, atom) for r in residues for atom in ATOMS[:3] if atom not in r]
    if missing:
        residue, atom = missing[0]
        return f"missing backbone atoms: {residue.get_resname()} {_number(residue)} has no {atom}"
    coords = torch.tensor([[r[atom].coord.tolist() for atom in ATOMS[:3]] for r in residues])
    if not coords.isfinite().all():
        return "coordinates are not finite numbers"
    gaps = torch.linalg.vector_norm(coords[1:, 0] - coords[:-1, 2], dim=-1)
    if max_bond is not None and (gaps > max_bond).any():
        i = int((gaps > max_bond).nonzero()[0])
        where = f"between {_number(residues[i])} and {_number(residues[i + 1])}"
        return f"chain break {where}: C-N is {gaps[i]:.2f} angstrom"
    full = with_oxygen(coords[:, 0], coords[:, 1], coords[:, 2])
    for i, r in enumerate(residues):
        if "O" in r:
            full[i, 3] = torch.from_numpy(r["O"].coord)
    sequence = "".join(letters.get(r.get_resname().strip(), "X") for r in residues)
    return Backbone(full, sequence, f"{_stem(path)}_{chain}" if chain else _stem(path), str(path))


def _number(residue: Any) -> str:
    return f"{residue.id[1]}{residue.id[2]}".strip()


def _residues(chain: Any) -> list:
    """The amino-acid residues in the order of the file; hetero ones only where a peptide bond ties them in."""
    from Bio.Data.PDBData import protein_letters_3to1_extended as letters

    found = [_most_occupied(r) for r in chain]
    found = [r for r in found if r.get_resname().strip() not in NUCLEOTIDES and r.id[0] != "W"]
    known = [r for r in found if (r.id[0] == " " and "CA" in r) or r.get_resname().strip() in letters]
    tied = [r.id[0] == " " for r in known]
    for i in range(len(known) - 1):
        if _bonded(known[i], known[i + 1]):
            tied[i] = tied[i + 1] = True
    return [r for r, keep in zip(known, tied, strict=True) if keep]


def _most_occupied(residue: Any) -> Any:
    """Of two residues modelled at one place (a point mutation) the one with the higher occupancy."""
    if residue.is_disordered() != 2:
        return residue
    children = residue.disordered_get_list()
    return max(children, key=lambda r: max((atom.get_occupancy() or 0.0 for atom in r), default=0.0))


def _bonded(first: Any, second: Any) -> bool:
    return "C" in first and "N" in second and first["C"] - second["N"] <= BREAK


# ---------------------------------------------------------------------------------------------------------- writing


def _rows(backbone: Backbone) -> Iterator[tuple[int, str, str, int, list[float]]]:
    """Atoms as (serial, atom, residue name, residue number, xyz)."""
    sequence = backbone.sequence or "G" * len(backbone)
    serial = 0
    for number, (letter, atoms) in enumerate(zip(sequence, backbone.coords.tolist(), strict=True), 1):
        for atom, xyz in zip(ATOMS, atoms, strict=True):
            serial += 1
            yield serial, atom, NAMES.get(letter, "UNK"), number, xyz


def _checked(backbone: Backbone, path: Path, columns: bool) -> Backbone:
    coords = backbone.coords
    if not coords.isfinite().all():
        raise UserError(f"cannot write {path}: coordinates are not finite numbers")
    if columns and (len(backbone) > 9999 or coords.max() >= 9999.9995 or coords.min() <= -999.9995):
        raise UserError(f"cannot write {path}: too large for the columns of a PDB file; write mmCIF (.cif) instead")
    return backbone


def _pdb(backbone: Backbone) -> list[str]:
    lines = [
        f"ATOM  {serial:5d}  {atom:<3s} {residue:3s} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}"
        f"          {atom[0]:>2s}"
        for serial, atom, residue, number, (x, y, z) in _rows(backbone)
    ]
    last = NAMES.get(backbone.sequence[-1], "UNK") if backbone.sequence else "GLY"
    return [*lines, f"TER   {len(lines) + 1:5d}      {last:3s} A{len(backbone):4d}"]


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
    lines = [
        f"ATOM {serial} {atom[0]} {atom} . {residue} A 1 {number} ? {x:.3f} {y:.3f} {z:.3f} 1.00 0.00 "
        f"{number} {residue} A {atom} 1"
        for serial, atom, residue, number, (x, y, z) in _rows(backbone)
    ]
    return _save(path, [f"data_{block}", "#", "loop_", *(f"_atom_site.{name}" for name in names.split()), *lines, "#"])
