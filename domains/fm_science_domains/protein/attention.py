"""Invariant point attention: residues attend to residues whose points in space are near their own.

Every residue places a few points in space, in its own axes; the nearer the points of two residues are, the more they
attend to each other. A bias for each pair of residues and head is added, for all other features of the pair. The output
are channels, and points in the axes of the receiving residue. It is invariant under motions of all residues together.

After Jumper et al. 2021 (suppl. algorithm 22). The attention is written as one inner product of longer vectors,
-|q - k|²/2 = q.k - |q|²/2 - |k|²/2, so that it is one call of fused attention.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import exact
from .layers import scaled


class AttentionSize(Protocol):
    """The sizes that attention needs; they are options of the network."""

    @property
    def width(self) -> int: ...
    @property
    def pair(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def points(self) -> int: ...


class PointAttention(nn.Module):
    """Invariant point attention with given biases.

    Geometry (points, distances, softmax) is computed in at least single precision, also under autocast.
    """

    def __init__(self, o: AttentionSize, gathered: int = 0) -> None:
        super().__init__()
        self.heads, self.channels, self.points = o.heads, o.channels, o.points
        self.norm = nn.LayerNorm(o.width)
        self.scalars = nn.Linear(o.width, 3 * o.heads * o.channels)
        self.places = nn.Linear(o.width, 3 * o.heads * o.points * 3)
        self.sharpness = nn.Parameter(torch.zeros(o.heads))
        self.out = scaled(nn.Linear(o.heads * (o.channels + 4 * o.points + gathered), o.width))

    def forward(self, h: Tensor, bias: Tensor, x: Tensor, rotations: Tensor) -> Tensor:
        """Residues ``h`` (B, N, width) after attention.

        Args:
            bias: (B, heads, N, N) attention logits of pairs, those of padded residues very low.
            x: (B, N, 3) positions in nm; ``rotations`` (B, N, 3, 3), the residues' axes as columns.
        """
        u = self.norm(h)
        return h + self.out(self.gather(u, bias, x, rotations).to(u.dtype))

    def gather(self, u: Tensor, bias: Tensor, x: Tensor, rotations: Tensor) -> Tensor:
        """(B, N, heads (channels + 4 points)): channels, points in own axes, and the distances of the points."""
        b, n, _ = u.shape
        scalars = self.scalars(u).to(x.dtype).view(b, n, 3, self.heads, self.channels).permute(2, 0, 3, 1, 4)
        local = self.places(u).to(x.dtype).view(b, n, -1, 3)
        with exact(x):
            return self._attend(scalars, local, bias.to(x.dtype), x, rotations)

    def _attend(self, scalars: Tensor, local: Tensor, bias: Tensor, x: Tensor, rotations: Tensor) -> Tensor:
        b, n = x.shape[:2]
        placed = torch.einsum("bnij,bnpj->bnpi", rotations, local) + x[:, :, None]
        q, k, v = scalars
        qp, kp, vp = placed.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        sharp = F.softplus(self.sharpness)[:, None, None] * math.sqrt(2 / (9 * self.points))
        one = q.new_ones(()).expand(b, self.heads, n, 1)
        query = torch.cat([q / math.sqrt(self.channels), sharp * qp, -0.5 * sharp * qp.square().sum(-1, True), one], -1)
        key = torch.cat([k, kp, one, -0.5 * sharp * kp.square().sum(-1, True)], -1)
        value = torch.cat([v, vp], -1)
        got = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0).transpose(1, 2)
        plain, points = got[..., : self.channels].flatten(2), got[..., self.channels :].reshape(b, n, -1, 3)
        points = torch.einsum("bnji,bnpj->bnpi", rotations, points - x[:, :, None])
        return torch.cat([plain, points.flatten(2), points.square().sum(-1).add(1e-8).sqrt()], -1)


class GatheringAttention(PointAttention):
    """Point attention whose biases come from pairs (B, N, N, pair), and whose output includes features of pairs."""

    def __init__(self, o: AttentionSize) -> None:
        super().__init__(o, gathered=o.pair)
        self.logits = nn.Linear(o.pair, 2 * o.heads)

    def look(self, h: Tensor, w: Tensor, blocked: Tensor, x: Tensor, rotations: Tensor) -> Tensor:
        """Residues ``h`` after attention to residues and to the normalised pairs ``w``."""
        u = self.norm(h)
        bias, look = self.logits(w).to(x.dtype).permute(0, 3, 1, 2).chunk(2, 1)
        gathered = self.gather(u, bias + blocked, x, rotations)
        with exact(x):
            seen = ((look + blocked).softmax(-1).transpose(1, 2) @ w.to(x.dtype)).flatten(2)
        return h + self.out(torch.cat([gathered, seen], -1).to(u.dtype))
