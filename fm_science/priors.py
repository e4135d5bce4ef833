"""Priors: where the noise comes from.

A prior draws points of a bound space; where it has a density it also gives the logarithm of that density with respect
to the Riemannian volume, over the free real sites only. Every draw comes from torch's generator, on the device of the
context and in torch's default dtype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import Product, Sites
from fm_science.spaces.rotations import rotation_exp
from fm_science.state import Context, State


class Prior(ABC):
    """A law of noise on a space."""

    gaussian: bool = False  #: whether it is a centred Gaussian law on a linear space

    @abstractmethod
    def sample(self, space: Any, context: Context) -> State:
        """One point of ``space`` for each sample of ``context``. Raises TypeError where the law is not defined."""

    def log_prob(self, space: Any, x: State) -> Tensor:
        """Log-density in nats at points of a bound space, ``(B,)``. Raises TypeError where there is none."""
        raise TypeError(f"{self!r} has no density on {space!r}.")

    def scaled(self, factor: float) -> Prior:
        """The law of ``factor`` times the noise. Raises TypeError where noise has no scale."""
        raise TypeError(f"{self!r} cannot be scaled.")


def _bound(space: Any, context: Context) -> tuple[Any, Tensor]:
    """The bound space and an empty tensor that carries dtype and device."""
    return space.bind(context), torch.empty((), device=context.mask.device)


@dataclass(frozen=True)
class Normal(Prior):
    """Independent Gaussians on a linear space, projected onto it.

    Args:
        std: standard deviation of each coordinate, in the units of the space.
    """

    std: float = 1.0
    gaussian = True

    def sample(self, space: Any, context: Context) -> State:
        if isinstance(space, Product):
            raise TypeError(_product_message(space, "Normal()"))
        if not space.linear:
            raise TypeError(f"Normal() needs a linear space, and {space!r} is curved. Use Uniform() or Wrapped(std).")
        space, like = _bound(space, context)
        return space.project(self.std * torch.randn(space.shape, device=like.device))

    def log_prob(self, space: Any, x: Tensor) -> Tensor:
        square = space.tangent(x, x).square().flatten(1).sum(1)
        return -0.5 * square / self.std**2 - space.dimension * (0.5 * math.log(2 * math.pi) + math.log(self.std))

    def scaled(self, factor: float) -> Normal:
        return Normal(self.std * factor)


@dataclass(frozen=True)
class Uniform(Prior):
    """The uniform law on a compact space (sphere, torus, rotations)."""

    def sample(self, space: Any, context: Context) -> State:
        if isinstance(space, Product):
            raise TypeError(_product_message(space, "Uniform()"))
        space, like = _bound(space, context)
        return space.project(space.leaf.uniform(space.mask.shape, like))

    def log_prob(self, space: Sites, x: Tensor) -> Tensor:
        sites = space.live.reshape(len(space.mask), -1).sum(1)
        return -sites * math.log(space.leaf.volume)


@dataclass(frozen=True)
class IGSO3(Prior):
    """The isotropic Gaussian on SO(3) around the identity: the heat kernel (Nikolayev & Savyolova 1970; Leach et al.
    2022), whose angle omega in [0, pi] has density

        f(omega) (1 - cos omega) / pi,
        f(omega) = sum_l (2l + 1) exp(-l(l + 1) std² / 2) sin((l + 1/2) omega) / sin(omega / 2).

    Args:
        std: standard deviation of a small rotation about each axis, in radians; at least 0.05.
    """

    std: float = 1.5
    terms: int = 200

    def __post_init__(self) -> None:
        if self.std < 0.05:
            raise ValueError(f"IGSO3(std={self.std}) needs std >= 0.05 for its series to converge.")

    def _kernel(self, omega: Tensor) -> Tensor:
        degree = torch.arange(self.terms, dtype=omega.dtype, device=omega.device)
        half = 0.5 * omega[..., None]
        # sin((2l + 1) h) / sin(h) without 0 / 0: both sides over h
        ratio = (2 * degree + 1) * torch.sinc((2 * degree + 1) * half / math.pi) / torch.sinc(half / math.pi)
        weight = (2 * degree + 1) * torch.exp(-0.5 * degree * (degree + 1) * self.std**2)
        return (weight * ratio).sum(-1)

    def sample(self, space: Any, context: Context) -> State:
        space, like = _bound(space, context)
        omega = torch.linspace(0, math.pi, 4097, dtype=torch.float64, device=like.device)
        density = self._kernel(omega).clamp_min(0) * (1 - omega.cos())
        cdf = torch.cat([density.new_zeros(1), (density[1:] + density[:-1]).cumsum(0)])
        cdf = cdf / cdf[-1]
        u = torch.rand(space.mask.shape, dtype=torch.float64, device=like.device)
        right = torch.searchsorted(cdf, u.contiguous()).clamp(1, len(cdf) - 1)
        step = (u - cdf[right - 1]) / (cdf[right] - cdf[right - 1]).clamp_min(1e-300)
        angle = (omega[right - 1] + step.clamp(0, 1) * omega[1]).to(like.dtype)
        axis = torch.nn.functional.normalize(torch.randn(*angle.shape, 3, device=like.device), dim=-1)
        return space.project(rotation_exp(angle[..., None] * axis))

    def log_prob(self, space: Sites, x: Tensor) -> Tensor:
        identity = space.leaf.origin(x).expand_as(x)
        omega = space.leaf.log(identity, x).norm(dim=-1)
        logp = self._kernel(omega.double()).clamp_min(1e-300).log().to(x.dtype) - math.log(space.leaf.volume)
        return torch.where(space.live, logp, 0.0).reshape(len(x), -1).sum(1)


class ProductPrior(Prior):
    """Independent priors on the parts of a product space, with the parts' names."""

    def __init__(self, **parts: Prior) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"ProductPrior({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    def sample(self, space: Product, context: Context) -> State:
        if set(self.parts) != set(space.parts):
            raise ValueError(f"{self!r} has parts {sorted(self.parts)}, but the space has {sorted(space.parts)}.")
        return {k: p.sample(space.parts[k], context.part(k)) for k, p in self.parts.items()}

    def log_prob(self, space: Product, x: State) -> Tensor:
        return sum(p.log_prob(space.parts[k], x[k]) for k, p in self.parts.items())  # type: ignore

    def replaced(self, **parts: Prior) -> ProductPrior:
        """The same prior with some parts exchanged."""
        return ProductPrior(**{**self.parts, **parts})


def _product_message(space: Product, name: str) -> str:
    parts = ", ".join(f"{k}={name if s.linear else 'Uniform()'}" for k, s in space.parts.items())
    return f"{name} is a law for one space; on a product write ProductPrior({parts})."
