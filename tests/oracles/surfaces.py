"""Paths that descend a distance: geodesics where it is the space's own, great circles on a fine mesh of the sphere."""

from __future__ import annotations

import math

import torch

from fm_science.paths import Geodesic, Simulated
from fm_science.priors import Uniform, Wrapped
from fm_science.schedules import Polynomial
from fm_science.spaces import SO3, SPD, Hyperbolic, Leaf, Sphere, Torus
from fm_science.state import Context
from tests.oracles.meshes import icosphere
from tests.oracles.table import largest, oracle

SPACES: tuple[Leaf, ...] = (Sphere(2), SO3(), Torus(2), Hyperbolic(2), SPD(2))


@oracle("descending the distance of S², SO(3), T², H², SPD(2) is the geodesic path: points", 1e-9)
def descends_geodesics() -> float:
    return _geodesics()[0]


@oracle("descending the distance of S², SO(3), T², H², SPD(2) is the geodesic path: velocities", 1e-9)
def descends_at_the_pace() -> float:
    return _geodesics()[1]


def _geodesics() -> tuple[float, float]:
    """Largest differences of points and of velocities, one site a sample and the clock t²."""
    places, rates, context = 0.0, 0.0, Context.full(64)
    for leaf in SPACES:
        prior = Uniform() if leaf.volume < math.inf else Wrapped(0.5)
        x0, x1 = prior.sample(leaf, context), prior.sample(leaf, context)
        t = 0.9 * torch.rand(64)
        found, exact = (kind(leaf, schedule=Polynomial(2)).bind(context) for kind in (Simulated, Geodesic))
        x = exact.sample(x0, x1, t)
        places = max(places, largest(found.sample(x0, x1, t) - x))
        u = exact.drift(x, x1, t)
        rates = max(rates, largest(found.drift(x, x1, t) - u) / (1 + largest(u)))
    return places, rates


@oracle("spectral distances of an icosphere against the Legendre series", 0.02)
def spectral_series() -> float:
    """Between all vertices of 1,280 faces, relative to the largest distance, with degrees l = 1 and 2:
    sum_l (2l + 1) / (2 pi) w(l (l + 1)) (1 - P_l(cos theta))."""
    mesh, worst = icosphere(3), 0.0
    cosine = (mesh.vertices @ mesh.vertices.mT).clamp(-1, 1)
    waves = {1: cosine, 2: 1.5 * cosine**2 - 0.5}
    for distance, weight in (
        (mesh.biharmonic(), lambda value: value**-2),
        (mesh.diffusion(0.25), lambda value: math.exp(-0.5 * value)),
    ):
        terms = ((2 * l + 1) / (2 * math.pi) * weight(l * (l + 1.0)) * (1 - wave) for l, wave in waves.items())
        exact = sum(terms, torch.zeros(())).sqrt()
        found = torch.cdist(distance.features, distance.features)
        worst = max(worst, largest(found - exact) / float(exact.max()))
    return worst


@oracle("simulated paths on an icosphere stay within a quarter of an edge of the great circle", 0.0375)
def descends_great_circles() -> float:
    """The mean distance from the plane of the great circle through both ends, on 1,280 faces, for two distances."""
    mesh, context, worst = icosphere(3), Context.full(64), 0.0
    x0, x1 = (Uniform().sample(mesh, context).double() for _ in range(2))
    normal = torch.nn.functional.normalize(torch.linalg.cross(x0, x1), dim=-1)
    for distance in (mesh.biharmonic(), mesh.diffusion(0.25)):
        x = Simulated(mesh, distance, steps=24).bind(context).sample(x0, x1, torch.full((64,), 0.5))
        worst = max(worst, float((x * normal).sum(-1).abs().mean()))
    return worst
