"""The geometry of a protein backbone: a chain of rigid peptide units.

Each residue carries a frame: the origin is CA, the first axis points to C, and N is in the plane of the first two axes.
So a rotation and a translation determine N, CA and C, and vice versa. The torsion angles phi, psi and omega rotate one
residue against the next; bond lengths and angles hardly vary, so the ideal values below rebuild a native chain to 0.04
angstrom (frames after Jumper et al. 2021, suppl. 1.8.1; lengths and angles after Engh & Huber 2001).

Lengths are in angstrom unless an argument ``angstrom`` gives the length of one angstrom in the caller's unit (0.1 for
nanometres). Angles are in radians. All functions take any number of leading batch dimensions and are differentiable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science import viewer

NANOMETRE = 10.0  # angstrom
ATOMS = ("N", "CA", "C", "O")
N_LOCAL = (-0.525, 1.363, 0.0)  # in the frame of the residue
C_LOCAL = (1.526, 0.0, 0.0)
N_CA = math.hypot(*N_LOCAL)
CA_C = C_LOCAL[0]
C_N = 1.329
C_O = 1.231
N_CA_C = math.atan2(N_LOCAL[1], N_LOCAL[0])
CA_C_N = math.radians(116.6)
C_N_CA = math.radians(121.7)
CA_C_O = math.radians(120.3)
END_PSI = math.radians(140.0)  # psi assumed for the last oxygen, which no next residue determines


@dataclass(frozen=True, eq=False)
class Backbone:
    """One protein chain. coords: (L, 4, 3) float32 in angstrom, atoms N, CA, C, O.

    A generated chain also has its origin: ``raw``, its coordinates before its bonds were closed, and its conditions:
    ``structure``, ``sheet``, and in ``motif`` which residues are a motif's.
    """

    coords: Tensor
    sequence: str | None = None  # L one-letter codes, X where unknown
    name: str = ""
    source: str = ""  # the file it was read from
    chain: str = ""  # the name of the chain in that file
    numbers: tuple[str, ...] = ()  # L residue numbers with insertion codes, as in that file; none: 1 to L
    raw: Tensor | None = None  # (L, 4, 3) as coords
    structure: str | None = None  # L letters: L coil, H helix, E strand, X left open
    sheet: str = ""  # strands of ``structure`` that were to pair, such as 1-2a,2-3p
    motif: tuple[str, ...] = ()  # L residues of the motif's file, such as A23, empty where a residue is new; or none
    sides: Tensor | None = None  # (L, 10, 3) side chains of fixed residues (``side_chains``), NaN for no atom

    def __len__(self) -> int:
        return self.coords.shape[0]

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {len(self)} residues)"

    def _repr_html_(self) -> str:
        from .writing import pdb

        return viewer.frame(viewer.Scene(self.name, "pdb", pdb(self)))

    @property
    def fixed(self) -> Tensor:
        """(L,) bool: the residues of a motif."""
        return torch.tensor([bool(label) for label in self.motif or [""] * len(self)], dtype=torch.bool)

    @property
    def ca(self) -> Tensor:
        """(L, 3) CA positions in angstrom."""
        return self.coords[:, 1]


def _unit(v: Tensor, tiny: float = 1e-12) -> Tensor:
    # the clamp keeps value and gradient finite for coinciding atoms
    return v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(tiny)


def _orthogonal(v: Tensor, axis: Tensor) -> Tensor:
    return v - (v * axis).sum(-1, keepdim=True) * axis


def frames(n: Tensor, ca: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (..., 3, 3) with the axes as columns, and translations (..., 3), from three atoms (..., 3) in any unit.

    A point with local coordinates p is at ``rotations @ p + translations``. If the three atoms are on one line the
    frame is not defined; the result is then finite but not a rotation.
    """
    e1 = _unit(c - ca)
    e2 = _unit(_orthogonal(n - ca, e1))
    return torch.stack([e1, e2, torch.linalg.cross(e1, e2)], -1), ca


