"""A mixture of many equal Gaussians, whose velocity, density and distance from samples are exact on any schedule.

It is the mixture of :mod:`tests.oracles.closed_forms` for thousands of centres in many dimensions: distances are matrix
products, so that whole data sets can serve as centres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.schedules import Schedule
from fm_science.state import Context, expand_like


@dataclass(frozen=True)
class Kernels:
    """A mixture of equal isotropic Gaussians, one around each datum, and independent Gaussian noise of unit spread. The
    law of alpha x1 + sigma x0 is again such a mixture, so velocity, score and density are exact on every schedule.

    Args:
        mean: ``(K, *event)``, the data.
        std: spread of each Gaussian.
    """

    mean: Tensor
    std: float

    def draw(self, n: int) -> Tensor:
        """Data ``(n, 1, *event)``."""
        x = self.mean[torch.randint(len(self.mean), (n,))]
        return (x + self.std * torch.randn_like(x))[:, None]

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density of data ``(B, 1, *event)``, ``(B,)``."""
        y, m = x.flatten(1), self.mean.flatten(1)
        log = torch.logsumexp(-0.5 * torch.cdist(y, m).square() / self.std**2, 1) - math.log(len(m))
        return log - y.shape[1] * (math.log(self.std) + 0.5 * math.log(2 * math.pi))

    def discrepancy(self, x: Tensor, width: float = 0.3) -> float:
        """The squared maximum mean discrepancy of samples ``(n, 1, *event)`` to this law with a Gaussian kernel of this
        width, unbiased, times 10⁴. What the law contributes is exact, so that perfect samples give 0 on average."""
        y, m = x.flatten(1).double(), self.mean.flatten(1).double()

        def smooth(a: Tensor, b: Tensor, spread: float) -> Tensor:
            scale = (width**2 / (width**2 + spread)) ** (0.5 * a.shape[1])
            return scale * torch.exp(-0.5 * torch.cdist(a, b).square() / (width**2 + spread))

        n = len(y)
        own = (sum(smooth(part, y, 0.0).sum() for part in y.split(1000)) - n) / (n * (n - 1))
        cross, law = smooth(y, m, self.std**2).mean(), smooth(m, m, 2 * self.std**2).mean()
        return 1e4 * float(own - 2 * cross + law)

    def _middle(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the centres that made ``x``, and the variance of x around alpha times its centre."""
        y, m = x.flatten(1), self.mean.flatten(1).to(x)
        variance = (alpha * self.std) ** 2 + sigma**2
        near = 2 * alpha[:, None] * (y @ m.T) - alpha[:, None] ** 2 * m.square().sum(1)
        weight = (0.5 * near / variance[:, None]).softmax(1)
        return (weight @ m).reshape(x.shape), expand_like(variance, x)

    def network(self, schedule: Schedule, kind: str = "velocity") -> Callable[..., Tensor]:
        """The exact network: ``kind`` is "velocity", "noise" or "endpoint"."""

        def predict(x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
            alpha, sigma, dalpha, dsigma = schedule.rates(t) if kind == "velocity" else (*schedule(t), t, t)
            middle, variance = self._middle(x, alpha, sigma)
            alpha, sigma, dalpha, dsigma = (expand_like(v, x) for v in (alpha, sigma, dalpha, dsigma))
            endpoint = (alpha * self.std**2 * x + sigma**2 * middle) / variance
            noise = sigma / variance * (x - alpha * middle)
            return {"endpoint": endpoint, "noise": noise, "velocity": dalpha * endpoint + dsigma * noise}[kind]

        return predict


def ring(radius: float = 2.0, std: float = 0.2) -> Kernels:
    """Eight Gaussians around a circle, whose density is known."""
    angle = 0.25 * math.pi * torch.arange(8)
    return Kernels(radius * torch.stack([angle.cos(), angle.sin()], 1), std)
