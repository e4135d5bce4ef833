"""The input features of a protein network: relative poses of residues, neighbours along the chain, Fourier features of
time and position.

Every number here is unchanged when the whole protein is rotated or translated, but not when it is mirrored, since
directions are expressed in the residues' own right-handed axes. Positions are in nanometres, rotations are matrices
whose columns are a residue's axes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fm_science.state import Context

from .structure import NANOMETRE, backbone

HALFWAY = 0.6  # nm: the distance in the middle of the scale of distance bins
STEPS = (-4, -3, -2, -1, 1, 2, 3, 4)  # neighbours along the chain whose exact pose is an input of every block
BLOCKED = -1e4  # attention logit of a padded residue


def exact(x: Tensor) -> torch.autocast:
    """A region where geometry keeps the precision of ``x``, also when the rest of the network runs in half."""
    return torch.autocast(x.device.type, enabled=False)


def waves(value: Tensor, size: int, longest: float) -> Tensor:
    """Sines and cosines (..., size) of ``value`` at wavelengths from 2 pi down to 2 pi / ``longest``."""
    rates = torch.logspace(0, math.log10(longest), size // 2, device=value.device, dtype=value.dtype)
    angle = value[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], -1)


def bumps(distance: Tensor, bins: int) -> Tensor:
    """Gaussian bins (..., bins) of a distance d in nm, evenly spaced in d / (d + 0.6): fine at short, coarse at long
    distances."""
    centres = torch.linspace(0.2, 0.9, bins, device=distance.device, dtype=distance.dtype)
    away = ((distance / (distance + HALFWAY))[..., None] - centres).mul((bins - 1) / 0.7)
    return torch.exp(-(away * away))


def poses(x: Tensor, rotations: Tensor, bins: int) -> Tensor:
    """Features of residue j relative to residue i: (B, N, N, 2 bins + 16) from positions (B, N, 3) in nm and axes (B,
    N, 3, 3).

    Distances CA(i)-CA(j) and N(i)-C(j) (short if i donates a hydrogen bond to j) in Gaussian bins, the direction of
    CA(j) in the axes of i and back, the axes of j in the axes of i, and CA(i)-CA(j) as a number. All are invariant
    under motions of both. (With 8 bins a multiple of 16 features: odd narrow matrices are slow on CPUs.)
    """
    nitrogen, alpha, carbon = backbone(rotations, x, 1 / NANOMETRE)
    gap = alpha[:, None] - alpha[:, :, None]
    square = torch.stack([gap.square().sum(-1), (carbon[:, None] - nitrogen[:, :, None]).square().sum(-1)], -1)
    far = square.add(1e-8).sqrt()  # the summand keeps the root smooth on the diagonal
    seen = torch.einsum("bnmj,bnji->bnmi", gap, rotations) / far[..., :1]
    turned = torch.einsum("bnki,bmkj->bnmij", rotations, rotations).flatten(-2)
    return torch.cat([bumps(far, bins).flatten(-2), seen, seen.transpose(1, 2), turned, far[..., :1]], -1)


class Layout(NamedTuple):
    """The fixed part of a batch: ``real`` (B, N) as numbers, ``blocked`` (B, 1, 1, N) attention logits, the sites
    ``near`` (N, S) of the chain neighbours and whether they are there, ``bound`` (B, N, S), and ``moves`` (B, N, 1),
    the scale of moves of residues: at most 1, zero for a frozen residue."""

    real: Tensor
    blocked: Tensor
    near: Tensor
    bound: Tensor
    moves: Tensor

    @classmethod
    def of(cls, context: Context, kind: torch.dtype) -> Layout:
        mask, residue, frozen = context.mask, context.cond["residue"], context.frozen("nodes")
        sites = mask.shape[1]
        steps = torch.tensor(STEPS, device=mask.device)
        place = torch.arange(sites, device=mask.device)[:, None] + steps
        near = place.clamp(0, sites - 1)
        bound = (place == near) & mask[:, near] & mask[:, :, None] & (residue[:, near] - residue[:, :, None] == steps)
        moves = mask if frozen is None else mask & ~frozen
        blocked = (~mask).to(kind)[:, None, None] * BLOCKED
        return cls(mask.to(kind), blocked, near, bound, moves.to(kind)[..., None])

    @property
    def bonded(self) -> Tensor:
        """(B, N - 1) 1 where a residue is bonded to the next, else 0."""
        return self.bound[:, :-1, STEPS.index(1)].to(self.real)

    def shrunk(self, share: Tensor) -> Layout:
        """The layout of a batch whose moves are scaled by ``share`` (B,)."""
        return self._replace(moves=self.moves * share.to(self.moves)[:, None, None])


def along(x: Tensor, rotations: Tensor, layout: Layout) -> Tensor:
    """Poses (B, N, 12 S) of the neighbours along the chain in a residue's own axes; zero beyond an end or a break."""
    gap = (x[:, layout.near] - x[:, :, None]) / 0.38  # in units of the distance of neighbouring alpha carbons
    seen = torch.einsum("bnsj,bnji->bnsi", gap, rotations)
    turned = torch.einsum("bnki,bnskj->bnsij", rotations, rotations[:, layout.near]).flatten(-2)
    return (torch.cat([seen, turned], -1) * layout.bound[..., None]).flatten(-2)
