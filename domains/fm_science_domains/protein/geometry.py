"""Measurements on one backbone without a trained model: geometry, clashes, size, secondary structure.

``measure`` gives one flat row of numbers for one backbone; a value that is not defined (a chain too short, a coordinate
that is not a number) is NaN, and nothing here raises. Distances are in angstrom, angles in degrees, fractions in [0,
1].
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .ramachandran import pairs, reference
from .structure import Backbone, angle, torsions

TRANS = (3.8, 0.1)  # CA-CA across a trans peptide bond: centre, tolerance
CIS = (2.95, 0.15)
PEPTIDE = (1.329, 0.1)  # C-N
CLASH = 3.6  # CA-CA at three or more residues apart; real chains stay above (1 % have a pair below)
OVERLAP = 2.4  # any two of N, CA, C, O at three or more residues apart; hydrogen bonds stay above
CONTACT = 8.0  # CA-CA for contact order (Plaxco et al. 1998 count atoms within 6)
PAIRED = (4.3, 5.6)  # CA-CA to the nearest residue of the next strand
RG_LAW = (2.67, 0.352, 0.074)  # Rg = 2.67 L^0.352, standard deviation of its logarithm, over 3,271 real chains
OPEN, COIL, HELIX, STRAND = -1, 0, 1, 2  # kinds of residues; an open one may become anything
LETTERS = {COIL: "L", HELIX: "H", STRAND: "E", OPEN: "X"}
SHORTEST = 8  # residues below which secondary structure and alignment are not defined

UNITS = {
    "length": "residues", "ca_ca": "Å", "c_n": "Å", "angle_ca_c_n": "°", "angle_c_n_ca": "°", "rg": "Å",
    "angle_ca_c_n_sd": "°", "angle_c_n_ca_sd": "°", "omega_sd": "°", "clashes": "per residue",
    "overlaps": "per residue", "neighbours": "within 10 Å", "atoms_moved": "Å",
}  # fmt: skip


def _near(x: Tensor, window: tuple[float, float]) -> float:
    return ((x - window[0]).abs() <= window[1]).double().mean().item()


def _apart(length: int, least: int, device: torch.device) -> Tensor:
    index = torch.arange(length, device=device)
    return index[None] - index[:, None] >= least


def peptide(coords: Tensor) -> dict[str, float]:
    """The bonds between residues of coords (L, 4, 3) in angstrom: bond, angles, torsion and CA-CA distance.

    ca_ca_ok is two-sided, 3.8 +- 0.1; cis peptide bonds (2.95 +- 0.15) are counted separately, in ca_ca_cis; c_n_ok is
    1.329 +- 0.1. omega_trans counts |omega| > 150 degrees, omega_sd is the root mean square distance of those from 180.
    """
    n, ca, c = coords[:, :3].unbind(1)
    step = torch.linalg.vector_norm(ca[1:] - ca[:-1], dim=-1)
    bond = torch.linalg.vector_norm(n[1:] - c[:-1], dim=-1)
    at_c = angle(ca[:-1], c[:-1], n[1:]).rad2deg()
    at_n = angle(c[:-1], n[1:], ca[1:]).rad2deg()
    off = 180 - torsions(coords)[2][:-1].rad2deg().abs()
    trans = off[off < 30]
    return {
        "ca_ca": step.mean().item(),
        "ca_ca_ok": _near(step, TRANS),
        "ca_ca_cis": _near(step, CIS),
        "c_n": bond.mean().item(),
        "c_n_ok": _near(bond, PEPTIDE),
        "angle_ca_c_n": at_c.mean().item(),
        "angle_ca_c_n_sd": at_c.std(correction=0).item(),
        "angle_c_n_ca": at_n.mean().item(),
        "angle_c_n_ca_sd": at_n.std(correction=0).item(),
        "omega_trans": len(trans) / len(off) if len(off) else math.nan,
        "omega_sd": trans.square().mean().sqrt().item(),
    }


def rama(backbone: Backbone) -> dict[str, float]:
    """Fractions of residues in the favoured and allowed regions, and with phi > 0 (natives 6 %, mirror images 94 %)."""
    here = pairs(backbone)
    density = reference()
    mass = density(here)
    return {
        "rama_favoured": (mass >= density.favoured).double().mean().item(),
        "rama_allowed": (mass >= density.allowed).double().mean().item(),
        "phi_positive": (here[:, 0] > 0).double().mean().item(),
    }


def clashes(coords: Tensor) -> dict[str, float]:
    """Pairs per residue that are too close, three or more residues apart: CA-CA below 3.6, any below 2.4 angstrom."""
    length = len(coords)
    far = _apart(length, 3, coords.device)
    ca = torch.cdist(coords[:, 1], coords[:, 1])
    atoms = torch.cdist(coords.flatten(0, 1), coords.flatten(0, 1)).reshape(length, 4, length, 4).movedim(2, 1)
    return {
        "clashes": ((ca < CLASH) & far).sum().item() / length,
        "overlaps": ((atoms < OVERLAP) & far[..., None, None]).sum().item() / length,
    }


def size(coords: Tensor) -> dict[str, float]:
    """How compact the chain is.

    rg: radius of gyration of the CAs; rg_ratio: over 2.2 L^0.38, that of folded proteins (Skolnick et al. 1997);
    rg_z: its deviation from our own real chains in standard deviations (0 +- 1 when native);
    contact_order: mean sequence separation over length of CA pairs within 8 angstrom at three or more residues apart
    (after Plaxco et al. 1998); long_range: contacts per residue at twelve or more apart; neighbours: CAs within 10.
    """
    ca, length = coords[:, 1], len(coords)
    distance = torch.cdist(ca, ca)
    factor, power, spread = RG_LAW
    rg = (ca - ca.mean(0)).square().sum(-1).mean().sqrt().item()
    i, j = torch.nonzero((distance < CONTACT) & _apart(length, 3, ca.device), as_tuple=True)
    return {
        "rg": rg,
        "rg_ratio": rg / (2.2 * length**0.38),
        "rg_z": math.log(max(rg, 1e-9) / (factor * length**power)) / spread,
        "contact_order": (j - i).double().mean().item() / length if len(i) else 0.0,
        "long_range": (j - i >= 12).sum().item() / length,
        "neighbours": ((distance < 10).sum().item() - length) / length,
    }


def secondary(coords: Tensor) -> Tensor:
    """(L,) int64: 0 coil, 1 helix, 2 strand, from hydrogen bonds of coords (L, 4, 3) (DSSP, Kabsch & Sander 1983)."""
    if len(coords) < SHORTEST:
        return torch.zeros(len(coords), dtype=torch.long)
    try:
        import pydssp
    except ImportError as error:
        raise ImportError("secondary structure needs pydssp: pip install 'fm-science[protein]'") from error
    return pydssp.assign(coords.detach().cpu().float(), out_type="index")


def letters(coords: Tensor) -> str:
    """The secondary structure of coords (L, 4, 3), one letter per residue: L coil, H helix, E strand."""
    return spelt(secondary(coords))


def spelt(kinds: Tensor) -> str:
    """The kinds (L,) of residues, one letter each: L coil, H helix, E strand, X left open."""
    return "".join(LETTERS[kind] for kind in kinds.tolist())


def kinds(letters: str) -> Tensor:
    """(L,) int64, the kinds of residues of ``letters`` as written by :func:`spelt`."""
    return torch.tensor([OPEN if letter == "X" else "LHE".index(letter) for letter in letters])


def placement(coords: Tensor, strand: Tensor) -> dict[str, float]:
    """Whether the residues of ``strand`` (L,) bool are at distances of a sheet. coords: (L, 4, 3).

    Shares of them whose nearest CA, three or more residues away, is at 4.3 to 5.6 angstrom, as in neighbouring strands
    (natives 87 to 89 %), nearer, or farther; and the number of these residues.
    """
    index = torch.arange(len(coords), device=coords.device)
    apart = (index[:, None] - index).abs() >= 3
    nearest = torch.cdist(coords[:, 1], coords[:, 1]).masked_fill(~apart, torch.inf).amin(1)[strand]
    near, far = nearest < PAIRED[0], nearest > PAIRED[1]
    shares = {"strand_placed": ~(near | far), "strand_near": near, "strand_far": far}
    return {name: x.double().mean().item() for name, x in shares.items()} | {"strand_judged": float(strand.sum())}


@lru_cache(maxsize=4096)
def measure(backbone: Backbone) -> dict[str, float]:
    """All numbers of one backbone; cached, so treat the result as read only. NaN if a value is not defined."""
    coords = backbone.coords.detach().cpu().double()
    length, finite = len(backbone), bool(coords.isfinite().all())
    row: dict[str, float] = {"length": float(length), "finite": float(finite)}
    if not finite or length < 3:
        return row | dict.fromkeys(_columns(), math.nan)
    found = secondary(coords)
    requested = found if backbone.structure is None else kinds(backbone.structure)
    row |= peptide(coords) | rama(backbone) | clashes(coords) | size(coords) | placement(coords, requested == STRAND)
    names = ((HELIX, "helix"), (STRAND, "strand"), (COIL, "coil"))
    return row | {name: (found == kind).double().mean().item() for kind, name in names}


@lru_cache(maxsize=1)
def _columns() -> tuple[str, ...]:
    from .chains import backbones

    return tuple(name for name in measure(backbones(True)[0]) if name not in ("length", "finite"))
