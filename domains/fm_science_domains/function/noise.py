"""Noise that is fitted to the data: a Gaussian process.

Its covariance is a stationary part, a Matérn kernel as rough as the data, plus a few functions with Gaussian weights,
along which data vary more than that kernel says. Both are found by maximum likelihood: in the coordinates in which the
kernel is white, this is probabilistic principal component analysis (Tipping & Bishop 1999), whose optimum is in closed
form. So noise and data agree in variance and correlation before anything is learned, and the flow has to learn only
what is not Gaussian. Between the sensors of the fit, each function is interpolated smoothly, so that the distribution
is one of functions and not of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.priors import GaussianProcess, Matern, Prior
from fm_science.priors.process import Kernel
from fm_science.state import Context, State, masked_where

from .sets import Sets

SMOOTHNESS, LENGTHS = (0.5, 1.5, 2.5), (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
SENSORS, FUNCTIONS = 128, 500  # maximum for the fit
NUGGET = 1e-6


@dataclass(frozen=True, eq=False)
class Factored(Prior):
    """A stationary Gaussian process plus functions with independent standard normal weights.

    Args:
        fine: the stationary part; all channels have the same distribution there and are independent.
        anchors: ``(n, d)`` positions.
        smooth: a kernel that interpolates.
        weights: ``(n, K, C)``: the k-th function is sum_j smooth(x - anchor_j) weights_jk.
    """

    fine: GaussianProcess
    anchors: Tensor = field(repr=False)
    smooth: Kernel
    weights: Tensor = field(repr=False)
    memory: list = field(default_factory=list, init=False, repr=False)
    gaussian = True

    @property
    def kernel(self) -> Kernel:
        """The stationary part's."""
        return self.fine.kernel

    def functions(self, coords: Tensor) -> Tensor:
        """The functions at positions ``(..., d)``: ``(..., K, C)``, in double precision. Results for repeated positions
        are cached."""
        for known, values in self.memory:
            if known.device == coords.device and torch.equal(known, coords):
                return values
        gap = coords.double()[..., None, :] - self.anchors.to(coords.device)
        values = torch.einsum("...j,jkc->...kc", self.smooth.covariance(gap), self.weights.to(coords.device))
        self.memory[:] = [(coords, values), *self.memory[:3]]
        return values

    def sample(self, space: Any, context: Context) -> State:
        x = self.fine.sample(space, context)
        coords = context.cond["coords"]
        alike = bool((coords == coords[:1]).all())
        shapes = self.functions(coords[0] if alike else coords).to(x)
        share = torch.randn(len(x), shapes.shape[-2], device=x.device).to(x)
        more = torch.einsum("bk,nkc->bnc" if alike else "bk,bnkc->bnc", share, shapes)
        return space.bind(context).project(x + more)

    def log_prob(self, space: Any, x: Tensor) -> Tensor:
        live, coords = space.free_mask, space.coords.to(x)
        if bool((coords == coords[:1]).all() & (live == live[:1]).all()):
            live, coords = live[:1], coords[:1]
        factor = torch.linalg.cholesky(self.covariance(coords, live))
        flat = masked_where(space.free_mask, x, 0.0).double().flatten(1)
        white = torch.linalg.solve_triangular(factor.expand(len(x), -1, -1), flat[..., None], upper=False)
        logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        square = white.square().flatten(1).sum(1)
        return -0.5 * (square + logdet + space.dimension * math.log(2 * math.pi)).to(x)

    def covariance(self, coords: Tensor, live: Tensor) -> Tensor:
        """Of all values, sensor by sensor ``(B, N C, N C)``; sensors that are not real and free have variance one."""
        coords, channels = coords.double(), self.weights.shape[-1]
        one = self.kernel.covariance(coords[:, :, None] - coords[:, None])
        one = one + self.fine.nugget * self.kernel.std**2 * torch.eye(coords.shape[1]).to(one)
        both = torch.einsum("bnm,cd->bncmd", one, torch.eye(channels).to(one))
        shapes = self.functions(coords)
        both = both + torch.einsum("bnkc,bmkd->bncmd", shapes, shapes)
        seen = (live[:, :, None] & live[:, None])[:, :, None, :, None]
        return torch.where(seen, both, 0.0).flatten(3).flatten(1, 2) + torch.diag_embed(
            (~live).to(both)[..., None].expand(-1, -1, channels).flatten(1)
        )

    def scaled(self, factor: float) -> Factored:
        return Factored(self.fine.scaled(factor), self.anchors, self.smooth, factor * self.weights)