def backbone(rotations: Tensor, translations: Tensor, angstrom: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms N, CA and C, each (..., 3), of rotations (..., 3, 3) and translations (..., 3), with ideal local geometry.

    translations and the result share a unit in which one angstrom is ``angstrom`` (1, or 0.1 for nanometres).
    """
    local = angstrom * rotations.new_tensor([N_LOCAL, C_LOCAL])
    n, c = torch.einsum("...ij,aj->a...i", rotations, local)
    return translations + n, translations, translations + c


def place(a: Tensor, b: Tensor, c: Tensor, length: float, angle: float, torsion: Tensor | float) -> Tensor:
    """The atom d (..., 3) at ``length`` from c with angle b-c-d and torsion a-b-c-d (Parsons et al. 2005, NeRF)."""
    axis = _unit(c - b)
    side = _unit(_orthogonal(a - b, axis))
    turn = torch.as_tensor(torsion, dtype=c.dtype, device=c.device)[..., None]
    across = side * turn.cos() + torch.linalg.cross(axis, side) * turn.sin()
    return c + length * (math.sin(angle) * across - math.cos(angle) * axis)


def with_oxygen(n: Tensor, ca: Tensor, c: Tensor, angstrom: float = 1.0) -> Tensor:
    """Coordinates (..., L, 4, 3) of one chain of atoms (..., L, 3), with O in the plane of CA, C and the next N.

    The last residue has no next N; its O is placed as if psi were 140 degrees. Unit as in ``backbone``.
    """
    length = C_O * angstrom
    last = place(n[..., -1:, :], ca[..., -1:, :], c[..., -1:, :], length, CA_C_O, END_PSI - math.pi)
    inner = place(n[..., 1:, :], ca[..., :-1, :], c[..., :-1, :], length, CA_C_O, math.pi)
    return torch.stack([n, ca, c, torch.cat([inner, last], -2)], -2)


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The torsion angle (...) in (-pi, pi] of four atoms (..., 3): zero is cis, positive is clockwise along b to c."""
    axis = _unit(c - b)
    u, v = _orthogonal(a - b, axis), _orthogonal(d - c, axis)
    return torch.atan2((torch.linalg.cross(axis, u) * v).sum(-1), (u * v).sum(-1))


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The angle (...) in [0, pi] at b between the atoms a and c, each (..., 3)."""
    u, v = _unit(a - b), _unit(c - b)
    # atan2 of half sums stays accurate near 0 and pi, where acos does not (Kahan 2006)
    norm = torch.linalg.vector_norm
    return 2 * torch.atan2(norm(u - v, dim=-1), norm(u + v, dim=-1))


def torsions(coords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """phi, psi, omega, each (..., L), of chains (..., L, 3 or 4, 3).

    omega[i] is the peptide bond between residue i and i + 1. phi of the first residue and psi and omega of the last are
    NaN.
    """
    n, ca, c = coords[..., 0, :], coords[..., 1, :], coords[..., 2, :]
    gap = torch.full_like(n[..., :1, 0], torch.nan)
    here, after = slice(None, -1), slice(1, None)
    phi = dihedral(c[..., here, :], n[..., after, :], ca[..., after, :], c[..., after, :])
    psi = dihedral(n[..., here, :], ca[..., here, :], c[..., here, :], n[..., after, :])
    omega = dihedral(ca[..., here, :], c[..., here, :], n[..., after, :], ca[..., after, :])
    return torch.cat([gap, phi], -1), torch.cat([psi, gap], -1), torch.cat([omega, gap], -1)


def grow(phi: Tensor, psi: Tensor, omega: Tensor | float = math.pi) -> Tensor:
    """The chain (..., L, 4, 3) in angstrom with torsions (..., L) and ideal lengths and angles, centred on its CAs.

    The first phi and the last psi and omega are not used, except that the last psi places the last oxygen. NaN is
    replaced by 180 degrees.
    """
    phi, psi = torch.nan_to_num(phi, nan=math.pi), torch.nan_to_num(psi, nan=END_PSI)
    omega = torch.nan_to_num(torch.as_tensor(omega, dtype=phi.dtype, device=phi.device), nan=math.pi).expand_as(phi)
    ca = phi.new_zeros(*phi.shape[:-1], 3)
    atoms = [ca + phi.new_tensor(N_LOCAL), ca, ca + phi.new_tensor(C_LOCAL)]
    for i in range(phi.shape[-1] - 1):
        n, ca, c = atoms[-3:]
        atoms.append(n2 := place(n, ca, c, C_N, CA_C_N, psi[..., i]))
        atoms.append(ca2 := place(ca, c, n2, N_CA, C_N_CA, omega[..., i]))
        atoms.append(place(c, n2, ca2, CA_C, N_CA_C, phi[..., i + 1]))
    chain = torch.stack(atoms, -2).unflatten(-2, (-1, 3))
    chain = chain - chain[..., 1:2, :].mean(-3, keepdim=True)
    n, ca, c = chain.unbind(-2)
    oxygen = with_oxygen(n, ca, c)[..., 3, :]
    end = place(n[..., -1, :], ca[..., -1, :], c[..., -1, :], C_O, CA_C_O, psi[..., -1] + math.pi)
    oxygen = torch.cat([oxygen[..., :-1, :], end[..., None, :]], -2)
    return torch.cat([chain, oxygen[..., None, :]], -2)


def ideal(coords: Tensor) -> Tensor:
    """The chain (..., L, 4, 3) rebuilt from its frames: the best that a model of frames can represent."""
    return with_oxygen(*backbone(*frames(*coords[..., :3, :].unbind(-2))))
