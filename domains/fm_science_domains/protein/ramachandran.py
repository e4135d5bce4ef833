"""The Ramachandran plot: which pairs of backbone torsions (phi, psi) real proteins use.

A generated backbone has no sequence, so every residue is evaluated by one density, that of the "general" residues
(neither glycine, nor proline, nor before a proline) of the shipped training chains, smoothed on the torus. Favoured is
the smallest region that contains 97 % of them, allowed the smallest that contains 99.8 %. These two numbers are
calibrated so that held-out native chains, evaluated without their sequence, have the same values as by the Top500
contours of MolProbity (Lovell et al. 2003), 94 % favoured and 98.4 % allowed: glycines are outside, so about 94 % is
the maximum, not 100 %. Torsions drawn uniformly have 16 % and 38 % (Top500: 17 % and 41 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .chains import backbones
from .structure import Backbone, torsions

CELLS = 180  # cells along each angle, 2 degrees wide
WIDTH = 4.0  # degrees, standard deviation of the smoothing
FAVOURED, ALLOWED = 0.97, 0.998  # mass of the two regions


@dataclass(frozen=True)
class Density:
    """mass: (C, C) probability of each cell, axes phi and psi from -pi; favoured, allowed: thresholds on the mass."""

    mass: Tensor
    favoured: float
    allowed: float

    def __call__(self, pairs: Tensor) -> Tensor:
        """The mass (...) of the cells of the pairs (..., 2) of phi and psi in radians."""
        i, j = _cell(pairs, len(self.mass)).unbind(-1)
        return self.mass.to(pairs.device)[i, j]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent pairs (n, 2) in radians."""
        cells = torch.multinomial(self.mass.flatten(), n, replacement=True, generator=generator)
        cells = torch.stack([cells // len(self.mass), cells % len(self.mass)], -1)
        return (cells + torch.rand(n, 2, generator=generator)) * (2 * math.pi / len(self.mass)) - math.pi


def _cell(pairs: Tensor, cells: int) -> Tensor:
    return ((pairs + math.pi) / (2 * math.pi) * cells).floor().long() % cells


def histogram(pairs: Tensor, cells: int) -> Tensor:
    """Counts (cells, cells) of pairs (P, 2) in radians."""
    i, j = _cell(pairs, cells).unbind(-1)
    return torch.bincount(i * cells + j, minlength=cells * cells).reshape(cells, cells).double()


def estimate(pairs: Tensor, cells: int = CELLS, width: float = WIDTH) -> Density:
    """Histogram of pairs (P, 2) convolved with a wrapped normal of ``width`` degrees."""
    k = torch.fft.fftfreq(cells, 1 / cells, dtype=torch.float64) * 2 * math.pi * width / 360
    decay = torch.exp(-0.5 * (k[:, None].square() + k.square()))
    mass = torch.fft.ifft2(torch.fft.fft2(histogram(pairs, cells)) * decay).real.clamp_min(0)
    mass = mass / mass.sum()
    sorted_mass = mass.flatten().sort(descending=True).values
    inside = sorted_mass.cumsum(0)
    favoured, allowed = (float(sorted_mass[(inside < level).sum()]) for level in (FAVOURED, ALLOWED))
    return Density(mass, favoured, allowed)


def pairs(backbone: Backbone) -> Tensor:
    """(P, 2) phi and psi in radians of the residues that have both: all except the first and the last."""
    phi, psi, _ = torsions(backbone.coords.double())
    return torch.stack([phi, psi], -1)[1:-1]


@cache
def reference() -> Density:
    """The density of the general residues of the shipped training chains; computed once, in half a second."""
    chains = backbones(False)
    phi, psi, _ = torsions(torch.cat([chain.coords for chain in chains]).double())
    sequence = "".join(chain.sequence or "" for chain in chains)
    letters = torch.tensor([ord(letter) for letter in sequence])
    general = (letters != ord("G")) & (letters != ord("P")) & (letters.roll(-1) != ord("P"))
    ends = torch.tensor([len(chain) for chain in chains]).cumsum(0)
    general[ends - 1] = False
    general[ends % len(letters)] = False  # the first residue of each chain
    return estimate(torch.stack([phi, psi], -1)[general])
