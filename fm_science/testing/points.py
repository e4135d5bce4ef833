"""The laws of points and tangents.

The origin must lie on the space, results of ``project`` must be points at which ``exp`` works, and tangents must be
the velocities of curves on the space: those that ``exp`` starts with, and those by which projected points move.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces import Space
from fm_science.state import State, expand_like
from fm_science.testing.differences import SHARE, difference, place, same_slope
from fm_science.testing.laws import Laws, ragged, random_ambient, random_point

DRAWS = 2000  # Gaussian tangents whose length is measured
LOOSE = 1e-5  # a projected point may be ill conditioned, such as a nearly singular matrix


def point_laws(laws: Laws, s: Any, dtype: torch.dtype, tol: float, spread: float, geo: bool) -> None:
    """The laws of points and tangents on one bound space; on a product, those of its parts."""
    if s.parts:
        for part in s.parts.values():
            point_laws(laws, part, dtype, tol, spread, geo)
        return
    if not _origin(laws, s, dtype, tol, geo):
        return
    x, y = random_point(s, dtype, spread), random_point(s, dtype, spread)
    p = s.project(random_ambient(x))
    if s.smooth:
        laws.equal("project reaches a point", s.exp(p, torch.zeros_like(s.tangent(p, _vector(s, p)))), p, tol)
    if geo and dtype == torch.float64:
        laws.equal("project reaches a point", s.exp(p, s.log(p, y)), y, LOOSE)
    if s.smooth and dtype == torch.float64:
        _velocities(laws, s, x, geo)


def _vector(s: Any, x: Tensor) -> Tensor:
    return torch.randn(*s.mask.shape, *s.leaf.tangent_event, dtype=x.dtype)


def _origin(laws: Laws, s: Any, dtype: torch.dtype, tol: float, geo: bool) -> bool:
    """The origin is a point of the space that stays where it is. False if its shape is wrong."""
    like = torch.empty((), dtype=dtype)
    origin = s.leaf.origin(like)
    law, found = "the origin has the shape of a point", tuple(origin.shape)
    laws.holds(law, found == tuple(s.leaf.event), f"shape {found}, expected {tuple(s.leaf.event)}")
    laws.holds("the origin keeps the dtype", origin.dtype == dtype, f"{origin.dtype} instead of {dtype}")
    if found != tuple(s.leaf.event):
        return False
    x = origin.expand(1, 1, *s.leaf.event).clone()
    law, still = "the origin is a point", x.new_zeros(1, 1, *s.leaf.tangent_event)
    laws.equal(law, s.leaf.project(x), x, tol)
    laws.equal(law, s.leaf.exp(x, still), x, tol)
    if geo:
        laws.equal(law, s.leaf.log(x, x), still, tol)
    return True


def _velocities(laws: Laws, s: Any, x: Tensor, geo: bool) -> None:
    """``tangent`` keeps the velocities of curves on the space, and ``exp`` starts with the given velocity."""
    u, same = s.tangent(x, _vector(s, x)), s.leaf.event == s.leaf.tangent_event
    if same or geo:
        motion, bound = difference(lambda h: s.exp(x, h * u) if same else s.log(x, s.exp(x, h * u)))
        _close(laws, "exp leaves x with the velocity u", motion, u, bound, {"x": x, "u": u})
    if same:
        a = random_ambient(x)
        motion, bound = difference(lambda h: s.project(x + h * a))
        _close(laws, "tangent keeps the motion of projected points", s.tangent(x, motion), motion, bound, {"x": x})
    if same and not s.leaf.own_metric:
        off = (s.mask_tangent(a) - s.tangent(x, a)) * u
        error = off.flatten(1).sum(1).abs()
        laws.small("what tangent takes away is orthogonal to tangents", error, 1e-9 * float(1 + u.abs().max()))


def _close(laws: Laws, law: str, given: Tensor, expected: Tensor, bound: Tensor, at: dict[str, Tensor]) -> None:
    """Two tangents must agree up to the error of the finite difference in one of them."""
    size = 1 + expand_like(expected.flatten(1).abs().amax(1), expected)
    error = ((given - expected).abs() - SHARE * bound).clamp_min(0) / size
    error = torch.where(torch.isfinite(given) & torch.isfinite(expected), error, torch.inf)
    worst = int(error.flatten().argmax())
    pair = f"{float(given.flatten()[worst]):.6g} where {float(expected.flatten()[worst]):.6g} was expected"
    laws.small(law, error, 1e-7, f"{pair} {place(worst, error, at)}")


def gaussian_law(laws: Laws, space: Space, spread: float) -> None:
    """The squared length of Gaussian tangents has the dimension as its mean, within five standard errors of a
    chi-squared distribution."""
    s: Any = space.bind(ragged([1 if space.on == "graph" else 2] * DRAWS))  # type: ignore[attr-defined]
    x = random_point(s, torch.float64, 0.5 * spread)
    g = s.gaussian(x)
    square = (s.inner(x, g, g) / s.measure.to(x)).mean()
    allowed = 5 * (2 / float(s.dimension.sum())) ** 0.5
    laws.small("gaussian has unit variance in the metric", square - 1, allowed)


def rank(laws: Laws, s: Any, x: State, tol: float) -> None:
    """The trace of the projection onto the tangents is their dimension."""
    if s.parts:
        for name, part in s.parts.items():
            rank(laws, part, x[name], tol)
        return
    shape = torch.Size((*s.mask.shape, *s.leaf.tangent_event))
    basis = torch.eye(shape[1:].numel(), dtype=x.dtype).reshape(-1, 1, *shape[1:])
    images = torch.stack([s.tangent(x, e.expand(shape)) for e in basis])
    laws.equal("dimension is the rank of tangent", (images * basis).flatten(2).sum((0, 2)), s.dimension.to(x), tol)


def derivatives(laws: Laws, s: Any, x: State, u: State, y: State) -> None:
    """Forward derivatives along a tangent agree with finite differences to 1e-6, beyond the error of these."""
    if isinstance(x, dict) or x.dtype != torch.float64:
        return
    along = s.gaussian(x)
    maps = {
        "exp": lambda a: s.exp(s.exp(x, a), s.tangent(s.exp(x, a), u)),
        "log": lambda a: s.log(s.exp(x, a), y),
    }
    for law, f in maps.items():
        zero = torch.zeros_like(along)
        slope = torch.func.jvp(f, (zero,), (along,))[1]
        at = {"x": x, "along": along}
        moved = partial(_moved, f, along)
        same_slope(laws, f"jvp of {law} is its derivative", slope, moved, 1e-6, at)


def _moved(f: Callable[[Tensor], Tensor], along: Tensor, h: float) -> Tensor:
    return f(h * along)
