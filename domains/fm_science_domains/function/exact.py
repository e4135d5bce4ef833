"""Flows of Gaussian processes that are known in closed form.

Noise is one Gaussian process, data are another or a mixture of several. At each time the state is then a mixture of
Gaussian processes too, and its velocity, the flow map of a sample, and the posterior given observations are matrix
algebra. They are references for everything that is learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.priors.process import Kernel
from fm_science.state import Context, expand_like


def gram(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> Tensor:
    """The covariance of values at positions ``x`` ``(N, d)`` with those at ``y`` ``(M, d)``: ``(N, M)``."""
    x = x.double()
    return kernel.covariance(x[:, None] - (x if y is None else y.double())[None])


@dataclass(frozen=True, eq=False)
class Component:
    """A Gaussian process as data, in the coordinates in which noise is white and data have independent values.

    Attributes:
        share: its probability.
        mean: ``(N,)`` its mean at the sensors, in those coordinates.
        spread: ``(N,)`` its variances there.
        out, back: ``(N, N)`` from those coordinates to values, and back.
    """

    share: float
    mean: Tensor
    spread: Tensor
    out: Tensor
    back: Tensor

    def level(self, t: Tensor) -> Tensor:
        """The variances at times ``t`` ``(B, 1)``: ``(B, N)``."""
        return (1 - t) ** 2 + t**2 * self.spread

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """E[x1 - x0 | x_t] in values ``(B, N)``, for this component alone: the Gaussian conditional mean."""
        y = x @ self.back.T - t * self.mean
        return (self.mean + (t * self.spread - (1 - t)) / self.level(t) * y) @ self.out.T

    def log_weight(self, x: Tensor, t: Tensor) -> Tensor:
        """The log of the share times the density of x_t, up to a term that all components share: ``(B,)``."""
        v = self.level(t)
        y = x @ self.back.T - t * self.mean
        return math.log(self.share) - 0.5 * (y.square() / v + v.log()).sum(1)


@dataclass(frozen=True, eq=False)
class GaussianMixtureFlow:
    """The exact velocity of flow matching with independent pairs, x_t = (1 - t) x0 + t x1, from a centred Gaussian
    process to a mixture of Gaussian processes. It is a network: ``Flow(path, prior, GaussianMixtureFlow(...))``. All
    samples share their sensors, and channels are independent only if there is one.

    Args:
        components: see :func:`component`.
    """

    components: Sequence[Component]

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """``x`` ``(B, N, 1)`` and ``t`` ``(B,)`` to the velocity ``(B, N, 1)``."""
        y, time = x[..., 0].double(), expand_like(t.double(), x[..., 0])
        logs = torch.stack([c.log_weight(y, time) for c in self.components])
        share = logs.softmax(0)
        fields = torch.stack([c.velocity(y, time) for c in self.components])
        return (share[..., None] * fields).sum(0)[..., None].to(x)

    def transport(self, x0: Tensor) -> Tensor:
        """The data that the flow makes of noise ``(B, N, 1)``, for one component: in the coordinates where both are
        independent each value is scaled by the ratio of standard deviations and shifted by the mean."""
        if len(self.components) > 1:
            raise ValueError("the map of a mixture has no closed form: integrate the flow")
        (c,) = self.components
        y = x0[..., 0].double() @ c.back.T
        return ((c.mean + c.spread.sqrt() * y) @ c.out.T)[..., None].to(x0)


def component(noise: Tensor, covariance: Tensor, mean: Tensor | None = None, share: float = 1.0) -> Component:
    """A component of data with this covariance ``(N, N)`` and mean ``(N,)``, for noise of covariance ``noise``: the
    generalised eigenvectors of the two. With K0 = L Lᵀ and L⁻¹ K1 L⁻ᵀ = Q D Qᵀ, values are L Q times coordinates whose
    variances are 1 and D."""
    factor = torch.linalg.cholesky(noise.double())
    half = torch.linalg.solve_triangular(factor, covariance.double(), upper=False)
    inner = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    spread, q = torch.linalg.eigh(0.5 * (inner + inner.mT))
    back = torch.linalg.solve_triangular(factor.mT, q, upper=True).mT  # Qᵀ L⁻¹
    mean = torch.zeros(len(noise), dtype=torch.float64) if mean is None else mean.double()
    return Component(share, back @ mean, spread.clamp_min(0), factor @ q, back)


def regression(
    kernel: Kernel, at: Tensor, places: Tensor, values: Tensor, noise: float, mean: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The posterior of a Gaussian process given values observed with independent noise (Rasmussen & Williams 2006,
    algorithm 2.1).

    Args:
        kernel: its covariance.
        at: ``(N, d)`` the points at which the posterior is evaluated.
        places, values: ``(M, d)`` and ``(M,)`` the observations.
        noise: standard deviation of the observations.
        mean: of the process.

    Returns:
        Posterior mean ``(N,)`` and covariance ``(N, N)`` of the function itself, without noise.
    """
    inner = gram(kernel, places) + (noise**2 + 1e-10 * kernel.std**2) * torch.eye(len(places), dtype=torch.float64)
    factor = torch.linalg.cholesky(inner)
    cross = torch.linalg.solve_triangular(factor, gram(kernel, places, at), upper=False)
    white = torch.linalg.solve_triangular(factor, (values.double() - mean)[:, None], upper=False)
    return mean + (cross.mT @ white)[:, 0], gram(kernel, at) - cross.mT @ cross


