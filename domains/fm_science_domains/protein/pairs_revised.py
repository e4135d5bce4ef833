"""Pairs of residues with features that are updated in the network.

The first generation of the protein network: blocks use the pairs, and every few blocks the pairs are updated
from both residues, their present pose and, through third residues, from the other pairs (Jumper et al. 2021, suppl.
algorithms 11 and 22). Two and a half times the cost of :mod:`.pairs`, which replaced it; it is kept for comparison, and
for runs that were trained with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import exact, poses
from .layers import scaled, small_embedding
from .pairs import KINDS, REACH, PairInput, PairSize


class PairDescription(nn.Module):
    """The initial features of pairs (B, N, N, pair): offset, pose in x_t and in the previous prediction, and time."""

    def __init__(self, o: PairSize, time: int) -> None:
        super().__init__()
        self.bins = o.bins
        pose = 2 * o.bins + 16
        self.offset = nn.Embedding(2 * REACH + 1, o.pair)
        self.kinds = small_embedding(KINDS, 2 * o.pair)
        self.now, self.then = nn.Linear(pose, o.pair), nn.Linear(pose, o.pair)
        self.time = nn.Linear(time, o.pair)
        self.out = nn.Linear(o.pair, o.pair)

    def forward(self, x: Tensor, rotations: Tensor, given: PairInput) -> Tensor:
        with exact(x):
            now, before = poses(x, rotations, self.bins), given.previous_poses(x, self.bins)
        left, right = self.kinds(given.kinds).chunk(2, -1)
        ends = left[:, :, None] + right[:, None] + self.time(given.time)[:, None, None]
        hidden = self.now(now) + self.offset(given.offset) + ends
        if before is not None:
            hidden = hidden + self.then(before)
        return self.out(F.silu(hidden))


class PairUpdate(nn.Module):
    """Update pairs from both residues, their present pose and, through third residues, from the other pairs."""

    def __init__(self, o: PairSize) -> None:
        super().__init__()
        self.triangle, self.bins = o.triangle, o.bins
        self.inner = nn.Linear(o.pair, o.pair)
        self.ends = nn.Linear(o.width, 2 * o.pair)
        self.pose = nn.Linear(2 * o.bins + 16, o.pair, bias=False)
        self.out = scaled(nn.Linear(o.pair, o.pair))
        if o.triangle:
            self.sides = nn.Linear(o.pair, 4 * o.triangle)
            self.level = nn.LayerNorm(2 * o.triangle)
            self.close = nn.Linear(2 * o.triangle, o.pair)

    def forward(self, w: Tensor, h: Tensor, x: Tensor, rotations: Tensor, mask: Tensor) -> Tensor:
        """What to add to the pairs, given the normalised pairs ``w``."""
        left, right = self.ends(h).chunk(2, -1)
        with exact(x):
            pose = poses(x, rotations, self.bins)
        hidden = self.inner(w) + left[:, :, None] + right[:, None] + self.pose(pose)
        if self.triangle:
            hidden = hidden + self.close(self.level(self._third_residues(w, mask)))
        return self.out(F.silu(hidden))

    def _third_residues(self, w: Tensor, mask: Tensor) -> Tensor:
        """Sum over the third residue k of edge(i, k) edge(j, k) and of edge(k, i) edge(k, j)."""
        a, b, c, d = self.sides(w).permute(0, 3, 1, 2).chunk(4, 1)
        a, c = a * mask[:, None, None], c * mask[:, None, :, None]
        both = torch.cat([a @ b.mT, c.mT @ d], 1)
        return both.permute(0, 2, 3, 1) / 8.0  # a fixed scale: a sum over contacts should grow with their number
