"""Gaussian distributions: on linear spaces, wrapped around curved ones, and along a chain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.priors.base import Prior, bound, suggestion
from fm_science.spaces.base import Space, total
from fm_science.state import Context, State, expand_like, masked_where


def log_normaliser(std: float) -> float:
    """The log of the integral of exp(-x² / (2 std²)) over the line."""
    return 0.5 * math.log(2 * math.pi) + math.log(std)


def positive(prior: str, **values: float) -> None:
    """Raises ValueError if a parameter is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{prior}({name}={value}): {name} must be positive.")


@dataclass(frozen=True)
class Normal(Prior):
    """Independent Gaussians on a linear space, projected onto it.

    Args:
        std: standard deviation of each coordinate, in the units of the space.
    """

    std: float = 1.0
    gaussian = True

    def __post_init__(self) -> None:
        positive("Normal", std=self.std)

    @property
    def coordinate_std(self) -> float:
        return self.std

    def sample(self, space: Space, context: Context) -> State:
        bound_space, like = bound(self, space, context)
        if not bound_space.linear:
            raise TypeError(f"Normal() needs a linear space, and {space!r} is not. Use {suggestion(space)}.")
        return bound_space.project(torch.randn(bound_space.shape, device=like.device).mul_(self.std))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        square = total(space.tangent(x, x).square())
        return -0.5 * square / self.std**2 - space.dimension.to(x.dtype) * log_normaliser(self.std)

    def correlate(self, space: Space, u: Tensor) -> Tensor:
        return self.std**2 * space.tangent(u, u)

    def scaled(self, factor: float) -> Normal:
        return Normal(self.std * factor)


@dataclass(frozen=True)
class Wrapped(Prior):
    """A Gaussian in the tangent space of the origin, mapped to the space by ``exp`` (Mardia & Jupp 2000, section 3.5;
    Nagano et al. 2019). Its density at y is a sum over all geodesics v from the origin to y:

        p(y) = sum_v N(v; 0, std²) / |det d exp(v)|,

    which on spheres and rotations is infinite, though integrable, where all geodesics meet again. On linear spaces it
    is :class:`Normal`.

    Args:
        std: standard deviation along each direction, in the units of the metric.
    """

    std: float

    def __post_init__(self) -> None:
        positive("Wrapped", std=self.std)

    def sample(self, space: Space, context: Context) -> State:
        bound_space, like = bound(self, space, context)
        if bound_space.linear:
            return Normal(self.std).sample(space, context)
        if not bound_space.smooth:
            raise TypeError(f"Wrapped needs a smooth space, and {space!r} has classes. Use {suggestion(space)}.")
        leaf = bound_space.leaf
        origin = leaf.origin(like).expand(bound_space.shape)
        return bound_space.project(leaf.exp(origin, self.std * leaf.gaussian(origin)))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        if space.linear:
            return Normal(self.std).log_prob(space, x)
        leaf = space.leaf
        u = leaf.log(leaf.origin(x).expand_as(x), x)
        square, stretch = leaf.all_geodesics(u, turns=1 + math.ceil(self.std))
        factors = torch.logsumexp(-0.5 * square / self.std**2 - stretch, 0)
        log = factors.sum(-1) - leaf.dimension * log_normaliser(self.std)
        return total(masked_where(space.free_mask, log, 0.0))


@dataclass(frozen=True)
class Harmonic(Prior):
    """Point clouds as ideal chains: neighbours along the sites are joined by springs, with density proportional to
    exp(-sum_i |x_{i+1} - x_i|² / (2 step²)) on centred clouds (Jing et al. 2023; Stärk et al. 2024). The steps along
    the chain are independent Gaussians.

    Args:
        step: standard deviation of each coordinate of a step from site to site, in the units of the space.
    """

    step: float = 1.0
    gaussian = True

    def __post_init__(self) -> None:
        positive("Harmonic", step=self.step)

    def sample(self, space: Space, context: Context) -> State:
        bound_space, like = bound(self, space, context)
        if not bound_space.linear or bound_space.mask.ndim != 2:
            raise TypeError(f"Harmonic() needs points on nodes of a linear space, not {space!r}.")
        steps = self.step * torch.randn(bound_space.shape, device=like.device)
        x = masked_where(bound_space.mask, masked_where(bound_space.mask, steps, 0.0).cumsum(1), 0.0)
        mean = x.sum(1, keepdim=True) / expand_like(bound_space.mask.sum(1).clamp_min(1), x)
        return bound_space.project(x - mean)

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        if not space.centred:
            raise TypeError(f"Harmonic() has a density on Centered without frozen sites only, not on {space!r}.")
        count = space.mask.sum(1)
        joined = space.mask[:, 1:] & space.mask[:, :-1]
        square = total(masked_where(joined, x.diff(dim=1), 0.0).square())
        # the steps are linear in the centred cloud, and the determinant of that map is sqrt(N) per coordinate
        volume = 0.5 * space.leaf.dimension * count.clamp_min(1).to(x).log()
        return -0.5 * square / self.step**2 - space.dimension.to(x.dtype) * log_normaliser(self.step) + volume

    def correlate(self, space: Space, u: Tensor) -> Tensor:
        # a cloud is the centred sum of its steps, and both maps occur again in the transpose
        u = masked_where(space.mask, space.tangent(u, u).flip(1).cumsum(1).flip(1), 0.0)
        return self.step**2 * space.tangent(u, u.cumsum(1))

    def scaled(self, factor: float) -> Harmonic:
        return Harmonic(self.step * factor)
