"""The shipped protein chains: 2,948 compact X-ray backbones of 40 to 128 residues, all different, in four megabytes.

Neighbouring atoms are near each other, so the file stores differences: each CA relative to the CA before it, N and C
relative to their CA, O relative to its C, as integers of 0.01 angstrom, low bytes and high bytes in separate planes
because zip compresses those well. Decoding is one cumulative sum. Provenance and licence are in ``chains.md`` next to
this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .structure import Backbone

FILE = Path(__file__).with_name("chains.npz")
UNIT = 0.01  # angstrom per stored integer
VALIDATION = 1  # chains with cluster % 10 == VALIDATION are held out


@dataclass(frozen=True)
class Chain:
    """One chain. coords: (L, 4, 3) int16 in 0.01 angstrom, atoms N, CA, C, O, centred on the mean CA (to rounding)."""

    name: str  # PDB entry and chain, such as 1A12_C
    coords: np.ndarray
    sequence: str  # L one-letter residue codes
    dssp: str  # L DSSP letters, C = coil
    cluster: int  # cluster at 30 % sequence identity

    @property
    def held_out(self) -> bool:
        return self.cluster % 10 == VALIDATION


def encode(coords: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Steps of concatenated chains. coords: (R, 4, 3) int16; lengths: (C,) with sum R. Returns (2, 4, 3, R) uint8."""
    first = np.cumsum(lengths) - lengths
    n, ca, c, o = (coords[:, k].astype(np.int16) for k in range(4))
    walk = np.diff(ca, axis=0, prepend=ca[:1] * 0)
    walk[first] = ca[first]
    steps = np.ascontiguousarray(np.stack([n - ca, walk, c - ca, o - c], 0).transpose(0, 2, 1), dtype="<i2")
    return np.ascontiguousarray(np.moveaxis(steps.view(np.uint8).reshape(*steps.shape, 2), -1, 0))


def decode(planes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The inverse of ``encode``: (2, 4, 3, R) uint8 to (R, 4, 3) int16."""
    steps = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<i2")[..., 0].transpose(0, 2, 1)
    n, walk, c, o = steps.astype(np.int32)
    first = np.cumsum(lengths) - lengths
    total = np.cumsum(walk, axis=0)
    ca = total - np.repeat(total[first] - walk[first], lengths, axis=0)
    return np.stack([ca + n, ca, ca + c, ca + c + o], 1).astype(np.int16)


@cache
def shipped(path: Path = FILE) -> tuple[Chain, ...]:
    """All shipped chains, ordered by length, then name. About 0.1 s; the result is cached, so treat it as read only."""
    with np.load(path, allow_pickle=False) as file:
        lengths = file["length"].astype(np.int64)
        coords = decode(file["steps"], lengths)
        letters = [file[key].tobytes().decode("ascii") for key in ("sequence", "dssp")]
        names, clusters = file["name"].tolist(), file["cluster"].tolist()
    ends = np.cumsum(lengths).tolist()
    cuts = [slice(end - length, end) for end, length in zip(ends, lengths.tolist(), strict=True)]
    return tuple(
        Chain(name, coords[cut], letters[0][cut], letters[1][cut], cluster)
        for name, cut, cluster in zip(names, cuts, clusters, strict=True)
    )


@cache
def backbones(held_out: bool) -> tuple[Backbone, ...]:
    """The shipped chains of one part of the split, in angstrom; read only."""
    chains = (chain for chain in shipped() if chain.held_out == held_out)
    return tuple(Backbone(torch.from_numpy(c.coords) * UNIT, c.sequence, c.name) for c in chains)
