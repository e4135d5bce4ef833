"""The units of functions: outside those of their source, inside the unit box and values of about one.

The scale of the values is found in pieces of bounded size, so that functions which lie in a file stay there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.state import Context

from .sensors import Sampled

PIECE = 1 << 20  #: values that are looked at together


@dataclass(frozen=True, eq=False)
class Frame:
    """Conversion from the units of a source to inside units and back.

    Attributes:
        low, size: ``(d,)`` corner and sides of the box; a periodic side is the period.
        periodic: which axes have a period.
        shift, scale: ``(C,)`` of the values.
    """

    low: Tensor
    size: Tensor
    periodic: tuple[bool, ...]
    shift: Tensor
    scale: Tensor

    def inside(self, values: Tensor) -> Tensor:
        """Values ``(..., C)`` in single precision, shifted and scaled."""
        return ((values.double() - self.shift) / self.scale).float()

    def outside(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`inside`."""
        return values.detach().cpu().double() * self.scale + self.shift

    def unit(self, coords: Tensor) -> Tensor:
        """Positions in the unit box."""
        return (coords.double() - self.low) / self.size

    def box(self, unit: Tensor) -> Tensor:
        """The inverse of :meth:`unit`."""
        return unit.detach().cpu().double() * self.size + self.low


def framed(functions: Iterable[Sampled], low: Tensor, size: Tensor, periodic: tuple[bool, ...], scale: str) -> Frame:
    """The frame with the scale of the values of these functions: ``standard``, ``range`` or ``none``."""
    shift, spread = {"standard": standard, "range": extent, "none": unchanged}[scale](functions)
    return Frame(low, size, periodic, shift, torch.where(spread > 0, spread, 1.0))


def standard(functions: Iterable[Sampled]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(C,)`` of the values, from those of pieces (Chan, Golub & LeVeque 1983)."""
    count, mean, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x in pieces(functions):
        own, before, count = x.mean(0), count, count + len(x)
        step = own - mean
        square = square + (x - own).square().sum(0) + step.square() * (before * len(x) / count)
        mean = mean + step * (len(x) / count)
    return mean, (square / max(1, count - 1)).sqrt()


def extent(functions: Iterable[Sampled]) -> tuple[Tensor, Tensor]:
    """The middle and half the width ``(C,)`` of the range of the values."""
    ends = torch.stack([torch.stack([x.amin(0), x.amax(0)]) for x in pieces(functions)])
    bottom, top = ends[:, 0].amin(0), ends[:, 1].amax(0)
    return (top + bottom) / 2, (top - bottom) / 2


def unchanged(functions: Iterable[Sampled]) -> tuple[Tensor, Tensor]:
    """Zero and one ``(C,)``."""
    channels = next(iter(functions)).values.shape[1]
    return torch.zeros(channels).double(), torch.ones(channels).double()


def pieces(functions: Iterable[Sampled]) -> Iterator[Tensor]:
    """The values of functions, one after the other, in pieces ``(n, C)`` of bounded size, in double precision."""
    kept: list[Tensor] = []
    count = 0
    for f in functions:
        kept.append(f.values.double())
        count += f.values.numel()
        if count >= PIECE:
            yield torch.cat(kept)
            kept, count = [], 0
    if kept:
        yield torch.cat(kept)


def decode(frame: Frame, state: Tensor, context: Context) -> list[Sampled]:
    """States ``(B, N, C)`` to functions without their padding, in the units of the source."""
    coords, weights = context.cond["coords"].cpu(), context.cond["weights"].cpu()
    box, found = frame.box(coords), []
    for i, real in enumerate(context.mask.cpu()):
        grid = tuple(context.cond["grid"][i].tolist()) if "grid" in context.cond else None
        values = frame.outside(state[i])[real].float()
        found.append(Sampled(values, box[i][real], grid, weights[i][real].double(), f"sample_{i:04d}"))
    return found
