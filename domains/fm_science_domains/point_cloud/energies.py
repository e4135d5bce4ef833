"""Energies of particle systems, in units of kT: for the distributions exp(-U) of point clouds.

An energy is any callable ``(B, N, D) -> (B,)`` that does not change when the cloud is translated, rotated or reordered.
Two of the field's test systems are here. Papers differ in how they count pairs of Lennard-Jones particles, a factor two
in the energy, so the factor is always explicit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
TINY = 1e-12  # smaller squared distances are replaced by this, so that gradients stay finite
PAIRS = 24_000  # pairs whose forces are computed at once, so that they stay in the CPU cache
SOFTEST = 0.5  # the softest core of Lennard-Jones particles: a pair at zero distance has some hundred kT


def squared_distances(x: Tensor) -> Tensor:
    """Squared distances of the pairs i < j of each cloud, ``(B, N, D)`` to ``(B, N (N - 1) / 2)``."""
    # one product with the incidence matrix of the pairs: much faster in backward mode than gathering points
    return (x.mT @ _incidence(x).mT).square().sum(1)


def _incidence(x: Tensor) -> Tensor:
    """The pairs i < j of the points of clouds ``(B, N, D)`` as rows: 1 at i and -1 at j, ``(N (N - 1) / 2, N)``."""
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    rows = torch.arange(len(i), device=x.device)
    ends = torch.zeros(len(i), n, dtype=x.dtype, device=x.device)
    return ends.index_put((rows, i), x.new_ones(())).index_put((rows, j), -x.new_ones(()))


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
        n: number of particles; clouds of another size raise an error.
        factor: 1 (ordered pairs) or 0.5 (unordered pairs), or any other weight.
        epsilon: depth of a pair's well in kT.
        radius: distance r at the bottom of the well.
        trap: stiffness k of the trap in kT per length².
        core: added to squared distances between particles, in units of r², so that they may pass through each other
            (the soft core of Beutler et al. 1994). Only used in cooling to the true distribution: see :meth:`softer`.
    """

    n: int
    factor: float = 1.0
    epsilon: float = 1.0
    radius: float = 1.0
    trap: float = 1.0
    core: float = field(default=0.0, repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, n, D)`` to ``(B,)``, in kT. Raises ValueError for clouds of another size."""
        if x.shape[1] != self.n:
            raise ValueError(f"LennardJones({self.n}) was given clouds of {x.shape[1]} points {tuple(x.shape)}.")
        square = squared_distances(x) + self.core * self.radius**2
        inverse = (self.radius**2 / square.clamp_min(TINY)) ** 3
        pairs = 2 * self.factor * self.epsilon * (inverse * (inverse - 2)).sum(-1)
        centred = x - x.mean(1, keepdim=True)
        return pairs + 0.5 * self.trap * centred.square().sum((1, 2))

    def softer(self, amount: float) -> LennardJones:
        """The same cluster with a soft core; ``amount`` 0: unchanged, 1: as soft as is useful."""
        return replace(self, core=self.core + SOFTEST * amount)

    @torch.no_grad()
    def force(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`force` in closed form, without a graph, a few clouds at a time: several times faster."""
        ends = _incidence(x)
        parts = [self._forces(some, ends) for some in x.split(max(1, PAIRS // max(1, len(ends))))]
        return torch.cat([u for u, _ in parts]), torch.cat([f for _, f in parts])

    def _forces(self, x: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        i, j = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
        y = (x - x.mean(1, keepdim=True)).permute(2, 1, 0).contiguous()  # (D, N, B): contiguous for gathering pairs
        apart = y.index_select(1, i) - y.index_select(1, j)
        square = apart.square().sum(0) + self.core * self.radius**2
        over = self.radius**2 / square.clamp_min(TINY)
        inverse = over * over * over
        strength = 2 * self.factor * self.epsilon
        u = strength * (inverse * (inverse - 2)).sum(0) + 0.5 * self.trap * y.square().sum((0, 1))
        along = (12 * strength / self.radius**2) * (inverse * (inverse - 1)).mul_(over)
        along = along.masked_fill_(square < TINY, 0.0)  # such pairs have the energy at TINY, and no gradient
        return u, (ends.mT @ (along * apart) - self.trap * y).permute(2, 1, 0)


def force(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """The energy ``(B,)`` and minus its gradient ``(B, N, D)``, without a centre-of-mass part; from the energy's own
    ``force`` if it has one."""
    if hasattr(energy, "force"):
        return energy.force(x)
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        u = energy(y)
        (slope,) = torch.autograd.grad(u.sum(), y)
    return u.detach(), slope.mean(1, keepdim=True) - slope


def virial(energy: Energy, x: Tensor) -> Tensor:
    """x . grad U of each cloud, ``(B,)``. At equilibrium its mean is the number of degrees of freedom, (N - 1) D on
    centred clouds, by integration by parts of exp(-U): the cheapest test of equilibrium."""
    return -(force(energy, x)[1] * (x - x.mean(1, keepdim=True))).sum((1, 2))
