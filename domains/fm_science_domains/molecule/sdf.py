"""Reading foreign molecules: every record of an SDF file and every frame of an XYZ file becomes a molecule, or a line
with the reason why not.

Reading sanitises with RDKit, which also converts nitro groups and similar ones to their charged forms, keeps hydrogens
as they are in the file, and reads numbers among the fields of a record as properties. XYZ files have no bonds: see
:mod:`.xyz`. Files may be gzipped; they are opened for reading only, one record at a time.
"""

from __future__ import annotations

import gzip
import itertools
import logging
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from fm_science.errors import UserError
from fm_science.files import GZIP, reason_of
from fm_science.samples import files_in

from . import xyz
from .cache import Dropped, Parsed
from .molecule import Molecule, bond_lengths, plain_smiles, quiet
from .workers import spread

log = logging.getLogger(__name__)
SUFFIXES = (".sdf", ".sd", ".mol")
END = "$$$$"
LARGEST = 1 << 26  # characters of a record
RECIPE = "reader 2"  # part of the name of cached files
UNITS = {0.1: "nanometres", 1.89: "bohr", 100.0: "picometres"}  # lengths in these units, over those in angstrom
ENOUGH = 200  # molecules whose lengths determine the unit of a file


class Record(NamedTuple):
    """A record of a file, with the name of the file and of the record; ``xyz``: whether it is a frame of XYZ."""

    file: str
    name: str
    text: str
    xyz: bool = False


def files(paths: Sequence[Path]) -> list[Path]:
    """The SDF files of the paths, including those of folders (:func:`~fm_science.samples.files_in`); the XYZ
    files of folders without any. Raises UserError when there are none."""
    found: list[Path] = []
    known = f"expected {', '.join((*SUFFIXES, xyz.SUFFIX))} (or .gz)"
    for path in paths:
        if path.is_dir():
            every = files_in(path)
            inside = [p for p in every if suffix(p) in SUFFIXES] or [p for p in every if suffix(p) == xyz.SUFFIX]
            if not inside:
                raise UserError(f"no SDF file in the folder {path}; {known}")
            found += inside
        elif not path.is_file():
            raise UserError(f"no file or folder {path}")
        elif suffix(path) not in (*SUFFIXES, xyz.SUFFIX):
            raise UserError(f"{path} is no SDF file; {known}")
        else:
            found.append(path)
    return found


def suffix(path: Path) -> str:
    """The extension of a file name, without ``.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def elements(text: str) -> list[int]:
    """Atomic numbers of symbols such as ``H,C,N``. Raises UserError for a word that is not an element."""
    from rdkit import Chem

    found = []
    for word in filter(None, (w.strip() for w in text.split(","))):
        with quiet():
            try:
                found.append(Chem.GetPeriodicTable().GetAtomicNumber(word))
            except RuntimeError as error:
                raise UserError(f"data.elements={text}: {word!r} is no element; write symbols: H,C,N,O") from error
    return found


def records(file: Path) -> Iterator[Record]:
    """The records of a file; the name of one is the file's stem, with a number when there are several. Raises UserError
    if the file cannot be read."""
    stem = file.name[: -len(".gz")] if file.name.lower().endswith(".gz") else file.name
    stem = stem[: -len(Path(stem).suffix)]
    frames = suffix(file) == xyz.SUFFIX
    try:
        with _opened(file) as stream:
            parts = ((text, True) for text in xyz.frames(stream)) if frames else _blocks(stream)
            begin = list(itertools.islice(parts, 2))
            if not begin:
                raise ValueError("the file is empty")
            single = len(begin) == 1 and (frames or not begin[0][1])
            for number, (text, _) in enumerate(itertools.chain(begin, parts), 1):
                yield Record(str(file), stem if single else f"{stem}:{number}", text, frames)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {file}: {reason_of(error)}") from error


def _opened(file: Path) -> IO[str]:
    """The text of a file, gzipped or not, independent of its name."""
    with file.open("rb") as stream:
        packed = stream.read(2) == GZIP
    if not packed and file.name.lower().endswith(".gz"):
        raise ValueError("it is not gzipped, whatever its name says")
    opened: Any = gzip.open if packed else open
    return opened(file, "rt", encoding="utf-8-sig", errors="replace", newline=None)


def _blocks(stream: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The records of an SDF file, and whether they have an end mark, which a .mol file does not have."""
    lines: list[str] = []
    size = 0
    for line in stream:
        size += len(line)
        if size > LARGEST:
            raise ValueError(f"a record of more than {LARGEST:,} characters")
        if line.rstrip() == END:
            yield "".join(lines), True
            lines, size = [], 0
        else:
            lines.append(line)
    if any(line.strip() for line in lines):  # the last record may lack its end mark, and a .mol file has none
        yield "".join(lines), False


