"""Flows that are known in closed form: laws, and the networks that belong to them exactly.

Each network here is what an infinitely trained network would be. A flow built with one must reach the known law: any
difference is an error of the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import Leaf
from fm_science.state import Context, expand_like


def matrix_root(s: Tensor) -> Tensor:
    """The symmetric square root of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(s)
    return vectors @ torch.diag(values.sqrt()) @ vectors.mT


def log_sum(log: Tensor) -> Tensor:
    """log sum exp over the last axis, of operations whose forward-mode derivatives are quick."""
    top = log.detach().amax(-1, keepdim=True)
    return (log - top).exp().sum(-1).log() + top.squeeze(-1)


def shares(log: Tensor) -> Tensor:
    """The softmax over the last axis."""
    weight = (log - log.detach().amax(-1, keepdim=True)).exp()
    return weight / weight.sum(-1, keepdim=True)


@dataclass(frozen=True)
class GaussianPair:
    """Straight lines between x0 ~ N(m0, S0) and x1 ~ N(m1, S1) with cross covariance C = Cov(x0, x1); states are
    ``(B, 1, d)``. The velocity is the conditional expectation of x1 - x0."""

    m0: Tensor
    s0: Tensor
    m1: Tensor
    s1: Tensor
    c: Tensor

    @classmethod
    def independent(cls, m0: Tensor, s0: Tensor, m1: Tensor, s1: Tensor) -> GaussianPair:
        return cls(m0, s0, m1, s1, torch.zeros_like(s0))

    @classmethod
    def optimal(cls, m0: Tensor, s0: Tensor, m1: Tensor, s1: Tensor) -> GaussianPair:
        """Paired by optimal transport, x1 = m1 + A (x0 - m0)."""
        root = matrix_root(s0)
        inverse = torch.linalg.inv(root)
        a = inverse @ matrix_root(root @ s1 @ root) @ inverse
        return cls(m0, s0, m1, s1, s0 @ a.mT)

    def law(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(B, d)`` and covariance ``(B, d, d)`` of x_t."""
        t, u = t[:, None], 1 - t[:, None]
        mean = u * self.m0 + t * self.m1
        t, u = t[..., None], u[..., None]
        return mean, u * u * self.s0 + t * t * self.s1 + t * u * (self.c + self.c.mT)

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        mean, covariance = self.law(t)
        r, q = t[:, None, None], 1 - t[:, None, None]
        gain = r * self.s1 - q * self.s0 + q * self.c.mT - r * self.c
        away = torch.linalg.solve(covariance, (x[:, 0] - mean)[..., None])
        return (self.m1 - self.m0 + (gain @ away)[..., 0])[:, None]

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of the data."""
        return torch.distributions.MultivariateNormal(self.m1, self.s1).log_prob(x[:, 0])


@dataclass(frozen=True)
class Mixture:
    """Data from a mixture of isotropic Gaussians, noise from N(0, std² I) independently, any schedule.

    Args:
        weight, mean, std: ``(K,)``, ``(K, d)``, ``(K,)``.
        noise: standard deviation of the prior.
    """

    weight: Tensor
    mean: Tensor
    std: Tensor
    noise: float = 1.0

    def _parts(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        alpha, sigma = alpha[:, None], sigma[:, None]
        variance = alpha**2 * self.std**2 + sigma**2 * self.noise**2  # (B, K)
        away = x[:, 0, None] - alpha[..., None] * self.mean  # (B, K, d)
        d = x.shape[-1]
        log = self.weight.log() - 0.5 * away.square().sum(-1) / variance - 0.5 * d * (2 * math.pi * variance).log()
        return log, away, variance

    def log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Log-density of alpha x1 + sigma x0."""
        return log_sum(self._parts(x, alpha, sigma)[0])

    def endpoint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x1 | x_t]."""
        log, away, variance = self._parts(x, alpha, sigma)
        each = self.mean + (alpha[:, None] * self.std**2 / variance)[..., None] * away
        return (shares(log)[..., None] * each).sum(1, keepdim=True)

    def noise_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x_t]."""
        log, away, variance = self._parts(x, alpha, sigma)
        each = (sigma[:, None] * self.noise**2 / variance)[..., None] * away
        return (shares(log)[..., None] * each).sum(1, keepdim=True)

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The gradient of the log-density of x_t."""
        log, away, variance = self._parts(x, alpha, sigma)
        return -(shares(log)[..., None] * away / variance[..., None]).sum(1, keepdim=True)

    def network(self, schedule: Any, kind: str) -> Callable[[Tensor, Tensor, Context], Tensor]:
        """The exact network: ``kind`` is "endpoint", "noise", "score" or "velocity"."""

        def predict(x: Tensor, t: Tensor, context: Context) -> Tensor:
            alpha, sigma = schedule(t)
            if kind != "velocity":
                return getattr(self, "noise_mean" if kind == "noise" else kind)(x, alpha, sigma)
            _, _, dalpha, dsigma = schedule.rates(t)
            x1, x0 = self.endpoint(x, alpha, sigma), self.noise_mean(x, alpha, sigma)
            return expand_like(dalpha, x) * x1 + expand_like(dsigma, x) * x0

        return predict

    def draw(self, n: int) -> Tensor:
        """Data ``(n, 1, d)``."""
        k = torch.multinomial(self.weight, n, replacement=True)
        return (self.mean[k] + self.std[k, None] * torch.randn(n, self.mean.shape[1]))[:, None]


def three_modes(noise: float = 1.0) -> Mixture:
    """A mixture in the plane."""
    weight, std = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.5, 0.3, 0.8])
    return Mixture(weight, torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]]), std, noise)


