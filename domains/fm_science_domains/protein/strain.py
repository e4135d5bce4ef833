"""The strain of peptide bonds: how far four distances between neighbours are from their ideal values, and in which
direction each residue has to move to correct them.

Residue i and the next one have the distances C-N, CA-N, C-CA and CA-CA. The first is the bond, the next two fix
the angles CA-C-N and C-N-CA, the last the rotation about the bond, which is trans (except for a few in a thousand).
Half the squared deviations are an energy; its gradient is a force and a torque on each residue, written here in the
residue's own axes, so that they are invariant. A network with these inputs need not learn geometry from coordinates: it
learns when to follow the force.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .structure import NANOMETRE, backbone

IDEAL = (0.1329, 0.2431, 0.2437, 0.3802)  # nm: C-N, CA-N, C-CA and CA-CA of a trans peptide (Engh & Huber 2001)
SOFT = 0.02  # nm: larger deviations are compressed in the features
LEVER = 0.15  # nm: the distance of N and C from CA, which turns torques into lengths
FEATURES = 20  # numbers per residue: deviations to both neighbours (2 x 4), forces and torques of both (4 x 3)


class Strain(NamedTuple):
    """``features`` (B, N, 20) of the network; the negative gradient of the energy in each residue's own axes: ``force``
    (B, N, 3) in nm, and ``torque`` (B, N, 3) over the squared lever, in radians."""

    features: Tensor
    force: Tensor
    torque: Tensor


def peptide_distances(x: Tensor, rotations: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four pairs of atoms of each peptide, (B, N - 1, 3) each, in nm: C-N, CA-N, C-CA and CA-CA."""
    n, a, c = backbone(rotations, x, 1 / NANOMETRE)
    return [(c[:, :-1], n[:, 1:]), (a[:, :-1], n[:, 1:]), (c[:, :-1], a[:, 1:]), (a[:, :-1], a[:, 1:])]


def peptide_strain(x: Tensor, rotations: Tensor, bonded: Tensor) -> Strain:
    """The strain of each residue.

    Args:
        x: (B, N, 3) positions of alpha carbons, nm.
        rotations: (B, N, 3, 3) with the residues' axes as columns.
        bonded: (B, N - 1) 1 where a residue is bonded to the next, else 0.
    """
    here, after = x[:, :-1], x[:, 1:]
    first, second = torch.stack([torch.stack(pair, -2) for pair in peptide_distances(x, rotations)], -3).unbind(-2)
    gap = second - first  # (B, N - 1, 4, 3)
    length = gap.square().sum(-1).add(1e-10).sqrt()
    deviation = (length - length.new_tensor(IDEAL)) * bonded[..., None]
    squashed = deviation / (SOFT + deviation.abs())
    pull = torch.stack([squashed, deviation], -1)[..., None] * (gap / length[..., None])[..., None, :]  # (., 4, 2, 3)
    forward = torch.linalg.cross((first - here[..., None, :])[..., None, :].expand_as(pull), pull)
    integrate_log_prob = torch.linalg.cross((second - after[..., None, :])[..., None, :].expand_as(pull), -pull)
    to_next = _in_own_axes(rotations[:, :-1], pull.sum(2), forward.sum(2))  # (B, N - 1, 2, 6)
    to_previous = _in_own_axes(rotations[:, 1:], -pull.sum(2), integrate_log_prob.sum(2))
    shifted_next, shifted_previous = F.pad(to_next, (0, 0, 0, 0, 0, 1)), F.pad(to_previous, (0, 0, 0, 0, 1, 0))
    deviations = [F.pad(squashed, (0, 0, 0, 1)), F.pad(squashed, (0, 0, 1, 0))]
    features = torch.cat([*deviations, shifted_next[:, :, 0], shifted_previous[:, :, 0]], -1)
    force, torque = (shifted_next[:, :, 1] + shifted_previous[:, :, 1]).chunk(2, -1)
    return Strain(features, force, torque / LEVER)


def _in_own_axes(rotations: Tensor, force: Tensor, torque: Tensor) -> Tensor:
    """Forces and torques (B, M, 2, 3) in the axes of (B, M, 3, 3), torques in units of the lever: (B, M, 2, 6)."""
    both = torch.stack([force, torque / LEVER], -2)
    return torch.einsum("bmji,bmkpj->bmkpi", rotations, both).flatten(-2)