@dataclass(frozen=True)
class Score:
    """How good a predictive distribution is.

    Attributes:
        smse: mean square error over the variance of the truth: 1 for a prediction by the mean of the data.
        msll: mean log-loss minus that of the prior's Gaussian; negative is better than ignoring the observations.
        coverage: share of true values inside the 95 % bands.
        crps: continuous ranked probability score, in the units of the values.
    """

    smse: float
    msll: float
    coverage: float
    crps: float


def score(mean: Tensor, std: Tensor, truth: Tensor, prior: tuple[float, float]) -> Score:
    """The scores of Gaussian predictions (Rasmussen & Williams 2006, section 2.5; Gneiting & Raftery 2007, section
    4.2).

    Args:
        mean, std: predictions, of any one shape.
        truth: of the same shape.
        prior: mean and standard deviation of a value when nothing is observed.
    """
    mean, std, truth = mean.double(), std.double().clamp_min(1e-12), truth.double()
    loss = 0.5 * ((truth - mean) / std).square() + std.log()
    base = 0.5 * ((truth - prior[0]) / prior[1]).square() + math.log(prior[1])
    z = (truth - mean) / std
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    crps = std * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    error = (truth - mean).square().mean() / (truth - prior[0]).square().mean()
    inside = (z.abs() <= 1.959964).double().mean()
    return Score(float(error), float((loss - base).mean()), float(inside), float(crps.mean()))


def score_samples(samples: Tensor, truth: Tensor, prior: tuple[float, float]) -> Score:
    """As :func:`score`, of samples ``(S, ...)``: mean and variance are theirs, the band is between two of them in
    order, and the continuous ranked probability score is the unbiased one of samples. A new sample is below the k-th of
    S with probability k / (S + 1), so the band ends at 0.025 (S + 1): at the 2.5 % quantile of fifty samples it would
    contain 91 % of their distribution, not 95 %. With fewer than 39 samples there is no such band, and all of them are
    used."""
    samples, truth = samples.double(), truth.double()
    found = score(samples.mean(0), samples.std(0), truth, prior)
    edge = max(0.0, 0.025 * (len(samples) + 1) - 1) / max(1, len(samples) - 1)
    low, high = samples.quantile(torch.tensor([edge, 1 - edge], dtype=torch.float64), dim=0)
    inside = ((truth >= low) & (truth <= high)).double().mean()
    return Score(found.smse, found.msll, float(inside), float(crps(samples, truth).mean()))


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2 of samples ``(S, ...)`` at truths ``(...)``, with the unbiased second term: ``(...)``
    (Gneiting & Raftery 2007, equation 21)."""
    s = len(samples)
    ordered = samples.sort(0).values
    rank = (2 * torch.arange(1, s + 1, dtype=samples.dtype) - s - 1).reshape(-1, *[1] * truth.ndim)
    spread = (rank * ordered).sum(0) / max(1, s * (s - 1))
    return (samples - truth).abs().mean(0) - spread
