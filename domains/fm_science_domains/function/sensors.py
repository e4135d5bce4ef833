"""The sensors of a function: coordinates, regular grids, and the share of the domain of each sensor.

A regular grid of an axis with a period has its beginning but not its end, which is the same point; one of an axis
without a period has both ends. So a grid of twice as many sensors contains the coarser one: on a periodic axis
2 n, on another 2 (n - 1) + 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import OptionError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sampled:
    """A function with values at N sensors.

    Attributes:
        values: ``(N, C)`` in the units of its source.
        coords: ``(N, d)`` coordinates of the sensors, in the units of the source.
        grid: the shape of the regular row-major grid that they form; ``None``: none.
        weights: ``(N,)`` the share of the domain of each sensor; they add up to one.
        name: of the function.
    """

    values: Tensor
    coords: Tensor
    grid: Shape | None
    weights: Tensor
    name: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        where = f"a grid of {'x'.join(map(str, self.grid))}" if self.grid is not None else f"{len(self)} sensors"
        return f"Sampled({self.name!r}, {self.values.shape[1]} channels on {where})"

    @property
    def gridded(self) -> Tensor:
        """The values on their grid, ``(*grid, C)``."""
        assert self.grid is not None
        return self.values.unflatten(0, self.grid)


def axis(n: int, periodic: bool) -> Tensor:
    """The sensors of one axis of the unit box, ``(n,)`` in double precision."""
    return torch.arange(n, dtype=torch.float64) / (n if periodic else max(1, n - 1))


def places(shape: Shape, periodic: Sequence[bool]) -> Tensor:
    """The sensors of a regular grid of the unit box, row-major, ``(N, d)``."""
    axes = [axis(n, p) for n, p in zip(shape, periodic, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def quadrature(shape: Shape, periodic: Sequence[bool]) -> Tensor:
    """The weights of a regular grid, ``(N,)``: the trapezoidal rule, on periodic axes equal weights."""
    total = torch.ones((), dtype=torch.float64)
    for n, p in zip(shape, periodic, strict=True):
        share = torch.ones(n, dtype=torch.float64)
        if not p and n > 1:
            share[0] = share[-1] = 0.5
        total = total[..., None] * (share / share.sum())
    return total.flatten()


def scattered_weights(coords: Tensor) -> Tensor:
    """The weights of scattered sensors ``(N, d)``: on the line half the gap to either neighbour, elsewhere equal."""
    n, d = coords.shape
    if d > 1 or n < 3:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    order = coords[:, 0].double().argsort()
    x = coords[order, 0].double()
    cell = torch.cat([(x[1:2] - x[:1]), x[2:] - x[:-2], x[-1:] - x[-2:-1]]) / 2
    out = torch.empty(n, dtype=torch.float64)
    out[order] = cell.clamp_min(1e-6 * float(x[-1] - x[0]) / n)
    return out / out.sum()


def on_axes(values: Tensor, axes: Sequence[Tensor], periodic: bool, name: str) -> list[Sampled]:
    """Functions ``(M, *grid, C)`` on the product of axes; the grid is regular if every axis is evenly spaced."""
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    shape = tuple(len(a) for a in axes)
    even = regular(coords) is not None
    grid: Shape | None = shape if even else None
    weights = quadrature(shape, [periodic] * len(axes)) if even else scattered_weights(coords)
    return [Sampled(v.flatten(0, -2), coords, grid, weights, f"{name}_{i:04d}") for i, v in enumerate(values.double())]


def scattered(values: Any, coords: Any, name: str) -> Sampled:
    """A function of values ``(N[, C])`` at positions ``(N[, d])``; on a grid if the positions form one. Raises
    ValueError if the numbers differ, or a position is not finite."""
    values, coords = (torch.as_tensor(np.asarray(a, dtype=np.float64)) for a in (values, coords))
    values, coords = (a if a.ndim == 2 else a.reshape(len(a), -1) for a in (values, coords))
    if len(values) != len(coords):
        raise ValueError(f"{len(values)} values at {len(coords)} places")
    if not bool(coords.isfinite().all()):
        raise ValueError("places must be finite numbers")
    grid = regular(coords)
    weights = quadrature(grid, [False] * len(grid)) if grid is not None else scattered_weights(coords)
    return Sampled(values, coords, grid, weights, name)


def parse(text: str | int, dim: int, name: str) -> Shape:
    """A grid from ``64`` (this many on each axis) or ``32x48``. Raises OptionError."""
    words = str(text).lower().split("x")
    if not all(re.fullmatch(r"\d+", w) for w in words) or min(int(w) for w in words) < 2:
        raise OptionError(f"{name}={text!r}: expected sensors of each axis, at least 2, such as 64 or 32x48")
    sizes = tuple(int(w) for w in words)
    if len(sizes) == 1:
        return sizes * dim
    if len(sizes) != dim:
        raise OptionError(f"{name}={text!r} has {len(sizes)} axes, but these functions have {dim}")
    return sizes


def refined(shape: Shape, periodic: Sequence[bool], factor: int) -> Shape:
    """The grid that is ``factor`` times as fine and contains this one."""
    return tuple(factor * n if p else factor * (n - 1) + 1 for n, p in zip(shape, periodic, strict=True))


def regular(coords: Tensor) -> Shape | None:
    """The shape of the row-major regular grid that these positions ``(N, d)`` form, or ``None``."""
    shape = tuple(len(column.unique()) for column in coords.double().round(decimals=9).unbind(1))
    if torch.tensor(shape).prod() != len(coords) or min(shape) < 2:
        return None
    low, high = coords.double().amin(0), coords.double().amax(0)
    wanted = low + places(shape, [False] * len(shape)) * (high - low)
    step = (high - low) / (torch.tensor(shape) - 1)
    return shape if bool(((coords.double() - wanted).abs() < 1e-3 * step).all()) else None


def fitting(functions: Sequence[Sampled], coords: Tensor, grid: Shape | None) -> Tensor:
    """The values of functions at common positions ``(N, d)``, ``(M, N, C)`` in double precision: as measured if they
    were measured there, else interpolated: linearly between the sensors of a grid or a line, else from the nearest."""
    return torch.stack([_at(f, coords.double(), grid) for f in functions])


def _at(f: Sampled, coords: Tensor, grid: Shape | None) -> Tensor:
    values, own = f.values.detach().cpu().double(), f.coords.cpu().double()
    if own.shape == coords.shape and torch.allclose(own, coords, rtol=0, atol=1e-6 * float(coords.abs().max() + 1e-12)):
        return values
    if f.grid is not None or own.shape[1] == 1:
        return _linear(values, own, f.grid, coords)
    nearest = torch.cdist(coords, own).argmin(1)
    return values[nearest]


def _linear(values: Tensor, own: Tensor, grid: Shape | None, coords: Tensor) -> Tensor:
    """Linear interpolation along one axis after another; beyond the ends the nearest value."""
    if grid is None:
        order = own[:, 0].argsort()
        values, own, grid = values[order], own[order], (len(own),)
    table, corners = values.unflatten(0, grid), [(torch.ones(len(coords), dtype=torch.float64), ())]
    for k, n in enumerate(grid):
        along = line(own, grid, k).contiguous()
        right = torch.searchsorted(along, coords[:, k].contiguous()).clamp(1, n - 1)
        share = ((coords[:, k] - along[right - 1]) / (along[right] - along[right - 1]).clamp_min(1e-300)).clamp(0, 1)
        sides = ((right - 1, 1 - share), (right, share))
        corners = [(weight * w, (*index, i)) for weight, index in corners for i, w in sides]  # type: ignore[misc]
    return torch.stack([weight[:, None] * table[index] for weight, index in corners]).sum(0)


def line(coords: Tensor, grid: Shape, k: int) -> Tensor:
    """The coordinates of axis ``k`` of a grid whose positions are ``coords`` ``(N, d)``."""
    return coords.unflatten(0, grid)[(*([0] * k), slice(None), *([0] * (len(grid) - k - 1)), k)]
