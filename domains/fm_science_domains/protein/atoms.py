"""The atoms of a structure file, one row each, for every format: PDB, mmCIF or BinaryCIF, plain or gzipped.

The format is determined by the content, not by the name. From PDB files the columns of ATOM and HETATM records are
read, TER, MODEL and nothing else, so a header may have any content; residue numbers may be hybrid-36 (Grosse-Kunstleve
2007). From mmCIF the table ``atom_site`` is read, where columns that the dictionary calls optional may be absent, ``.``
or ``?``: occupancy is then 1, the model the first, and insertion codes and alternative locations are none (PDBx/mmCIF
dictionary 5). BinaryCIF (Sehnal et al. 2020) is the same table, packed. Only the first model is read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fm_science.errors import UserError
from fm_science.files import read_bytes

Place = tuple[float, float, float]
BACKBONE = ("N", "CA", "C", "O")
NEEDS_BIOPYTHON = "reading protein files needs Biopython: pip install 'fm-science[protein]'"


class Atom(NamedTuple):
    """One atom.

    Attributes:
        hetero: whether it is a HETATM record.
        name: of the atom.
        alternative: which alternative location, empty if there is only one.
        residue: name of its residue.
        chain: the name of its chain in the file, maybe empty.
        number: residue number with insertion code, as text.
        order: integer that increases along a chain; in mmCIF the index in the sequence.
        occupancy: of this location.
        place: x, y, z in angstrom; None for atoms that were not requested, which are not decoded.
        segment: what distinguishes chains of one name: TER records before it, or the chain's label in mmCIF.
    """

    hetero: bool
    name: str
    alternative: str
    residue: str
    chain: str
    number: str
    order: int
    occupancy: float
    place: Place | None
    segment: str


def read(file: Path, wanted: Container[str] = BACKBONE) -> list[Atom]:
    """The atoms of the first model of a file, those of ``wanted`` names with their coordinates.

    Raises:
        ValueError: in one line, if the file is broken, or not a structure file.
        UserError: if a package is missing.
    """
    data = read_bytes(file)
    if not data.strip():
        raise ValueError("the file is empty")
    if b"\xa8encoder" in data[:64] or b"\xaadataBlocks" in data[:512]:
        return _table("BinaryCIF", lambda: _binary_columns(data), wanted)
    text = data.decode("utf-8-sig", "replace")
    lead = next((line for line in map(str.lstrip, text.splitlines()) if line and not line.startswith("#")), "")
    if lead.lower().startswith("data_"):
        return _table("mmCIF", lambda: _cif_columns(text), wanted)
    found = list(_pdb(text.splitlines(), wanted))
    if not found:
        kind = "mmCIF" if "cif" in file.name.lower() else "PDB"
        web = "; it is a web page, so the download failed" if lead[:1] == "<" else ""
        raise ValueError(f"cannot be read as {kind}: no atoms found{web}")
    return found


# -------------------------------------------------------------------------------------------------------------- PDB


def _pdb(lines: Sequence[str], wanted: Container[str]) -> Iterator[Atom]:
    """The atoms of PDB records. Raises ValueError with the number of a line that is not in columns."""
    ends = 0
    seen = False
    for number, line in enumerate(lines, 1):
        record = line[:6].rstrip().upper()
        if record == "TER":
            ends += 1
        elif record in ("ENDMDL", "MODEL") and seen:
            return
        elif record in ("ATOM", "HETATM") or (record.startswith(("ATOM", "HETATM")) and len(line) > 53):
            seen = True
            yield _pdb_atom(line, number, ends, wanted)


def _pdb_atom(line: str, number: int, ends: int, wanted: Container[str]) -> Atom:
    name = line[12:16].strip()
    order, text = _residue_number(line, number)
    try:
        place = (float(line[30:38]), float(line[38:46]), float(line[46:54])) if name in wanted else None
        occupancy = float(line[54:60].strip() or 1)
    except ValueError as error:
        raise ValueError(
            f"cannot be read as PDB: line {number} has no numbers in the columns of its coordinates: "
            f"{line[30:60].strip()!r}"
        ) from error
    return Atom(
        line[:6].upper() == "HETATM", name, line[16:17].strip(), line[17:21].strip().upper(),
        line[21:22].strip(), text, order, occupancy, place, str(ends),
    )  # fmt: skip


def _residue_number(line: str, at: int) -> tuple[int, str]:
    """The number of a residue in columns 23 to 26, and with its insertion code. Five digits may extend into the column
    of the insertion code, and beyond 9999 numbers may be hybrid-36."""
    field, code = line[22:26], line[26:27].strip()
    if code.isdigit():
        field, code = field + code, ""
    try:
        value = hybrid36(field.strip())
    except ValueError as error:
        raise ValueError(f"cannot be read as PDB: line {at} has no residue number but {field!r}") from error
    return value, f"{value}{code}"


def hybrid36(text: str) -> int:
    """A number of four columns: decimal up to 9999, then A000 to ZZZZ from 10000 on, then a000 to zzzz."""
    if not re.fullmatch(r"[A-Z][A-Z0-9]{3}|[a-z][a-z0-9]{3}", text):
        return int(text)
    return int(text, 36) + 10**4 + (-10 * 36**3 if text[0].isupper() else 16 * 36**3)


# ------------------------------------------------------------------------------------------------------------ mmCIF

Columns = Mapping[str, Sequence[str]]


def _table(kind: str, read_columns: Callable[[], Columns], wanted: Container[str]) -> list[Atom]:
    """The atoms of the table ``atom_site``."""
    try:
        columns = read_columns()
        found = list(_rows(columns, wanted))
    except UserError:
        raise
    except Exception as error:  # parsers fail in many ways on broken files; all mean the same to the user
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot be read as {kind}: {said}") from error
    if not found:
        raise ValueError(f"cannot be read as {kind}: no atoms found")
    return found


def _rows(columns: Columns, wanted: Container[str]) -> Iterator[Atom]:
    size = len(columns["Cartn_x"]) if "Cartn_x" in columns else 0
    if any(len(column) != size for column in columns.values()):
        raise ValueError("the columns of atom_site differ in length; the file is cut short")

    def column(default: str, *names: str) -> list[str]:
        """The first column of these names with a value in a row, else ``default``."""
        rows = [columns[name] for name in names if name in columns]
        return [next((row[i] for row in rows if row[i] not in ("", ".", "?")), default) for i in range(size)]

    models = column("1", "pdbx_PDB_model_num")
    names, places = column("", "label_atom_id", "auth_atom_id"), [columns[f"Cartn_{axis}"] for axis in "xyz"]
    codes, numbers = column("", "pdbx_PDB_ins_code"), column("", "auth_seq_id", "label_seq_id")
    along, segments = column("", "label_seq_id", "auth_seq_id"), column("", "label_asym_id", "auth_asym_id")
    fields = zip(
        column("ATOM", "group_PDB"), names, column("", "label_alt_id"),
        column("", "auth_comp_id", "label_comp_id"), column("", "auth_asym_id", "label_asym_id"),
        column("1", "occupancy"), strict=True,
    )  # fmt: skip
    for i, (group, name, alternative, residue, chain, occupancy) in enumerate(fields):
        if models[i] != models[0]:
            return
        place = (float(places[0][i]), float(places[1][i]), float(places[2][i])) if name in wanted else None
        yield Atom(
            group == "HETATM", name, alternative, residue.upper(), chain, numbers[i] + codes[i],
            int(float(along[i] or i)), float(occupancy), place, segments[i],
        )  # fmt: skip


def _cif_columns(text: str) -> Columns:
    """The columns of ``atom_site`` of the first block of an mmCIF file that has any."""
    try:
        from Bio.PDB.MMCIF2Dict import MMCIF2Dict
    except ImportError as error:
        raise UserError(NEEDS_BIOPYTHON) from error

    # another block of the file would start a new table; the first with atoms is read
    for block in re.split(r"(?mi)^(?=data_)", text):
        if "_atom_site." in block:
            found = MMCIF2Dict(io.StringIO(block))
            return {key.removeprefix("_atom_site."): found[key] for key in found if key.startswith("_atom_site.")}
    return {}


def _binary_columns(data: bytes) -> Columns:
    """The same of a BinaryCIF file."""
    from .bcif import category

    return category(data, "_atom_site")
