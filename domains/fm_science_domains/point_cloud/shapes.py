"""Procedural shapes whose parameters are known: tori, boxes and superquadrics, as points distributed uniformly over a
surface.

A model of shapes can be evaluated exactly if the shapes have a few parameters: fit the parameters of each generated
cloud (:mod:`.fits`) and compare their distribution with that of the training clouds.

=============  ==========================================================  ===================================
family         surface                                                     drawn evenly from
=============  ==========================================================  ===================================
torus          (sqrt(x² + y²) - ring)² + z² = tube²                        ring 0.6 to 1, tube 0.15 to 0.4
box            the faces of |x| <= a, |y| <= b, |z| <= c                   a, b, c 0.3 to 1
superquadric   |x/a|^(2/e) + |y/b|^(2/e) + |z/c|^(2/e) = 1 (Barr 1981,     a, b, c 0.3 to 1, e 0.5 to 1.5
               with one exponent)
=============  ==========================================================  ===================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 512  # shapes made at once
CELLS = 36  # cells of a surface along each of its two coordinates


@dataclass(frozen=True)
class Family:
    """A kind of shape.

    Args:
        name: its name in files and tables.
        numbers: names of its parameters.
        low, high: the range from which they are drawn.
        surface: ``(parameters (B, p), u, v (M,) or (B, M)) -> (B, M, 3)``: the surface over the unit square.
        distance: ``(parameters (B, p), x (B, N, 3)) -> (B, N)``: how far points are from the surface, to first order.
        alike: number of first parameters that are lengths along equivalent axes.
    """

    name: str
    numbers: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    surface: Callable[[Tensor, Tensor, Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    alike: int = 0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Parameters of n shapes, ``(n, p)``, lengths of equivalent axes in decreasing order."""
        low, high = (torch.tensor(v, dtype=torch.float64) for v in (self.low, self.high))
        found = low + (high - low) * torch.rand(n, len(low), generator=generator, dtype=torch.float64)
        return self.ordered(found)

    def ordered(self, parameters: Tensor) -> Tensor:
        """The same shapes with the lengths of equivalent axes in decreasing order."""
        k = self.alike
        return torch.cat([parameters[:, :k].sort(1, descending=True).values, parameters[:, k:]], 1)

    def areas(self, parameters: Tensor) -> Tensor:
        """Areas of the cells of each surface, ``(B, CELLS²)``, from their corners (moved inwards slightly, since the
        faces of a box meet there)."""
        cell = torch.arange(CELLS, dtype=torch.float64)
        low, high = (cell + 1e-6) / CELLS, (cell + 1 - 1e-6) / CELLS
        grids = [torch.meshgrid(a, b, indexing="ij") for a in (low, high) for b in (low, high)]
        a, b, c, d = (self.surface(parameters, *(g.flatten() for g in grid)) for grid in grids)
        return (torch.linalg.cross(b - a, c - a).norm(dim=-1) + torch.linalg.cross(b - d, c - d).norm(dim=-1)) / 2

    def points(self, parameters: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """``n`` points on each shape, uniformly over its surface: ``(B, p)`` to ``(B, n, 3)``. The surface is cut into
        small cells, and a cell is chosen in proportion to its area."""
        chosen = torch.multinomial(self.areas(parameters), n, replacement=True, generator=generator)
        place = torch.rand(2, *chosen.shape, generator=generator, dtype=torch.float64)
        u = (torch.div(chosen, CELLS, rounding_mode="floor") + place[0]) / CELLS
        v = (chosen % CELLS + place[1]) / CELLS
        return self.surface(parameters, u, v)


def _torus(p: Tensor, u: Tensor, v: Tensor) -> Tensor:
    ring, tube = p[:, :1], p[:, 1:]
    u, v = 2 * math.pi * u, 2 * math.pi * v
    out = ring + tube * v.cos()
    return torch.stack([out * u.cos(), out * u.sin(), (tube * v.sin()).expand_as(out)], -1)


def _from_torus(p: Tensor, x: Tensor) -> Tensor:
    ring, tube = p[:, :1], p[:, 1:]
    away = (x[..., :2].square().sum(-1) + 1e-12).sqrt() - ring
    return (away.square() + x[..., 2].square() + 1e-12).sqrt() - tube


def _box(p: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Six faces side by side along u; a cell never crosses two, since six divides the number of cells."""
    face, s, t = (6 * u).floor().clamp_max(5), 2 * (6 * u - (6 * u).floor().clamp_max(5)) - 1, 2 * v - 1
    axis, side = face % 3, 1 - 2 * (face >= 3).double()
    flat = torch.stack([torch.where(axis == k, side, torch.where(axis == (k + 1) % 3, t, s)) for k in range(3)], -1)
    return p[:, None] * flat


def _from_box(p: Tensor, x: Tensor) -> Tensor:
    over = x.abs() - p[:, None]
    outside = (over.clamp_min(0).square().sum(-1) + 1e-12).sqrt()
    return outside + over.amax(-1).clamp_max(0)


def _superquadric(p: Tensor, u: Tensor, v: Tensor) -> Tensor:
    e = p[:, 3:]
    up, around = math.pi * (u - 0.5), 2 * math.pi * (v - 0.5)
    power = lambda w: w.sign() * w.abs().clamp_min(1e-12) ** e  # noqa: E731
    level = power(up.cos())
    unit = torch.stack([level * power(around.cos()), level * power(around.sin()), power(up.sin())], -1)
    return p[:, None, :3] * unit


def _from_superquadric(p: Tensor, x: Tensor) -> Tensor:
    """The distance along the ray from the centre (Solina & Bajcsy 1990)."""
    e = p[:, 3:]
    inside = ((x / p[:, None, :3]).abs().clamp_min(1e-6) ** (2 / e)[..., None]).sum(-1)
    return x.norm(dim=-1) * (1 - inside.clamp_min(1e-9) ** (-e / 2))


FAMILIES = {
    family.name: family
    for family in (
        Family("torus", ("ring", "tube"), (0.6, 0.15), (1.0, 0.4), _torus, _from_torus),
        Family("box", ("a", "b", "c"), (0.3,) * 3, (1.0,) * 3, _box, _from_box, 3),
        Family(
            "superquadric", ("a", "b", "c", "e"), (0.3, 0.3, 0.3, 0.5), (1.0, 1.0, 1.0, 1.5), _superquadric,
            _from_superquadric, 3,
        ),
    )
}  # fmt: skip


def drawn(names: list[str], n: int, points: int, seed: int = 0) -> list[tuple[Tensor, int]]:
    """``n`` clouds ``(points, 3)`` in random poses, each with the number of its family in ``names``, families in
    turn."""
    from .reference import poses

    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, int]] = []
    for k, name in enumerate(names):
        count = len(range(k, n, len(names)))
        family = FAMILIES[name]
        for some in family.draw(count, generator).split(CHUNK):
            x = family.points(some, points, generator) @ poses(len(some), 3, generator)
            found += [(cloud, k) for cloud in x.float()]
    order = torch.randperm(len(found), generator=generator).tolist()
    return [found[i] for i in order]
