"""The plain rival: a kernel density on the sphere.

Each training event becomes a von Mises-Fisher bump κ / (4π sinh κ) exp(κ x·y) (Fisher 1953), and a small share of the
uniform law is mixed in, so that no event is impossible. κ and that share are those of the highest likelihood on the
validation events. A flow that does not beat this has learned nothing that a line of numpy does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SHARPEST = 1e7  # concentration of a bump of two kilometres on Earth
SHARES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3)
UNIFORM = -math.log(4 * math.pi)  # log-density of the uniform law, nats
CHUNK = 256


@dataclass(frozen=True)
class KernelDensity:
    """A mixture of bumps at events, and of the uniform law.

    Args:
        centres: ``(n, 3)`` unit vectors in double precision.
        concentration: κ of every bump; its width is about 1 / √κ radians.
        share: of the uniform law.
    """

    centres: Tensor
    concentration: float
    share: float

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density ``(m,)`` in nats of unit vectors ``(m, 3)``, with respect to area on the unit sphere."""
        return mix(bumps(self.centres, x, self.concentration), self.share)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws, ``(n, 3)`` (Ulrich 1984, in closed form on the sphere)."""
        k = self.concentration
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        along = (1 + torch.log(u + (1 - u) * math.exp(-2 * k)) / k).clamp(-1, 1)
        centre = self.centres[torch.randint(len(self.centres), (n,), generator=generator)]
        side = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        plain = torch.rand(n, generator=generator) < self.share
        across = side - (side * centre).sum(-1, keepdim=True) * centre
        across = across / across.norm(dim=-1, keepdim=True)
        x = along[:, None] * centre + (1 - along.square()).clamp(min=0).sqrt()[:, None] * across
        return torch.where(plain[:, None], side / side.norm(dim=-1, keepdim=True), x)

    @property
    def edge(self) -> bool:
        """Whether the concentration is the largest that was tried, as where events repeat: then the likelihood only
        says that they do."""
        return self.concentration >= 0.99 * SHARPEST


def bumps(centres: Tensor, x: Tensor, concentration: float) -> Tensor:
    """The log of the mean of the bumps at ``x``, ``(m,)``; with x·y = 1 - |x - y|² / 2, which is exact nearby."""
    k = concentration
    scale = math.log(k / (2 * math.pi)) - math.log1p(-math.exp(-2 * k))
    found = []
    for part in x.double().split(CHUNK):
        square = torch.cdist(part, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
        found.append(torch.logsumexp(-0.5 * k * square, 1))
    return torch.cat(found) + scale - math.log(len(centres))


def mix(logp: Tensor, share: float) -> Tensor:
    """The log-density of a law mixed with a share of the uniform one."""
    return torch.logaddexp(logp + math.log1p(-share), torch.full_like(logp, UNIFORM + math.log(share)))


def choose(train: Tensor, validation: Tensor) -> KernelDensity:
    """The kernel density of training events that gives the validation events the highest likelihood: concentrations
    from 1 to 10⁷ are tried, half a power of ten apart, and then finely around the best of them."""
    tried: dict[float, tuple[float, float, float]] = {}

    def attempt(power: float) -> tuple[float, float, float]:
        if power not in tried:
            logp = bumps(train, validation, 10**power)
            value, share = max((float(mix(logp, share).mean()), share) for share in SHARES)
            tried[power] = value, share, power
        return tried[power]

    top = math.log10(SHARPEST)
    best = max(attempt(k / 2) for k in range(round(2 * top) + 1))
    for step in (0.25, 0.125, 0.0625):
        best = max(attempt(p) for p in (best[2] - step, best[2], best[2] + step) if 0 <= p <= top)
    return KernelDensity(train, 10 ** best[2], best[1])
