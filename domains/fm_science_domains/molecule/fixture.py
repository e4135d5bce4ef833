"""The shipped molecules: 10,000 of QM9 with bonds, charges and properties, in less than 1.5 megabytes.

Each atom is stored as the step from its parent atom (the first one it is bonded to), in units of 0.001 angstrom,
low bytes and high bytes in separate planes because zip compresses those well. Provenance and licence are in
``fixture.md`` next to this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .molecule import rdkit
from .pack import Pack

FILE = Path(__file__).with_name("fixture.npz")
UNIT = 0.001  # angstrom per stored integer
RDKIT = "2026.09.1"  # the version that wrote the SMILES


def canonical(smiles: Sequence[str]) -> list[str]:
    """Shipped SMILES as the installed RDKit writes them; the shipped ones are those of the version ``RDKIT``."""
    if rdkit() == RDKIT:
        return list(smiles)
    from rdkit import Chem

    return [Chem.MolToSmiles(Chem.MolFromSmiles(text), isomericSmiles=False) for text in smiles]


def parents(pack: Pack) -> np.ndarray:
    """(A,) the row of the parent of each atom: the first before it that it is bonded to, else itself."""
    found = np.arange(len(pack.atoms))
    which = np.repeat(np.arange(len(pack)), pack.counts)
    low, high = np.sort(pack.ends.astype(np.int64), 1).T + pack.first[which]
    order = np.lexsort((-low, high))  # of several, the lowest is written last and remains
    found[high[order]] = low[order]
    return found


def encode(pack: Pack, file: Path = FILE) -> Path:
    """Write a pack as the shipped file."""
    units = np.round(pack.positions.astype(np.float64) / UNIT).astype(np.int64)
    parent = parents(pack)
    steps = np.where((parent != np.arange(len(parent)))[:, None], units - units[parent], 0).astype("<i2")
    planes = np.ascontiguousarray(steps.T).view(np.uint8).reshape(3, -1, 2)
    arrays: dict[str, Any] = {
        "steps": np.ascontiguousarray(planes.transpose(2, 0, 1)), "atoms": pack.atoms, "charges": pack.charges,
        "lengths": pack.lengths.astype(np.uint8), "ends": pack.ends.astype(np.uint8).T.copy(), "orders": pack.orders,
        "counts": pack.counts.astype(np.uint8), "part": pack.part,
        "smiles": np.frombuffer(_text(pack.smiles), np.uint8), "names": np.frombuffer(_text(pack.names), np.uint8),
    }  # fmt: skip
    named: dict[str, Any] = {f"property_{name}": values for name, values in pack.properties.items()}
    np.savez_compressed(file, **arrays, **named)
    return file


@cache
def shipped(file: Path = FILE) -> Pack:
    """The shipped molecules; read only."""
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    steps = np.ascontiguousarray(arrays["steps"].transpose(1, 2, 0)).view("<i2")[..., 0].T.astype(np.int64)
    pack = Pack(
        positions=steps.astype(np.float32), atoms=arrays["atoms"], charges=arrays["charges"],
        lengths=arrays["lengths"].astype(np.int64), ends=arrays["ends"].T.astype(np.int16), orders=arrays["orders"],
        counts=arrays["counts"].astype(np.int64), smiles=_words(arrays["smiles"]), names=_words(arrays["names"]),
        part=arrays["part"], properties={k[9:]: v for k, v in arrays.items() if k.startswith("property_")},
    )  # fmt: skip
    return replace(pack, positions=(UNIT * _walk(steps, parents(pack))).astype(np.float32))


def _walk(steps: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Positions (A, 3) from steps, whose parents come before their children: by pointer doubling towards the root."""
    places, above = steps.copy(), parent.copy()
    while (above != above[above]).any():
        places = places + np.where((above != np.arange(len(above)))[:, None], places[above], 0)
        above = above[above]
    return places


def _text(words: np.ndarray) -> bytes:
    return "\n".join(words.tolist()).encode("ascii")


def _words(text: np.ndarray) -> np.ndarray:
    return np.array(text.tobytes().decode("ascii").split("\n"))