@dataclass(frozen=True)
class Fit:
    """A kernel, its functions, and the log-likelihood of the data per function, minus a penalty for its parameters
    (Schwarz 1978)."""

    score: float
    kernel: Matern
    shapes: Tensor  # (n, K, C), the values of the functions


def fitted(sets: Sets, period: float, std: float, factors: int | None) -> Prior:
    """The process, among a few smoothnesses and lengths, with the largest likelihood of the training functions minus
    their mean, times ``std``.

    Args:
        sets: the data.
        period: the torus of the kernel.
        std: a factor of the noise.
        factors: functions in addition to the kernel; ``None``: as many as improve the likelihood, at most a quarter of
            the data and 32. None if functions have their own sensors.
    """
    if not sets.train.shared:
        return GaussianProcess(likeliest(sets, period, std), NUGGET)
    places, values = sample(sets)
    around = period if places.shape[1] == 1 else None  # periodic copies in two or three dimensions are expensive
    tried = (Matern(nu, length, 1.0, around) for nu in SMOOTHNESS for length in LENGTHS)
    best = max((decompose(k, places, values, factors) for k in tried), key=lambda f: f.score)
    if around != period:
        best = decompose(replace(best.kernel, std=1.0, period=period), places, values, factors)
    law: Any = GaussianProcess(best.kernel, NUGGET)
    if best.shapes.shape[1]:
        law = Factored(law, places, *interpolated(places, best.shapes, period))
    return law if std == 1 else law.scaled(std)


def packed(law: Prior) -> dict[str, Any]:
    """A fitted process as plain values and tensors, for the statistics of a run."""
    if isinstance(law, Factored):
        kept = {"anchors": law.anchors, "smooth": _numbers(law.smooth), "weights": law.weights}
        return {"kernel": _numbers(law.kernel), **kept}
    assert isinstance(law, GaussianProcess)
    return {"kernel": _numbers(law.kernel)}


def _numbers(kernel: Kernel) -> dict[str, float | None]:
    return {name: getattr(kernel, name) for name in ("nu", "length", "std", "period")}


def unpacked(kept: Mapping[str, Any]) -> Prior:
    """The inverse of :func:`packed`."""
    fine = GaussianProcess(Matern(**kept["kernel"]), NUGGET)
    if "weights" not in kept:
        return fine
    return Factored(fine, kept["anchors"], Matern(**kept["smooth"]), kept["weights"])


def sample(sets: Sets) -> tuple[Tensor, Tensor]:
    """Positions ``(n, d)`` and centred values ``(M, n, C)`` of some training functions at some of their sensors."""
    some = torch.linspace(0, len(sets.train) - 1, min(FUNCTIONS, len(sets.train))).long().tolist()
    rows = [sets.train[i] for i in some]
    coords, count = rows[0][1]["coords"].double(), len(rows[0][0])
    random = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SENSORS].sort().values
    at = random if coords.shape[1] > 1 else torch.linspace(0, count - 1, min(count, SENSORS)).long()
    values = torch.stack([v for v, _ in rows]).double()[:, at]
    return coords[at], values - (values.mean(0) if len(rows) > 1 else 0.0)