def read(paths: Sequence[Path], processes: int = 1, named: Iterable[Path] = ()) -> Iterator[Parsed]:
    """Every record of files, in order: a molecule with its canonical SMILES, or why it is left out. A file that cannot
    be read is left out, unless it is one of those that the user ``named``: then UserError is raised."""
    given = set(named)

    def every() -> Iterator[Record | Dropped]:
        for file in paths:
            try:
                yield from records(file)
            except UserError as error:
                if file in given:
                    raise
                yield Dropped(str(file), "", str(error))

    lengths = Lengths()
    for found in spread(parse, every(), processes, label="reading molecules"):
        if not isinstance(found, Dropped):
            lengths.add(found[0])
        yield found
    lengths.warn(paths)


def parse(record: Record | Dropped) -> Parsed:
    """A record as a molecule with its canonical SMILES, or the reason why not."""
    from rdkit import Chem

    if isinstance(record, Dropped):
        return record
    with quiet():
        try:
            mol = block(record)
            if mol is None:
                return Dropped(record.file, record.name, "no readable MOL block")
            Chem.SanitizeMol(mol)
            molecule = Molecule.from_rdkit(mol, properties=fields(record.text))
        except ValueError as error:  # RDKit's exceptions are ValueErrors too
            return Dropped(record.file, record.name, str(error).strip().splitlines()[0][:120])
        if len(Chem.GetMolFrags(mol)) > 1:
            return Dropped(record.file, record.name, "several fragments (a salt or a complex)")
        plain = plain_smiles(mol)
    return (molecule if molecule.name else replace(molecule, name=record.name)), plain


def block(record: Record) -> Any:
    """The RDKit molecule of a record, unsanitised; None if it is not a MOL block. Raises ValueError if bonds cannot be
    perceived."""
    from rdkit import Chem

    if record.xyz:
        return xyz.perceived(record.text)
    make = partial(Chem.MolFromMolBlock, sanitize=False, removeHs=False, strictParsing=False)
    try:
        return make(record.text)
    except RuntimeError:
        return None


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


class Lengths:
    """The probable unit of the coordinates of files, by the bond lengths of their first molecules."""

    def __init__(self) -> None:
        self._ratios: list[float] = []

    def add(self, molecule: Molecule) -> None:
        """Measure a molecule, unless there were enough."""
        if len(self._ratios) < ENOUGH and len(molecule) > 1 and bool((molecule.atoms > 0).all()):
            lengths, expected = bond_lengths(molecule.to_rdkit())
            if len(lengths):
                self._ratios.append(float(np.median(lengths / expected)))

    def warn(self, paths: Sequence[Path]) -> None:
        """Warn if lengths look like another unit than angstrom."""
        if not self._ratios:
            return
        ratio = float(np.median(self._ratios))
        unit = next((name for value, name in UNITS.items() if 0.75 < ratio / value < 1.33), "another unit")
        if not 0.6 < ratio < 1.6:
            log.warning(
                "%s: bonds are %.2g times as long as in angstrom, which molecule files are in: the coordinates look "
                "like %s; scale them", ", ".join(map(str, paths[:2])), ratio, unit,
            )  # fmt: skip