@dataclass(frozen=True)
class Empirical:
    """Finitely many data on a space, joined to noise by geodesics with k = t (Chen & Lipman 2024).

    With v = log_y(x), the law of x_t given its endpoint y is p0(exp_y(v / (1 - t))) J(v / (1 - t)) / (J(v) (1 - t)^d),
    J the volume density of normal coordinates; the velocity is the mean of log_x(y) / (1 - t) under these weights.

    Args:
        leaf: the space.
        points: data, ``(M, *event)``.
        base: log-density of the noise.
        volume: log J of a distance.
        radius: of injectivity.
    """

    leaf: Leaf
    points: Tensor
    base: Callable[[Tensor], Tensor]
    volume: Callable[[Tensor], Tensor]
    radius: float = math.inf

    def _weights(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x | y) ``(B, M)``."""
        rest = (1 - t)[:, None]
        y = self.points.expand(len(x), *self.points.shape)
        v = self.leaf.log(y, x.expand_as(y))
        w = v / expand_like(rest, v)
        r = self.leaf.dot(y, v, v).clamp_min(1e-300).sqrt()
        log = self.base(self.leaf.exp(y, w)) + self.volume(r / rest) - self.volume(r)
        return torch.where(r / rest < self.radius, log - self.leaf.dimension * rest.log(), -torch.inf)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """Log-density of x_t at ``x`` ``(B, 1, *event)``."""
        return log_sum(self._weights(x, t)) - math.log(len(self.points))

    def __call__(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        y = self.points.expand(len(x), *self.points.shape)
        u = self.leaf.log(x.expand_as(y), y)
        weight = shares(self._weights(x, t))
        return (expand_like(weight, u) * u).sum(1, keepdim=True) / expand_like(1 - t, u[:, :1])


def sphere_volume(dim: int) -> Callable[[Tensor], Tensor]:
    """log (sin r / r)^(dim - 1)."""
    return lambda r: (dim - 1) * torch.sinc(r / math.pi).abs().clamp_min(1e-300).log()


def hyperbolic_volume(dim: int) -> Callable[[Tensor], Tensor]:
    """log (sinh r / r)^(dim - 1)."""
    return lambda r: (dim - 1) * (torch.where(r > 1e-4, r, 1.0).sinh() / torch.where(r > 1e-4, r, 1.0)).log()


def rotation_volume(r: Tensor) -> Tensor:
    """log (sin(r/2) / (r/2))²."""
    return 2 * torch.sinc(r / (2 * math.pi)).abs().clamp_min(1e-300).log()


def circle_velocity(mean: float, std: float) -> tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Uniform noise to a wrapped normal on the circle: the velocity, and the log-density of x_t.

    Given x_t = x the datum lies at x + w with |w| < a = pi (1 - t), with the law of the data there; the velocity is
    E[w] / (1 - t).
    """
    images = 2 * math.pi * torch.arange(-6.0, 7.0)

    def moments(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a = (math.pi * (1 - t))[:, None]
        offset = torch.remainder(mean - x.reshape(-1, 1) + math.pi, 2 * math.pi) - math.pi + images
        low, high = (-a - offset) / std, (a - offset) / std
        # the difference of two values of Phi on the side where it does not cancel
        flip = low > 0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        bell = (torch.exp(-0.5 * high**2) - torch.exp(-0.5 * low**2)) / math.sqrt(2 * math.pi)
        first = offset * mass - torch.where(flip, -1.0, 1.0) * std * bell
        return mass.sum(1), first.sum(1)

    def velocity(x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        mass, first = moments(x, t)
        return (first / (mass * (1 - t))).reshape(x.shape)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return moments(x, t)[0].log() - (2 * math.pi * (1 - t)).log()

    return velocity, log_prob


def von_mises_fisher(kappa: float, nodes: tuple[int, int] = (60, 64)) -> tuple[Callable[..., Tensor], Callable]:
    """Uniform noise to the von Mises-Fisher law around the last axis of S²: velocity and log-density of x_t, by
    quadrature in geodesic polar coordinates around x.

    p_t(x | y) = sin(d / (1 - t)) / ((1 - t) 4 pi sin d) for d = distance(x, y) < pi (1 - t), and the area element is
    sin d; so with d = (1 - t) s the weights are q(y) sin(s) / (4 pi) ds dphi.
    """
    import numpy as np

    node, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(nodes[0]))
    s, ds = 0.5 * math.pi * (node + 1), 0.5 * math.pi * weight
    angle = 2 * math.pi * torch.arange(nodes[1], dtype=s.dtype) / nodes[1]
    constant = math.log(kappa) - math.log(2 * math.pi) - kappa - math.log1p(-math.exp(-2 * kappa))

    def integrals(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        p = x[:, 0]
        axis = torch.nn.functional.one_hot(p.detach().abs().argmin(-1), 3).to(p)
        e = torch.linalg.cross(p, axis)
        e = e / e.norm(dim=-1, keepdim=True)
        f = torch.linalg.cross(p, e)
        ways = angle.cos()[:, None] * e[:, None] + angle.sin()[:, None] * f[:, None]  # (B, A, 3)
        d = (1 - t)[:, None] * s  # (B, S)
        height = d.cos()[..., None] * p[:, None, None, 2] + d.sin()[..., None] * ways[:, None, :, 2]
        mass = torch.exp(constant + kappa * height) * (s.sin() * ds)[:, None] / (4 * math.pi) * 2 * math.pi / nodes[1]
        first = torch.einsum("bsa,bs,baj->bj", mass, d, ways)
        return mass.sum((1, 2)), first

    def velocity(x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        mass, first = integrals(x, t)
        return (first / (mass * (1 - t))[:, None])[:, None]

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return integrals(x, t)[0].log()

    return velocity, log_prob


@dataclass(frozen=True)
class TwoSites:
    """Two dependent classes with a known joint law, noise drawn for each site from ``noise``: the exact posterior of
    each site given both.

    Args:
        joint: ``(C, C)``, zero for classes that data never hold.
        noise: ``(C,)`` probabilities of the prior.
        schedule: its alpha is the share of sites that have arrived.
    """

    joint: Tensor
    noise: Tensor
    schedule: Any

    def __call__(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        k = self.schedule(t)[0][:, None, None]
        likely = k * torch.eye(len(self.noise)) + (1 - k) * self.noise  # p(x_t | x1) as (B, x1, x_t)
        first, second = (torch.einsum("bij,bj->bi", likely, x[:, n]) for n in (0, 1))
        posterior = self.joint * first[:, :, None] * second[:, None, :]
        return torch.stack([posterior.sum(2), posterior.sum(1)], 1).clamp_min(1e-300).log()