def decompose(kernel: Matern, places: Tensor, values: Tensor, factors: int | None) -> Fit:
    """The best scale of a kernel and the best functions in addition to it. In coordinates in which the kernel is white,
    data have eigenvalues d_1 >= d_2 >= ...; with K functions the scale is the mean of the eigenvalues after the K-th,
    and the functions are along the first K eigenvectors with variances d_k minus the scale."""
    count, n, channels = values.shape
    inner = kernel.covariance(places[:, None] - places) + NUGGET * torch.eye(n, dtype=torch.float64)
    factor = torch.linalg.cholesky(inner)
    white = torch.linalg.solve_triangular(factor, values.transpose(0, 1).flatten(1), upper=False)
    white = white.unflatten(1, (count, channels)).transpose(0, 1).flatten(1)  # (M, n C)
    size = n * channels
    level, along = torch.linalg.eigh(white.T @ white / max(1, count - 1))
    level, along = level.flip(0).clamp_min(1e-300), along.flip(1)
    most = min(32, count // 4, size - 1)
    choices = range(most + 1) if factors is None else [min(factors, most)]
    rest = level.flip(0).cumsum(0).flip(0)
    logs, best = torch.cat([torch.zeros(1).to(level), level.log().cumsum(0)]), (-math.inf, 0, 1.0)
    for k in choices:
        scale = float(rest[k]) / (size - k)
        likely = -0.5 * (float(logs[k]) + (size - k) * math.log(max(scale, 1e-300)) + size)
        price = 0.5 * math.log(count) / count * (size * k - k * (k - 1) / 2 + 1)
        best = max(best, (likely - price, k, scale))
    score, k, scale = best
    shapes = factor @ (along[:, :k] * (level[:k] - scale).clamp_min(0).sqrt()).unflatten(0, (n, channels)).flatten(1)
    score -= channels * float(factor.diagonal().log().sum())
    return Fit(score, replace(kernel, std=scale**0.5), shapes.unflatten(1, (channels, k)).transpose(1, 2))


def interpolated(places: Tensor, shapes: Tensor, period: float) -> tuple[Kernel, Tensor]:
    """A kernel some sensors wide, and the weights with which its copies at ``places`` interpolate ``shapes``."""
    kernel = Matern(2.5, 4 * len(places) ** (-1 / places.shape[1]), 1.0, period)
    inner = kernel.covariance(places[:, None] - places) + 1e-9 * torch.eye(len(places), dtype=torch.float64)
    return kernel, torch.linalg.solve(inner, shapes.flatten(1)).view_as(shapes)


def likeliest(sets: Sets, period: float, std: float) -> Kernel:
    """The Matérn kernel, among a few smoothnesses and lengths, with the largest likelihood of functions at their own
    sensors, each kernel with its best scale (Rasmussen & Williams 2006, section 5.4)."""
    data = [sets.train[i] for i in range(min(30, len(sets.train)))]
    tried = (Matern(nu, length, 1.0, period if sets.dim == 1 else None) for nu in SMOOTHNESS for length in LENGTHS)
    _, scale, kernel = max(((*_alone(k, data), k) for k in tried), key=lambda found: found[0])
    return replace(kernel, std=std * scale**0.5, period=period)


def _alone(tried: Kernel, data: Sequence[tuple[Tensor, Mapping[str, Tensor]]]) -> tuple[float, float]:
    """The mean log-likelihood per value of functions under a kernel at its best scale, from at most 128 sensors of
    each, and the scale."""
    square = log = count = 0.0
    for values, cond in data:
        some = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:SENSORS]
        x, v = cond["coords"][some].double(), values[some].double()
        factor = torch.linalg.cholesky(tried.covariance(x[:, None] - x) + 1e-5 * torch.eye(len(x)).double())
        square += float(torch.linalg.solve_triangular(factor, v, upper=False).square().sum())
        log += float(2 * factor.diagonal().log().sum() * v.shape[1])
        count += v.numel()
    scale = max(square, 1e-300) / count
    return -0.5 * (math.log(scale) + log / count), max(scale, 1e-12)
