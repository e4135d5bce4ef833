"""Shifts: a periodic function has no preferred origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.state import Context, State
from fm_science.symmetries.base import Symmetry, on_sites, refuse_frozen, split

FIXED = ("coords", "weights")  # of sensors: values move from one to the next


@dataclass(frozen=True)
class Shifts(Symmetry):
    """Shifts of functions on regular grids ``cond["grid"]`` that have a period, by whole steps of the grid. The sensors
    stay; their values move around the torus.

    ``align`` finds the best of all shifts from the correlation of both functions, by the fast Fourier transform.

    Args:
        periodic: which axes have a period; ``None``: all of them.
        along: conditions on sites that move with the values, such as an observed field. Only ``apply`` can do so.
        grids: ``(B, d)`` sensors on each axis; ``bind`` fills it.
    """

    periodic: tuple[bool, ...] | None = None
    along: tuple[str, ...] = ()
    grids: Tensor | None = field(default=None, repr=False, compare=False)

    def bind(self, space: Space, context: Context) -> Shifts:
        grid = context.cond.get("grid")
        if grid is None:
            raise ValueError("Shifts need functions on regular grids: cond['grid'] of shape (B, d).")
        if self.periodic is not None and len(self.periodic) != grid.shape[1]:
            raise ValueError(f"Shifts(periodic={self.periodic}): the grids have {grid.shape[1]} axes.")
        refuse_frozen(space, "Shifts")
        for name in on_sites(context):
            if name not in FIXED:
                raise ValueError(
                    f"Shifts would leave the condition {name!r} {tuple(context.cond[name].shape)} behind. Only "
                    f"apply() moves it, with Shifts(along=({name!r},)); else do without."
                )
        return replace(self, grids=grid)

    def take(self, index: Tensor) -> Shifts:
        return self if self.grids is None else replace(self, grids=self.grids[index])

    def align(self, space: Space, x: State, y: State) -> Tensor:
        a, b, grids = _values(x), _values(y), self._grids()
        steps = torch.stack([self._best(u, v, grid) for u, v, grid in zip(a, b, grids.tolist(), strict=True)])
        return _rolled(a, grids, steps)

    def randomise(self, space: Space, x: State) -> Tensor:
        return _rolled(_values(x), self._grids(), self.draw())

    def apply(self, space: Space, x: State, context: Context) -> tuple[State, Context]:
        rest, moving = split(context, self.along)
        bound = self.bind(space.bind(context), rest)
        grids, steps = bound._grids(), bound.draw()
        moved = {name: _rolled(v, grids, steps) for name, v in moving.items()}
        return _rolled(_values(x), grids, steps), replace(rest, cond={**rest.cond, **moved})

    def draw(self) -> Tensor:
        """Uniform shifts, ``(B, d)`` in steps of the grid."""
        grids = self._grids()
        steps = (torch.rand(grids.shape, device=grids.device) * grids).long()
        return steps * torch.tensor(self._free(grids.shape[1]), device=grids.device)

    def _grids(self) -> Tensor:
        if self.grids is None:
            raise TypeError("Shifts are not bound to a batch. Write shifts.bind(space, context) first.")
        return self.grids

    def _free(self, dim: int) -> tuple[bool, ...]:
        return (True,) * dim if self.periodic is None else self.periodic

    def _best(self, x: Tensor, y: Tensor, grid: list[int]) -> Tensor:
        """The shift of ``x`` ``(N, C)`` that brings it nearest to ``y``, ``(d,)``: the largest of the correlations."""
        axes = tuple(range(len(grid)))
        a, b = (torch.fft.fftn(v[: math.prod(grid)].unflatten(0, grid), dim=axes) for v in (x, y))
        found = torch.fft.ifftn((a.conj() * b).sum(-1), dim=axes).real
        for axis, free in enumerate(self._free(len(grid))):
            found = found if free else found.narrow(axis, 0, 1)
        place = torch.unravel_index(found.argmax(), found.shape)
        return torch.stack(list(place))


def _values(x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError("Shifts move functions, states of one tensor (B, N, channels); this state has several parts.")
    return x


def _rolled(x: Tensor, grids: Tensor, steps: Tensor) -> Tensor:
    """Values ``(B, N, ...)`` moved by so many steps on each axis of their grid; sites beyond it stay."""
    rows = []
    for v, grid, step in zip(x, grids.tolist(), steps.tolist(), strict=True):
        n = math.prod(grid)
        moved = v[:n].unflatten(0, grid).roll(step, tuple(range(len(grid)))).flatten(0, len(grid) - 1)
        rows.append(torch.cat([moved, v[n:]]))
    return torch.stack(rows)
