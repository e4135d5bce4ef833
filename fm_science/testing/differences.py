"""Finite differences with estimates of their error.

A central difference has two errors: a long step has truncation error, a short one rounding error. So each number is
computed with many steps, from long to short. Two steps, one half of the other, give an estimate of the error
(Richardson 1911), and the step with the least error is used. This bounds the allowed deviation of a derivative: next to
a boundary the short steps are best, elsewhere the middle ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fm_science.testing.laws import Laws

STEPS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
SHARE = 10.0  #: allowed deviation of a derivative, in errors of the difference


def difference(f: Callable[[float], Tensor], steps: tuple[float, ...] = STEPS) -> tuple[Tensor, Tensor]:
    """The derivative of ``f`` at 0 by central differences, and a bound of the error of each entry; both of the shape
    of a value. If no step gives a finite number, the derivative is NaN and the bound infinite."""
    value = bound = None
    for h in steps:
        ends = [f(d) for d in (h, -h, 0.5 * h, -0.5 * h)]
        coarse, fine = (ends[0] - ends[1]) / (2 * h), (ends[2] - ends[3]) / h
        gap = (fine - coarse).abs() + 8 * torch.finfo(fine.dtype).eps * ends[0].abs() / h
        gap = _whole_site(torch.where(torch.isfinite(gap), gap, torch.inf))
        if value is None or bound is None:
            value, bound = torch.full_like(fine, torch.nan), torch.full_like(gap, torch.inf)
        better = gap < bound
        value, bound = torch.where(better, fine + (fine - coarse) / 3, value), torch.where(better, gap, bound)
    assert value is not None
    assert bound is not None
    return value, bound


def _whole_site(gap: Tensor) -> Tensor:
    """One entry of a vector may agree by chance: each gets the error of the worst next to it."""
    return gap.amax(-1, keepdim=True).expand_as(gap) if gap.ndim > 1 else gap


def same_slope(
    laws: Laws, law: str, slope: Tensor, f: Callable[[float], Tensor], tolerance: float, at: Mapping[str, Tensor]
) -> None:  # fmt: skip
    """``slope`` must be the derivative of ``f`` at 0, within ``tolerance`` relative to its size but at least one, plus
    the error of the difference itself. A failure prints the worst site, with the points named in ``at``."""
    value, bound = difference(f)
    beyond = ((slope - value).abs() - SHARE * bound).clamp_min(0) / value.abs().clamp_min(1)
    beyond = torch.where(torch.isfinite(slope) & torch.isfinite(bound), beyond, torch.inf)
    worst = int(beyond.flatten().argmax())
    numbers = f"given {float(slope.flatten()[worst]):.10g}, differences {float(value.flatten()[worst]):.10g}"
    numbers += f" with an error below {float(bound.flatten()[worst]):.1g}"
    laws.small(law, beyond, tolerance, f"{numbers} {place(worst, beyond, at)}")


def place(worst: int, like: Tensor, at: Mapping[str, Tensor]) -> str:
    """A text with the position of entry ``worst`` of ``like``, counted through all axes, and its values."""
    index = [int(i) for i in torch.unravel_index(torch.tensor(worst), like.shape)]
    seen = []
    for name, points in at.items():
        sites = max(1, min(2, points.ndim - 1, len(index)))
        values = ", ".join(f"{float(v):.10g}" for v in points[tuple(index[:sites])].flatten()[:9])
        seen.append(f"{name} = [{values}]")
    where = f"sample {index[0]}" + (f", site {index[1]}" if len(index) > 1 else "")
    return f"at {where}, {', '.join(seen)}"
