"""Auxiliary losses of chemistry for a protein network: bonds, local shape, and atoms that cannot overlap.

Flow matching alone scores every frame separately; a bond, however, is between two frames, so that two small errors can
make one bad bond. These losses are computed on the atoms of the predicted endpoint. They are auxiliary: they change the
predicted mean towards chain-like structures and so bias the field slightly; therefore each has a window of time, in
which the chain is already recognisable, and a ceiling per example. Each is zero at the truth and unchanged by rotations
and translations.

A loss is called as ``loss(x1hat, x1, t, context) -> (B,)`` with states ``{"translations": (B, N, 3) nm, "rotations":
(B, N, 3, 3)}``; ``context.mask`` (B, N) marks real residues and ``context.cond["residue"]`` (B, N) their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .structure import NANOMETRE, backbone, with_oxygen

State = dict[str, Tensor]


def atoms(state: State) -> Tensor:
    """Positions (B, N, 3 atoms, 3) in nm of N, CA and C, with ideal geometry inside a residue."""
    return torch.stack(backbone(state["rotations"], state["translations"], 1 / NANOMETRE), -2)


def distances(a: Tensor) -> Tensor:
    """All distances (B, M, M) between points (B, M, 3); exact also for close points, gradient zero on the diagonal."""
    return torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class Window:
    """Weight of an auxiliary over time: 0 before ``start``, then 1 / (1 - min(t, late))².

    An example above ``ceiling`` is scaled down to it, so that its gradient still has the direction of improvement.
    """

    start: float = 0.25
    late: float = 0.9
    ceiling: float = 5.0

    def __call__(self, value: Tensor, t: Tensor) -> Tensor:
        weight = (t > self.start) / (1 - t.clamp(max=self.late)).square()
        value = weight * value
        return value * (self.ceiling / value.detach().clamp(min=self.ceiling))


@dataclass(frozen=True)
class BackboneAtoms:
    """Mean squared distance, nm², of N, CA and C to their true places (Yim et al. 2023, eq. 16)."""

    weight: float = 0.5
    window: Window = Window()

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Any) -> Tensor:
        error = (atoms(x1hat) - atoms(x1)).square().sum(-1).mean(-1)
        mask = context.mask.to(error)
        return self.window(self.weight * (error * mask).sum(1) / mask.sum(1).clamp(min=1), t)


@dataclass(frozen=True)
class LocalDistances:
    """Mean squared error, nm², of the distances between N, CA and C closer than ``reach`` (Yim et al. 2023, eq. 17)."""

    weight: float = 5.0
    reach: float = 0.8
    window: Window = Window()

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Any) -> Tensor:
        true = distances(atoms(x1).flatten(1, 2))
        error = (distances(atoms(x1hat).flatten(1, 2)) - true).square()
        real = context.mask.repeat_interleave(3, 1)
        close = (real[:, None] & real[:, :, None] & (true < self.reach) & (true > 1e-3)).to(error)
        return self.window(self.weight * (error * close).sum((1, 2)) / close.sum((1, 2)).clamp(min=1), t)


@dataclass(frozen=True)
class Peptide:
    """Mean squared error, nm², of the distances across a peptide bond: C-N, CA-N, C-CA and CA-CA.

    With the rigid inside of a residue, the first fixes the bond, the next two the angles CA-C-N and C-N-CA, the last
    the rotation about the bond. Only residues with consecutive numbers are bonded: breaks of the chain are left out.
    """

    weight: float = 20.0
    window: Window = Window()

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Any) -> Tensor:
        error = (self.bonds(x1hat) - self.bonds(x1)).square().mean(-1)
        residue = context.cond["residue"]
        bonded = context.mask[:, 1:] & context.mask[:, :-1] & (residue[:, 1:] - residue[:, :-1] == 1)
        bonded = bonded.to(error)
        return self.window(self.weight * (error * bonded).sum(1) / bonded.sum(1).clamp(min=1), t)

    @staticmethod
    def bonds(state: State) -> Tensor:
        """Distances (B, N - 1, 4) in nm: C-N, CA-N, C-CA and CA-CA of neighbours."""
        a = atoms(state)
        (_, alpha, carbon), (nitrogen, beyond, _) = a[:, :-1].unbind(2), a[:, 1:].unbind(2)
        pairs = ((carbon, nitrogen), (alpha, nitrogen), (carbon, beyond), (alpha, beyond))
        return torch.stack([(p - q).square().sum(-1).add(1e-12).sqrt() for p, q in pairs], -1)


@dataclass(frozen=True)
class HydrogenBonds:
    """Mean squared error, nm², of four distances across each hydrogen bond of the true chain: O-N, C-N, O-CA and CA-CA.

    They fix the positions and directions of donor and acceptor. A pair is bonded where the true oxygen of one
    residue is within ``reach`` of the true nitrogen of another, three or more residues along the chain: the ladders of
    strands and the turns of helices, which are a few pairs among the hundreds that ``LocalDistances`` averages over.
    """

    weight: float = 10.0
    reach: float = 0.35
    window: Window = Window()

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Any) -> Tensor:
        true, guess = self.spans(x1), self.spans(x1hat)
        residue, mask = context.cond["residue"], context.mask
        apart = (residue[:, None] - residue[:, :, None]).abs() >= 3
        accepts = F.pad(mask[:, 1:] & (residue[:, 1:] - residue[:, :-1] == 1), (0, 1))  # the next residue determines O
        bonded = (apart & accepts[:, :, None] & mask[:, None] & (true[..., 0] < self.reach)).to(guess)
        error = (guess - true).square().mean(-1)
        return self.window(self.weight * (error * bonded).sum((1, 2)) / bonded.sum((1, 2)).clamp(min=1), t)

    @staticmethod
    def spans(state: State) -> Tensor:
        """Distances (B, N, N, 4) in nm from residue i, the acceptor, to residue j, the donor."""
        nitrogen, alpha, carbon = atoms(state).unbind(2)
        oxygen = with_oxygen(nitrogen, alpha, carbon, 1 / NANOMETRE)[..., 3, :]
        pairs = ((oxygen, nitrogen), (carbon, nitrogen), (oxygen, alpha), (alpha, alpha))
        return torch.stack([torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") for a, b in pairs], -1)


@dataclass(frozen=True)
class Clashes:
    """Squared overlap, nm² per residue, of alpha carbons at least three residues apart that are closer than ``body``.

    If the true chain itself is closer than ``body``, its own distance is the limit, so that the truth scores zero.
    """

    weight: float = 20.0
    body: float = 0.45
    window: Window = Window(start=0.5)

    def __call__(self, x1hat: State, x1: State, t: Tensor, context: Any) -> Tensor:
        limit = distances(x1["translations"]).clamp(max=self.body)
        overlap = (limit - distances(x1hat["translations"])).clamp(min=0).square()
        residue, mask = context.cond["residue"], context.mask
        apart = (residue[:, None] - residue[:, :, None]) >= 3
        counted = (mask[:, None] & mask[:, :, None] & apart).to(overlap)
        return self.window(self.weight * (overlap * counted).sum((1, 2)) / mask.sum(1).clamp(min=1), t)
