"""Random functions: Gaussian processes at the sensors of a function.

A kernel gives the covariance of the values at two places. Because it is a function of the places alone, the same prior
serves every resolution: values on a coarse grid have the law of a fine draw restricted to it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.priors.base import Prior, bound
from fm_science.priors.gaussian import positive
from fm_science.spaces.base import total
from fm_science.spaces.numerics import root
from fm_science.state import Context, State, pin


class Kernel(ABC):
    """A stationary covariance. ``std`` is the standard deviation of a value."""

    std: float
    period: float | None = None  #: the period along each axis, where there is one

    @abstractmethod
    def covariance(self, gap: Tensor) -> Tensor:
        """The covariance of values whose places differ by ``gap`` ``(..., d)``: ``(...)``."""


@dataclass(frozen=True)
class RBF(Kernel):
    """std² exp(-|r|² / (2 length²)): smooth functions.

    Args:
        length: correlation length, in the units of the coordinates.
        std: standard deviation of a value.
    """

    length: float
    std: float = 1.0

    def __post_init__(self) -> None:
        positive("RBF", length=self.length, std=self.std)

    def covariance(self, gap: Tensor) -> Tensor:
        return self.std**2 * torch.exp(-0.5 * (gap / self.length).square().sum(-1))


@dataclass(frozen=True)
class Matern(Kernel):
    """The Matérn kernels of half-integer order (Rasmussen & Williams 2006, equations 4.16 and 4.17): functions with
    nu - 1/2 derivatives.

    Args:
        nu: smoothness: 0.5, 1.5 or 2.5.
        length: correlation length, in the units of the coordinates.
        std: standard deviation of a value.
    """

    nu: float
    length: float
    std: float = 1.0

    def __post_init__(self) -> None:
        positive("Matern", length=self.length, std=self.std)
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"Matern(nu={self.nu}): expected 0.5, 1.5 or 2.5.")

    def covariance(self, gap: Tensor) -> Tensor:
        r = math.sqrt(2 * self.nu) * root((gap / self.length).square().sum(-1))
        terms = {0.5: torch.ones_like(r), 1.5: 1 + r, 2.5: 1 + r + r * r / 3}
        return self.std**2 * terms[self.nu] * torch.exp(-r)


@dataclass(frozen=True)
class Periodic(Kernel):
    """std² exp(-2 sum_i sin²(pi r_i / period) / length²): smooth functions on a torus (MacKay 1998).

    Args:
        length: correlation length in units of period / pi.
        period: of each coordinate, in their units.
        std: standard deviation of a value.
    """

    length: float
    period: float = 1.0  # type: ignore[assignment]
    std: float = 1.0

    def __post_init__(self) -> None:
        positive("Periodic", length=self.length, period=self.period, std=self.std)

    def covariance(self, gap: Tensor) -> Tensor:
        sine = torch.sin(math.pi * gap / self.period) / self.length
        return self.std**2 * torch.exp(-2 * sine.square().sum(-1))


@dataclass(frozen=True)
class GaussianProcess(Prior):
    """Independent centred Gaussian processes on the channels of :class:`~fm_science.spaces.Functions`, whose sensors
    stand at ``cond["coords"]`` ``(B, N, d)``. A periodic kernel on a regular row-major grid of a whole period
    (``cond["grid"]`` ``(B, d)``) takes N log N operations, other sensors N³.

    Args:
        kernel: the covariance.
        nugget: variance of independent noise at each sensor, as a fraction of the kernel's: it keeps the covariance
            of smooth functions invertible, and is part of the law.
    """

    kernel: Kernel
    nugget: float = 1e-6
    gaussian = True

    def sample(self, space: Any, context: Context) -> State:
        bound_space, like = bound(self, space, context)
        coords, white = self._coords(bound_space, like), torch.randn(bound_space.shape, device=like.device)
        grid = self._periodic_grid(bound_space, coords)
        if grid is not None:
            colour = self._spectrum(coords, grid).sqrt()[..., None]
            axes = tuple(range(1, 1 + len(grid)))
            x = torch.fft.ifftn(colour * torch.fft.fftn(white.unflatten(1, grid), dim=axes), dim=axes).real
            return bound_space.project(x.flatten(1, len(grid)))
        return bound_space.project((self._factor(bound_space, coords) @ white.double()).to(white))

    def log_prob(self, space: Any, x: Tensor) -> Tensor:
        coords = self._coords(space, x)
        grid = self._periodic_grid(space, coords)
        x = pin(space.live, x, 0.0)
        if grid is not None:
            spectrum, axes = self._spectrum(coords, grid), tuple(range(1, 1 + len(grid)))
            waves = torch.fft.fftn(x.unflatten(1, grid), dim=axes, norm="ortho").abs().square()
            square, logdet = total(waves / spectrum[..., None]), total(spectrum.log())
        else:
            factor = self._factor(space, coords)
            white = torch.linalg.solve_triangular(factor.expand(len(x), -1, -1), x.double(), upper=False)
            square, logdet = total(white.square()), 2 * total(factor.diagonal(dim1=-2, dim2=-1).log())
        square, logdet = square.to(x), logdet.to(x)
        return -0.5 * (square + space.leaf.channels * logdet + space.dimension * math.log(2 * math.pi))

    def scaled(self, factor: float) -> GaussianProcess:
        from dataclasses import replace

        return replace(self, kernel=replace(self.kernel, std=self.kernel.std * factor))  # type: ignore[type-var]

    def _coords(self, space: Any, like: Tensor) -> Tensor:
        coords = getattr(space, "coords", None)
        if coords is None:
            raise TypeError(
                f"{self!r} needs Functions with the places of their sensors: Context(mask, {{'coords': (B, N, d)}})."
            )
        return coords.to(like)

    @property
    def _noise(self) -> float:
        return self.nugget * self.kernel.std**2

    def _factor(self, space: Any, coords: Tensor) -> Tensor:
        """The Cholesky factor ``(B or 1, N, N)``, in double precision, of the covariance of the live sensors; one where
        all samples share their sensors."""
        live, coords = space.live, coords.double()
        if bool((coords == coords[:1]).all() & (live == live[:1]).all()):
            coords, live = coords[:1], live[:1]
        covariance = self.kernel.covariance(coords[:, :, None] - coords[:, None])
        covariance = torch.where(live[:, :, None] & live[:, None], covariance, 0.0)
        diagonal = torch.where(live, self._noise, 1.0)
        return torch.linalg.cholesky(covariance + torch.diag_embed(diagonal.to(covariance)))

    def _periodic_grid(self, space: Any, coords: Tensor) -> tuple[int, ...] | None:
        """The shape of the regular grid that all samples share over one period, if there is one."""
        if self.kernel.period is None or space.grid is None:
            return None
        grid = space.grid[0]
        shape = tuple(grid.tolist())
        if math.prod(shape) != coords.shape[1] or not bool(space.live.all() & (space.grid == grid).all()):
            return None
        axes = [torch.arange(n, device=coords.device) * (self.kernel.period / n) for n in shape]
        regular = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        gap = coords - coords[:, :1] - regular.to(coords)
        return shape if bool((gap.abs() < 1e-4 * self.kernel.period / max(shape)).all()) else None

    def _spectrum(self, coords: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The eigenvalues ``(1, *grid)`` of the covariance on a periodic grid."""
        first = self.kernel.covariance(coords[0].double() - coords[0, 0].double()).reshape(1, *grid)
        values = torch.fft.fftn(first, dim=tuple(range(1, 1 + len(grid)))).real.clamp_min(0)
        return (values + self._noise).to(coords.dtype)
