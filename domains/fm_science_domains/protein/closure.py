"""Closure: the last deviations of bonds between neighbours, tenths of an angstrom, are removed from a chain.

A learned chain has peptide bonds that are a few hundredths too long or too short. Here its frames follow gradient
descent on the energy of :mod:`.strain`, half the squared deviation of four distances per peptide, while the torsions
phi and psi are kept, so that bonds and angles become ideal and the fold remains as it was learned. The metric of moves
is |shift|² plus the square of 1.5 Å times the rotation angle. Closed bonds say nothing about what was learned: tables
show the bonds before and after, and how far the atoms moved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_science.spaces.rotations import quaternion_matrix
from fm_science.state import Context

from .strain import IDEAL, peptide_distances
from .structure import NANOMETRE, backbone, dihedral

CIS = 0.325  # nm: neighbouring alpha carbons nearer than this are left as cis peptides
CIS_IDEAL = 0.295  # nm: their distance
LEVER = 0.15  # nm
ANGSTROM = 1 / NANOMETRE

Frames = dict[str, Tensor]


def phi_psi(x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
    """phi of the second and psi of the first residue of each peptide, (B, N - 1) radians."""
    n, a, c = backbone(rotations, x, ANGSTROM)
    here, after = slice(None, -1), slice(1, None)
    phi = dihedral(c[:, here], n[:, after], a[:, after], c[:, after])
    return phi, dihedral(n[:, here], a[:, here], c[:, here], n[:, after])


def close_chain(
    state: Frames, context: Context, steps: int = 200, rate: float = 0.08, momentum: float = 0.85
) -> Frames:
    """Chains whose peptides are ideal, with their phi and psi kept.

    Args:
        state: ``translations`` (B, N, 3) in nm, ``rotations`` (B, N, 3, 3).
        context: its mask, and ``cond["residue"]`` (B, N): residues with consecutive numbers are bonded. Frozen residues
            do not move.
        steps: of gradient descent; torsions are kept in all except the last fifth.
        rate, momentum: of the descent.

    Returns:
        The closed frames; padded residues are unchanged.
    """
    x, rotations = state["translations"].detach(), state["rotations"].detach()
    residue, mask, frozen = context.cond["residue"], context.mask, context.frozen("nodes")
    bonded = (mask[:, 1:] & mask[:, :-1] & (residue[:, 1:] - residue[:, :-1] == 1)).to(x)
    ideal = x.new_tensor(IDEAL).expand(*bonded.shape, 4).clone()
    near = torch.linalg.vector_norm(x[:, 1:] - x[:, :-1], dim=-1) < CIS
    ideal[..., 3] = torch.where(near, CIS_IDEAL, ideal[..., 3])
    moves = (mask if frozen is None else mask & ~frozen).to(x)[..., None]
    wanted = phi_psi(x, rotations)
    velocity = x.new_zeros(*x.shape[:2], 6)
    for k in range(steps):
        torsions = wanted if k < 0.8 * steps else None
        velocity = momentum * velocity - rate * _gradient(x, rotations, bonded, ideal, torsions)
        shift, turn = (velocity * moves).chunk(2, -1)
        x, rotations = x + shift * ANGSTROM, _turned(rotations, turn)
    return {"translations": x, "rotations": rotations}


def _turned(rotations: Tensor, turn: Tensor) -> Tensor:
    """Rotations after small rotations (B, N, 3) about their own axes, in angstrom at the lever."""
    half = 0.5 * ANGSTROM / LEVER * turn
    return rotations @ quaternion_matrix(torch.cat([torch.ones_like(half[..., :1]), half], -1))


@torch.enable_grad()
def _gradient(
    x: Tensor, rotations: Tensor, bonded: Tensor, ideal: Tensor, torsions: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The gradient (B, N, 6) with respect to shift and rotation, in angstrom, clipped at half an angstrom."""
    step = x.new_zeros(*x.shape[:2], 6).requires_grad_()
    shift, turn = step.chunk(2, -1)
    moved, turned = x + shift * ANGSTROM, _turned(rotations, turn)
    gaps = torch.stack([q - p for p, q in peptide_distances(moved, turned)], -2) / ANGSTROM
    deviation = gaps.square().sum(-1).add(1e-8).sqrt() - ideal / ANGSTROM
    energy = (deviation.square().sum(-1) * bonded).sum()
    if torsions is not None:
        off = [1 - torch.cos(a - b) for a, b in zip(phi_psi(moved, turned), torsions, strict=True)]
        energy = energy + (torch.stack(off).sum(0) * bonded).sum()
    return torch.autograd.grad(energy, step)[0].clamp(-0.5, 0.5)
