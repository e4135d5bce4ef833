"""Energies of particle systems, in units of kT: the laws exp(-U) that point clouds may follow.

An energy is any callable ``(B, N, D) -> (B,)`` that does not change when the cloud is moved, turned or reordered. Two
of the field's test systems are here. Papers differ in how they count pairs of Lennard-Jones particles, a factor two in
the energy, so the factor is always named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
TINY = 1e-12  # squared distances below this count as this, so that gradients stay finite


def squared_distances(x: Tensor) -> Tensor:
    """Squared distances of the pairs i < j of each cloud, ``(B, N, D)`` to ``(B, N (N - 1) / 2)``."""
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    # one product with the incidence matrix of the pairs: far quicker backwards than gathering points
    incidence = torch.zeros(len(i), n, dtype=x.dtype, device=x.device)
    rows = torch.arange(len(i), device=x.device)
    incidence = incidence.index_put((rows, i), x.new_ones(())).index_put((rows, j), -x.new_ones(()))
    return (x.mT @ incidence.mT).square().sum(1)


def distances(x: Tensor) -> Tensor:
    """Distances of the pairs i < j of each cloud, ``(B, N, D)`` to ``(B, N (N - 1) / 2)``."""
    return squared_distances(x).clamp_min(TINY).sqrt()


@dataclass(frozen=True)
class DoubleWell:
    """Particles whose pairs prefer two distances: U = sum_{i<j} a (d - d0)⁴ + b (d - d0)² + c  (Köhler, Klein & Noé
    2020, section 6). With the defaults, four particles in the plane are the system DW4; a pair has its two wells of
    -4.444 at d = 4 ± 1.491.

    Args:
        a, b, c: coefficients in kT per length⁴, per length², and in kT.
        d0: the distance between the wells.
    """

    a: float = 0.9
    b: float = -4.0
    c: float = 0.0
    d0: float = 4.0

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, N, D)`` to ``(B,)``, in kT."""
        square = (distances(x) - self.d0).square()
        return (square * (self.a * square + self.b) + self.c).sum(-1)


@dataclass(frozen=True)
class LennardJones:
    """A cluster in a soft trap: U = factor sum_{i != j} eps [(r/d)¹² - 2 (r/d)⁶] + k/2 sum_i |x_i - mean|²  (Köhler,
    Klein & Noé 2020; Klein, Krämer & Noé 2023).

    The sum runs over ordered pairs. So ``factor=1`` counts each pair twice, as the data of Klein et al. do, and
    ``factor=0.5`` once, as a textbook does.

    Args:
        n: number of particles; clouds of another size are refused.
        factor: 1 (ordered pairs) or 0.5 (unordered pairs), or any other weight.
        epsilon: depth of a pair's well in kT.
        radius: distance r at the bottom of the well.
        trap: stiffness k of the trap in kT per length².
    """

    n: int
    factor: float = 1.0
    epsilon: float = 1.0
    radius: float = 1.0
    trap: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, n, D)`` to ``(B,)``, in kT. Raises ValueError for clouds of another size."""
        if x.shape[1] != self.n:
            raise ValueError(f"LennardJones({self.n}) was given clouds of {x.shape[1]} points {tuple(x.shape)}.")
        inverse = (self.radius**2 / squared_distances(x).clamp_min(TINY)) ** 3
        pairs = 2 * self.factor * self.epsilon * (inverse * (inverse - 2)).sum(-1)
        centred = x - x.mean(1, keepdim=True)
        return pairs + 0.5 * self.trap * centred.square().sum((1, 2))


def force(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """The energy ``(B,)`` and minus its gradient ``(B, N, D)``, without a centre-of-mass part."""
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        u = energy(y)
        (slope,) = torch.autograd.grad(u.sum(), y)
    return u.detach(), slope.mean(1, keepdim=True) - slope


def virial(energy: Energy, x: Tensor) -> Tensor:
    """x . grad U of each cloud, ``(B,)``. At equilibrium its mean is the number of degrees of freedom, (N - 1) D on
    centred clouds, by integration by parts of exp(-U): the cheapest test of equilibrium there is."""
    return -(force(energy, x)[1] * (x - x.mean(1, keepdim=True))).sum((1, 2))
