"""The laws of volume, on which densities depend.

``exp`` changes volume by the factor exp of ``log_volume``; a unit of the coordinates has the volume ``exp(log_scale)``.
The divergence for densities, a trace over ``tangent`` and the rate of ``log_scale``, must be that of the field in
normal coordinates; and after noise has been transported by a field, its density must still integrate to one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.likelihood.divergence import ExactTrace, divergence
from fm_science.paths import Geodesic
from fm_science.priors import Prior, Uniform, Wrapped
from fm_science.solvers import RK4
from fm_science.spaces import Space
from fm_science.spaces.base import total
from fm_science.state import Context, State, scale
from fm_science.testing.derivatives import Waves
from fm_science.testing.differences import SHARE, difference, place
from fm_science.testing.laws import Laws, log_stretch, origin, ragged, random_point

POINTS = 8  # where the divergence is measured
INTEGRAL = 500  # random points of an integral along trajectories
SAMPLES = 20_000  # of an integral without trajectories
LARGEST = 8  # dimensions: beyond, random points are too few for an integral
BLUR = 0.1  # an integral with a larger error is not tested


def volume_laws(laws: Laws, space: Any, spread: float) -> None:
    """All laws of volume on a smooth space with logarithms; on a product, those of its parts."""
    if space.parts:
        for part in space.parts.values():
            volume_laws(laws, part, spread)
        return
    if not (space.smooth and space.geodesic):
        return
    few = _one(space, POINTS)
    s: Any = space.bind(few)
    x = random_point(s, torch.float64, 0.7 * spread)
    if not s.centred:
        short = 0.5 * s.gaussian(x)
        volume = torch.where(s.free_mask, s.leaf.log_volume(x, short), 0.0)
        laws.equal("log_volume is that of exp", volume, log_stretch(s, x, short), 1e-6)
    waves = Waves(space).double().requires_grad_(False)
    _divergence(laws, s, lambda y: waves(y, few.mask.new_zeros(len(few.mask), dtype=torch.float64), few), x)
    if int(s.dimension[0]) <= LARGEST:
        _integral(laws, space, waves)


def _one(space: Any, n: int) -> Context:
    """A batch of the smallest samples with degrees of freedom: of one site, or of two."""
    pair = space.on == "edges" or space.bind(ragged([2])).centred
    return ragged([2 if pair else 1] * n)


def _divergence(laws: Laws, s: Any, field: Any, x: Tensor) -> None:
    """The divergence as a trace in coordinates is that in normal coordinates around ``x``: there a field u is
    w(v) = d exp_x(v)^-1 u(exp_x(v)), and its divergence at v = 0 the trace of the derivative of w."""
    given = divergence(s, field, x, ExactTrace())[1]
    basis = [s.gaussian(x) for _ in range(int(s.dimension[0]))]
    gram = torch.stack([torch.stack([s.inner(x, a, b) for b in basis], -1) for a in basis], -2)

    def normal(v: State) -> State:
        y = s.exp(x, v)
        u = field(y)
        zero = x.new_zeros(())
        return torch.func.jvp(lambda h: s.log(x, s.exp(y, scale(h, u))), (zero,), (torch.ones_like(zero),))[1]

    rates, error = [], torch.zeros_like(given)
    for e in basis:
        rate, bound = difference(lambda h, e=e: normal(h * e))  # type: ignore[misc]
        rates.append(torch.stack([s.inner(x, b, rate) for b in basis], -1))
        error = error + bound.flatten(1).amax(1)
    expected = torch.linalg.solve(gram, torch.stack(rates, -1)).diagonal(dim1=-2, dim2=-1).sum(-1)
    beyond = ((given - expected).abs() - SHARE * error).clamp_min(0) / expected.abs().clamp_min(1)
    worst = int(beyond.argmax())
    numbers = f"{float(given[worst]):.6g} in coordinates, {float(expected[worst]):.6g} along geodesics"
    laws.small("divergence is that of the volume", beyond, 1e-6, f"{numbers} {place(worst, beyond, {'x': x})}")


def _integral(laws: Laws, space: Any, waves: Waves) -> None:
    """Noise that was transported by a field has a density that integrates to one. The integral is a mean over random
    points; the law fails beyond five standard errors plus the error of an integration to four digits."""
    many = _one(space, INTEGRAL)
    s: Any = space.bind(many)
    start: Any = origin(s, torch.float64)
    compact = math.isfinite(space.volume)
    prior: Prior = Uniform() if compact else Wrapped(std := min(0.5, space.injectivity / 6))
    y, minus = _uniform(space, s, start) if compact else _around(space, s, start, 1.2 * std)
    flow = Flow(Geodesic(space), prior, lambda x, t, c: _bump(s.leaf, x, 0.5 * waves(x, t, c)))
    law = "densities integrate to one"
    with torch.no_grad():
        weight = (flow.log_prob(y, many, RK4(), steps=4, divergence=ExactTrace()) + minus).exp()
    _mean_one(laws, law, weight)
    if compact:  # noise in the middle of the space: its integral tests the volume itself
        s, bump = space.bind(_one(space, SAMPLES)), Wrapped(space.injectivity / 6)
        y, minus = _uniform(space, s, start)
        _mean_one(laws, "the volume is that of exp", (bump.log_prob(s, y) + minus).exp())


def _bump(leaf: Any, x: Tensor, u: Tensor) -> Tensor:
    """``u``, reduced to zero at the cut locus of the origin: coordinates may jump there, as angles do."""
    if math.isinf(leaf.injectivity):
        return u
    start = leaf.origin(x).expand_as(x)
    v = leaf.log(start, x)
    height = (1 - leaf.dot(start, v, v) / leaf.injectivity**2).clamp_min(0) ** 3
    return height.reshape(height.shape + (1,) * (u.ndim - height.ndim)) * u


def _mean_one(laws: Laws, law: str, weight: Tensor) -> None:
    mean, noise = float(weight.mean()), float(weight.std()) / len(weight) ** 0.5
    if noise <= BLUR or not math.isfinite(noise):
        laws.small(law, mean - 1, 5 * noise + 1e-4, f"the integral is {mean:.4g}, standard error {noise:.2g}")


def _uniform(space: Any, s: Any, start: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform points, and minus the logs of their densities."""
    y = s.project(space.uniform(s.mask.shape, start))
    return y, s.dimension.to(y) / space.dimension * math.log(space.volume)


def _around(space: Space, s: Any, start: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Points that are normal around the origin, and minus the logs of their densities."""
    g = s.gaussian(start)
    d = s.dimension.to(g)
    square = s.inner(start, g, g) * d / s.measure.to(g)  # lengths of functions are weighted
    minus = 0.5 * square + d * (0.5 * math.log(2 * math.pi) + math.log(std))
    stretch = 0.0 if space.linear else total(log_stretch(s, start, std * g))
    return s.exp(start, std * g), minus + stretch
