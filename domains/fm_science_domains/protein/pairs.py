"""Features of pairs of residues, turned into attention biases for all blocks of the network at once.

A pair is described by how far apart its residues are along the chain and in space, their relative rotation, the same in
the network's previous prediction, their requested secondary structure, and whether they are requested to be neighbours
in a sheet. One small network takes this and returns a bias for every head of every block, in one product: there are
many pairs (N²), so they are processed once, and everything else is on residues.

The more expensive version of the first generation, with pairs that are updated in the network, is in
:mod:`.pairs_revised`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionSize
from .features import exact, poses
from .layers import small_embedding

REACH = 32  # residue offsets beyond this are "far along the chain"
KINDS = 8  # open, coil, helix, strand, and the same for frozen residues
SHEET = 3  # the condition of the pair: not paired, parallel, anti-parallel


class PairSize(AttentionSize, Protocol):
    """The sizes for pairs in addition to those of attention."""

    @property
    def bins(self) -> int: ...
    @property
    def triangle(self) -> int: ...


class PairInput(NamedTuple):
    """The input of a batch for its residues and pairs: the previous predicted endpoint or None, the numbers of residues
    (B, N), their kinds (B, N) in 0 .. 7, the sheet (B, N, N) in -1 .. 3 or None, and features of the time (B, T)."""

    previous: dict[str, Tensor] | None
    residue: Tensor
    kinds: Tensor
    sheet: Tensor | None
    time: Tensor

    @property
    def offset(self) -> Tensor:
        """(B, N, N) how far residue j is behind residue i along the chain, as a row of an embedding."""
        return (self.residue[:, None] - self.residue[:, :, None]).clamp(-REACH, REACH) + REACH

    def previous_poses(self, like: Tensor, bins: int) -> Tensor | None:
        if self.previous is None:
            return None
        return poses(self.previous["translations"].to(like), self.previous["rotations"].to(like), bins)


class PairBiases(nn.Module):
    """Attention biases of ``blocks`` blocks: (blocks, B, heads, N, N) from one pass over all pairs.

    Args:
        o: the sizes of the network.
        time: features of the time.
        blocks: how many blocks use these biases.
        first: whether these are the first biases, which use the previous prediction; later ones use the residues.
    """

    def __init__(self, o: PairSize, time: int, blocks: int, first: bool = True) -> None:
        super().__init__()
        self.bins, self.blocks, self.heads = o.bins, blocks, o.heads
        pose = 2 * o.bins + 16
        self.offset = nn.Embedding(2 * REACH + 1, o.pair)
        self.kinds = small_embedding(KINDS, 2 * o.pair)
        self.sheet = nn.Linear(SHEET, o.pair, bias=False)
        self.now = nn.Linear(pose, o.pair)
        self.then = nn.Linear(pose, o.pair, bias=False) if first else None
        self.ends = None if first else nn.Linear(o.width, 2 * o.pair)
        self.time = nn.Linear(time, o.pair)
        self.out = nn.Linear(o.pair, blocks * o.heads)

    def forward(self, x: Tensor, rotations: Tensor, given: PairInput, h: Tensor, blocked: Tensor) -> Tensor:
        with exact(x):
            now = poses(x, rotations, self.bins)
            before = None if self.then is None else given.previous_poses(x, self.bins)
        left, right = self.kinds(given.kinds).chunk(2, -1)
        if self.ends is not None:
            more = self.ends(h).chunk(2, -1)
            left, right = left + more[0], right + more[1]
        left = left + self.time(given.time)[:, None]
        z = self.now(now) + self.offset(given.offset)
        if before is not None and self.then is not None:
            z = z + self.then(before)
        if given.sheet is not None:
            stated = torch.stack([given.sheet == k + 1 for k in range(SHEET)], -1)
            z = z + self.sheet(stated.to(z))
        z = F.silu(z + left[:, :, None] + right[:, None])
        bias = self.out(z).to(x.dtype).unflatten(-1, (self.blocks, self.heads)).permute(3, 0, 4, 1, 2)
        return (bias + blocked).contiguous()
