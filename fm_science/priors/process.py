"""Random functions: Gaussian processes at the sensors of a function.

A kernel gives the covariance of the values at two positions. Because it is a function of the positions alone, the same
prior is valid at every resolution: values on a coarse grid have the distribution of a fine sample restricted to it.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fm_science.priors.base import Prior, bound
from fm_science.priors.gaussian import positive
from fm_science.spaces.base import Space, total
from fm_science.spaces.flat import BoundFunctions
from fm_science.spaces.numerics import safe_sqrt
from fm_science.state import Context, State, masked_where


class Kernel(ABC):
    """A stationary covariance. ``std`` is the standard deviation of a value."""

    std: float
    period: float | None = None  #: the period along each axis, if there is one

    @abstractmethod
    def covariance(self, gap: Tensor) -> Tensor:
        """The covariance of values whose positions differ by ``gap`` ``(..., d)``: ``(...)``."""


class Wrapping(Kernel):
    """A kernel of distance that may be made periodic on a torus: the sum of its copies one period apart, which has the
    plane kernel's spectral density at the frequencies of the torus, divided by its value at zero."""

    length: float

    @abstractmethod
    def plane(self, gap: Tensor) -> Tensor:
        """The covariance without a period, for a value of variance one."""

    @property
    @abstractmethod
    def reach(self) -> float:
        """The distance, in lengths, beyond which the covariance is below 1e-8."""

    def covariance(self, gap: Tensor) -> Tensor:
        if self.period is None:
            return self.std**2 * self.plane(gap)
        gap = torch.remainder(gap + self.period / 2, self.period) - self.period / 2
        turns = range(-(most := math.ceil(self.reach * self.length / self.period)), most + 1)
        shifts = [gap.new_tensor(k) * self.period for k in itertools.product(turns, repeat=gap.shape[-1])]
        total = sum((self.plane(gap + shift) for shift in shifts), torch.zeros_like(gap[..., 0]))
        return self.std**2 * total / sum(self.plane(shift) for shift in shifts)


@dataclass(frozen=True)
class RBF(Wrapping):
    """std² exp(-|r|² / (2 length²)): smooth functions.

    Args:
        length: correlation length, in the units of the coordinates.
        std: standard deviation of a value.
        period: makes the kernel periodic with this period along each axis; ``None``: it is not periodic.
    """

    length: float
    std: float = 1.0
    period: float | None = None
    reach = 6.1

    def __post_init__(self) -> None:
        positive("RBF", length=self.length, std=self.std, **_optional(period=self.period))

    def plane(self, gap: Tensor) -> Tensor:
        return torch.exp(-0.5 * (gap / self.length).square().sum(-1))


@dataclass(frozen=True)
class Matern(Wrapping):
    """The Matérn kernels of half-integer order (Rasmussen & Williams 2006, equations 4.16 and 4.17): functions with
    nu - 1/2 derivatives.

    Args:
        nu: smoothness: 0.5, 1.5 or 2.5.
        length: correlation length, in the units of the coordinates.
        std: standard deviation of a value.
        period: makes the kernel periodic with this period along each axis; ``None``: it is not periodic.
    """

    nu: float
    length: float
    std: float = 1.0
    period: float | None = None

    def __post_init__(self) -> None:
        positive("Matern", length=self.length, std=self.std, **_optional(period=self.period))
        if self.nu not in (0.5, 1.5, 2.5):
            raise ValueError(f"Matern(nu={self.nu}): expected 0.5, 1.5 or 2.5.")

    @property
    def reach(self) -> float:
        return {0.5: 18.5, 1.5: 12.6, 2.5: 10.8}[self.nu]

    def plane(self, gap: Tensor) -> Tensor:
        r = math.sqrt(2 * self.nu) * safe_sqrt((gap / self.length).square().sum(-1))
        terms = {0.5: torch.ones_like(r), 1.5: 1 + r, 2.5: 1 + r + r * r / 3}
        return terms[self.nu] * torch.exp(-r)


