"""Rotations: uniform noise to the isotropic Gaussian on SO(3), whose posterior is an integral over two angles.

Given x_t = x the datum is y = x exp((1 - t) s n), with s in (0, pi) and the axis n weighed by f(y) sin²(s / 2), f the
density of the data; the velocity is the mean of s n. For a law of the angle alone it points along the axis of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.paths import Geodesic
from fm_science.priors import IGSO3, Uniform
from fm_science.solvers import RK4, Heun
from fm_science.spaces import SO3
from fm_science.state import Context
from tests.oracles.manifolds import continuity
from tests.oracles.table import largest, oracle


@dataclass(frozen=True)
class UniformToIGSO3:
    """The exact velocity and density.

    Args:
        std: width of the data, in radians; from 0.5 on the series ends within ``terms``.
        nodes: of the quadrature over s and over the cosine of the angle between n and the axis of x; the second is
            exact from ``terms`` + 1 on.
        terms: of the series of characters.
    """

    std: float = 0.7
    nodes: tuple[int, int] = (40, 16)
    terms: int = 12

    @property
    def coefficients(self) -> Tensor:
        """c_m in f = sum_m c_m cos(m omega): the characters sum (2l + 1) exp(-l (l + 1) std² / 2) (1 + 2 sum cos)."""
        l = torch.arange(self.terms + 1.0)
        weight = (2 * l + 1) * torch.exp(-0.5 * l * (l + 1) * self.std**2)
        tails = weight.flip(0).cumsum(0).flip(0)
        return torch.cat([tails[:1], 2 * tails[1:]])

    def _grid(self) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes s ``(S, 1)``, cosines ``(1, C)``, and weights ``(S, C)`` that sum to one."""
        import numpy as np

        (p, dp), (c, dc) = ([torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(n)] for n in self.nodes)
        s, ds = 0.5 * math.pi * (p + 1), 0.5 * math.pi * dp
        return s[:, None], c[None], (torch.sin(0.5 * s).square() * ds / math.pi)[:, None] * dc

    def moments(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The density of x_t with respect to the uniform law ``(B,)``, and the integral of s n ``(B, 3)``."""
        s, c, weight = self._grid()
        turn = SO3().log(torch.eye(3).expand_as(x), x)[:, 0]
        angle = turn.square().sum(-1).sqrt()
        half, d = 0.5 * angle[:, None, None], 0.5 * (1 - t)[:, None, None] * s
        q = half.cos() * d.cos() - half.sin() * d.sin() * c  # cos(omega / 2) of y
        f = _cosines(self.coefficients, 2 * q * q - 1) * weight
        return f.sum((1, 2)), (f * s * c).sum((1, 2))[:, None] * turn / angle[:, None]

    def __call__(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        mass, first = self.moments(x, t)
        return (first / mass[:, None])[:, None]

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Log-density of x_t in the volume 8 pi²."""
        return self.moments(x, t)[0].log() - math.log(SO3().volume)

    def cdf(self, omega: Tensor) -> Tensor:
        """The distribution function of the angle of the data: the integral of f (1 - cos omega) / pi."""
        m = torch.arange(self.terms + 1.0)
        wave = omega[..., None] * torch.sinc(omega[..., None] * m / math.pi)
        up, down = (omega[..., None] * torch.sinc(omega[..., None] * k / math.pi) for k in (m + 1, m - 1))
        return (self.coefficients * (wave - 0.5 * (up + down))).sum(-1) / math.pi


def _cosines(c: Tensor, x: Tensor) -> Tensor:
    """sum_m c_m cos(m omega) at x = cos(omega), by Clenshaw's recurrence."""
    after, now = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(len(c) - 1, 0, -1):
        now, after = c[k] + 2 * x * now - after, now
    return c[0] + x * now - after


def _angles(x: Tensor) -> Tensor:
    return SO3().log(torch.eye(3).expand_as(x), x).square().sum(-1).sqrt()[:, 0]


@oracle("uniform noise to IGSO3 on SO(3): the density at t = 1 is that of the prior of this name", 1e-10)
def igso3_density() -> float:
    worst, context = 0.0, Context.full(64)
    x = Uniform().sample(SO3(), context)
    for std in (0.5, 0.7, 1.0):
        law = IGSO3(std)
        exact = law.log_prob(SO3().bind(context), x)
        found = UniformToIGSO3(std, terms=24, nodes=(40, 32)).log_prob(x, torch.ones(64))
        near = _angles(x) < 4 * std  # farther out the alternating series cancels
        worst = max(worst, largest((exact - found)[near]))
    return worst


@oracle("uniform noise to IGSO3 on SO(3): continuity equation", 1e-8)
def igso3_continuity() -> float:
    field, context = UniformToIGSO3(), Context.full(64)
    x, t = Uniform().sample(SO3(), context), 0.02 + 0.95 * torch.rand(64)
    return largest(continuity(SO3().bind(context), field, field.log_prob, x, t))


@oracle("uniform noise to IGSO3 on SO(3): the flow carries angles to their quantiles", 1e-6)
def igso3_map() -> float:
    field = UniformToIGSO3()
    angle = torch.linspace(0.1, 3.1, 61)
    axis = torch.nn.functional.normalize(torch.randn(61, 3), dim=-1)
    x0 = SO3().exp(torch.eye(3).expand(61, 3, 3), angle[:, None] * axis)[:, None]
    x1 = Flow(Geodesic(SO3()), Uniform(), field).transport(x0, Context.full(61), RK4(), 40)
    turned = SO3().log(torch.eye(3).expand_as(x1), x1)[:, 0]
    aside = turned - (turned * axis).sum(-1, keepdim=True) * axis
    return max(largest(field.cdf(_angles(x1)) - (angle - angle.sin()) / math.pi), largest(aside))


@oracle(
    "uniform noise to IGSO3 on SO(3): law of the angles of 2,000 samples (Kolmogorov, level 0.001)", 1.95 / 2000**0.5
)
def igso3_samples() -> float:
    field, n = UniformToIGSO3(nodes=(16, 14)), 2000
    x = Flow(Geodesic(SO3()), Uniform(), field).sample(Context.full(n), Heun(), 12)
    p = field.cdf(_angles(x).sort().values)
    rank = torch.arange(n + 1.0) / n
    return max(largest(p - rank[1:]), largest(p - rank[:-1]))
