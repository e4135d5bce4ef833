"""Distances of functions for the coupling, other than the plain integral of squares.

The kernel norm measures differences after smoothing by a kernel: with k smooth over a length, shorter variations cost
nothing, and noise is paired with data by their large-scale shape. Both integrals are by quadrature, so that the cost is
one of functions and hardly changes when the number of sensors is doubled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fm_science.priors import RBF

JITTER = 1e-6  # keeps smooth kernels invertible, as a share of their variance


@dataclass(frozen=True)
class KernelNorm:
    """The cost sum_ij w_i w_j k(x_i, x_j) u_i u_j of a difference u, the double integral of k u u (a negative Sobolev
    norm; as a distance of distributions Gretton et al. 2012, lemma 6). All samples must share their sensors.

    Args:
        length: of the kernel exp(-r² / (2 length²)), in sides of the domain.
    """

    length: float = 0.1
    memory: list = field(default_factory=list, init=False, repr=False, compare=False)

    def __call__(self, space: Any, x0: Tensor, x1: Tensor) -> Tensor:
        """Of paired functions ``(B, N, C)``: ``(B,)``."""
        return (self.vectors(space, x0) - self.vectors(space, x1)).square().sum(1)

    def vectors(self, space: Any, x: Tensor) -> Tensor:
        """Vectors ``(B, N C)`` whose squared distances are the costs: with K = L Lᵀ, Lᵀ W x."""
        weighted = space.mask_tangent(x) * space.weights.to(x)[..., None]
        return (self._factor(space.coords[0]).to(x).mT @ weighted).flatten(1)

    def _factor(self, coords: Tensor) -> Tensor:
        for known, factor in self.memory:
            if known.device == coords.device and torch.equal(known, coords):
                return factor
        place = coords.double()
        kernel = RBF(self.length).covariance(place[:, None] - place)
        factor = torch.linalg.cholesky(kernel + JITTER * torch.eye(len(place)).to(kernel))
        self.memory[:] = [(coords, factor)]
        return factor