@dataclass(frozen=True)
class Periodic(Kernel):
    """std² exp(-2 sum_i sin²(pi r_i / period) / length²): smooth functions on a torus (MacKay 1998).

    Args:
        length: correlation length in units of period / pi.
        period: of each coordinate, in their units.
        std: standard deviation of a value.
    """

    length: float
    period: float = 1.0
    std: float = 1.0

    def __post_init__(self) -> None:
        positive("Periodic", length=self.length, period=self.period, std=self.std)

    def covariance(self, gap: Tensor) -> Tensor:
        sine = torch.sin(math.pi * gap / self.period) / self.length
        return self.std**2 * torch.exp(-2 * sine.square().sum(-1))


def _optional(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class GaussianProcess(Prior):
    """Independent centred Gaussian processes on the channels of :class:`~fm_science.spaces.Functions`, whose sensors
    are at ``cond["coords"]`` ``(B, N, d)``. A periodic kernel on a regular row-major grid (``cond["grid"]``
    ``(B, d)``) whose spacing divides the period takes N log N operations; on a part of the period the whole is drawn
    and cropped, and densities take N³ operations, as everything does on other sensors. The factor of sensors that all
    samples share is cached for the next call.

    Args:
        kernel: the covariance.
        nugget: variance of independent noise at each sensor, as a fraction of the kernel's: it keeps the covariance
            of smooth functions invertible, and is part of the distribution.
    """

    kernel: Kernel
    nugget: float = 1e-6
    memory: dict = field(default_factory=dict, init=False, repr=False, compare=False)
    gaussian = True

    def sample(self, space: Space, context: Context) -> State:
        bound_space, like = bound(self, space, context)
        coords = self._coords(bound_space, like)
        torus = self._torus(bound_space, coords)
        if torus is None:
            white = torch.randn(bound_space.shape, device=like.device)
            return bound_space.project((self._factor(bound_space, coords) @ white.double()).to(white))
        whole, grid = torus
        white = torch.randn((len(coords), *whole, *bound_space.leaf.event), device=like.device)
        axes = tuple(range(1, 1 + len(grid)))
        colour = self._spectrum(whole, like).narrow(len(grid), 0, whole[-1] // 2 + 1).sqrt()[..., None]
        x = torch.fft.irfftn(colour * torch.fft.rfftn(white, dim=axes), s=whole, dim=axes)
        part = x[(slice(None), *(slice(n) for n in grid))]
        return bound_space.project(part.flatten(1, len(grid)))

    def log_prob(self, space: Space, x: Tensor) -> Tensor:
        coords = self._coords(space, x)
        whole, grid = self._torus(space, coords) or (None, None)
        x = masked_where(space.free_mask, x, 0.0)
        if grid is not None and grid == whole:
            spectrum, axes = self._spectrum(grid, x), tuple(range(1, 1 + len(grid)))
            waves = torch.fft.fftn(x.unflatten(1, grid), dim=axes, norm="ortho").abs().square()
            square, logdet = total(waves / spectrum[..., None]), total(spectrum.log())
        else:
            factor = self._factor(space, coords)
            white = torch.linalg.solve_triangular(factor.expand(len(x), -1, -1), x.double(), upper=False)
            square, logdet = total(white.square()), 2 * total(factor.diagonal(dim1=-2, dim2=-1).log())
        square, logdet = square.to(x), logdet.to(x)
        return -0.5 * (square + space.leaf.event[0] * logdet + space.dimension.to(x.dtype) * math.log(2 * math.pi))

    def correlate(self, space: Space, u: Tensor) -> Tensor:
        coords = self._coords(space, torch.empty((), dtype=u.dtype, device=u.device))
        torus, u = self._torus(space, coords), masked_where(space.free_mask, u, 0.0)
        if torus is None:
            factor = self._factor(space, coords)
            return masked_where(space.free_mask, (factor @ (factor.mT @ u.double())).to(u.dtype), 0.0)
        whole, grid = torus
        axes = tuple(range(1, 1 + len(grid)))
        spectrum = self._spectrum(whole, coords.new_empty(())).narrow(len(grid), 0, whole[-1] // 2 + 1)[..., None]
        around = torch.fft.rfftn(u.unflatten(1, grid), s=whole, dim=axes)  # zero where the grid has no sensors
        x = torch.fft.irfftn(spectrum * around, s=whole, dim=axes)
        return x[(slice(None), *(slice(n) for n in grid))].flatten(1, len(grid))

    def scaled(self, factor: float) -> GaussianProcess:
        known = self.memory.setdefault("scaled", {})  # cached, with its own cache
        if factor not in known:
            known[factor] = replace(self, kernel=replace(self.kernel, std=self.kernel.std * factor))  # type: ignore[type-var]
        return known[factor]

    def _coords(self, space: Space, like: Tensor) -> Tensor:
        if not isinstance(space, BoundFunctions) or space.coords is None:
            raise TypeError(
                f"{self!r} needs Functions with coordinates of the sensors: Context(mask, {{'coords': (B, N, d)}})."
            )
        return space.coords.to(like)

    @property
    def _noise(self) -> float:
        return self.nugget * self.kernel.std**2

    def _factor(self, space: Space, coords: Tensor) -> Tensor:
        """The Cholesky factor ``(B or 1, N, N)``, in double precision, of the covariance of the real sensors; one if
        all samples share their sensors."""
        live, coords = space.free_mask, coords.double()
        shared = bool((coords == coords[:1]).all() & (live == live[:1]).all())
        if not shared:
            return self._cholesky(live, coords)
        live, coords = live[:1], coords[:1]
        for known_live, known_coords, factor in self.memory.get("factors", ()):
            near = known_coords.device == coords.device
            if near and torch.equal(known_coords, coords) and torch.equal(known_live, live):
                return factor
        factor = self._cholesky(live, coords)
        self.memory["factors"] = [(live, coords, factor), *self.memory.get("factors", ())][:4]
        return factor

    def _cholesky(self, live: Tensor, coords: Tensor) -> Tensor:
        covariance = self.kernel.covariance(coords[:, :, None] - coords[:, None])
        covariance = torch.where(live[:, :, None] & live[:, None], covariance, 0.0)
        diagonal = torch.where(live, self._noise, 1.0)
        return torch.linalg.cholesky(covariance + torch.diag_embed(diagonal.to(covariance)))

    def _torus(self, space: Space, coords: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """If all samples are on one regular grid whose spacing divides the period: the number of such steps in the
        period along each axis, and the number of them in the grid."""
        if self.kernel.period is None or not isinstance(space, BoundFunctions) or space.grid is None:
            return None
        grid = space.grid[0]
        shape = tuple(grid.tolist())
        if math.prod(shape) != coords.shape[1] or not bool(space.free_mask.all() & (space.grid == grid).all()):
            return None
        first = coords[0].reshape(*shape, len(shape))
        whole, steps = [], []
        for axis, n in enumerate(shape):
            ends = first.select(axis, 0)[..., axis].flatten()[0], first.select(axis, n - 1)[..., axis].flatten()[0]
            step = float(ends[1] - ends[0]) / max(1, n - 1) if n > 1 else self.kernel.period
            whole.append(round(self.kernel.period / step) if step > 0 else 0)
            steps.append(self.kernel.period / max(1, whole[-1]))
        if any(m < n for m, n in zip(whole, shape, strict=True)):
            return None
        axes = [torch.arange(n, device=coords.device) * step for n, step in zip(shape, steps, strict=True)]
        regular = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
        gap = coords - coords[:, :1] - regular.to(coords)
        return (tuple(whole), shape) if bool((gap.abs() < 1e-4 * min(steps)).all()) else None

    def _spectrum(self, whole: tuple[int, ...], like: Tensor) -> Tensor:
        """The eigenvalues ``(1, *whole)`` of the covariance on a grid that covers the period."""
        kept = self.memory.setdefault("spectra", {})
        if whole not in kept:
            axes = [torch.arange(n, dtype=torch.float64) * (self.kernel.period / n) for n in whole]  # type: ignore[operator]
            gap = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
            values = torch.fft.fftn(self.kernel.covariance(gap)[None], dim=tuple(range(1, 1 + len(whole)))).real
            kept[whole] = values.clamp_min(0) + self._noise
        return kept[whole].to(like)
