"""Triangle meshes of surfaces that everybody knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.spaces import Mesh


def icosphere(splits: int, modes: int = 8) -> Mesh:
    """The unit sphere as 20 * 4^splits triangles."""
    g = (1 + 5**0.5) / 2
    v = torch.tensor([[s * a, 0.0, r * g] for s in (-1, 1) for r in (-1, 1) for a in (1.0,)], dtype=torch.float64)
    v = torch.cat([v, v.roll(1, 1), v.roll(2, 1)])
    edge = torch.cdist(v, v) < 2.1
    triples = torch.combinations(torch.arange(12), 3)
    near = edge[triples[:, 0], triples[:, 1]] & edge[triples[:, 1], triples[:, 2]] & edge[triples[:, 0], triples[:, 2]]
    f, v = triples[near], v / v.norm(dim=1, keepdim=True)
    for _ in range(splits):
        ends = torch.cat([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).sort(1).values
        edges, index = torch.unique(ends, dim=0, return_inverse=True)
        middle = v[edges].mean(1)
        ab, bc, ca = (len(v) + index).chunk(3)
        corners = [(f[:, 0], ab, ca), (f[:, 1], bc, ab), (f[:, 2], ca, bc), (ab, bc, ca)]
        f = torch.cat([torch.stack(c, 1) for c in corners])
        v = torch.cat([v, middle / middle.norm(dim=1, keepdim=True)])
    return Mesh(v, f, modes)


def square(n: int, modes: int = 8) -> Mesh:
    """The unit square in the plane z = 0, with a boundary, ``n`` vertices a side."""
    axis = torch.linspace(0, 1, n, dtype=torch.float64)
    v = torch.nn.functional.pad(torch.cartesian_prod(axis, axis), (0, 1))
    i = torch.arange(n * n).reshape(n, n)
    return Mesh(v, _grid_faces(i), modes)


def doughnut(around: int, through: int, radius: float = 0.4, bumps: float = 0.0, modes: int = 32) -> Mesh:
    """A torus in space around the third axis, of large radius 1, as 2 * around * through triangles.

    Args:
        around, through: vertices along the large and the small circles.
        radius: of the small circles.
        bumps: how much the small radius swells and shrinks, relative to itself, three times around.
    """
    a, b = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in (around, through))
    a, b = torch.cartesian_prod(a, b).unbind(-1)
    r = radius * (1 + bumps * torch.cos(3 * a))
    out = 1 + r * b.cos()
    v = torch.stack([out * a.cos(), out * a.sin(), r * b.sin()], -1)
    i = torch.arange(around * through).reshape(around, through)
    i = torch.cat([i, i[:1]])
    return Mesh(v, _grid_faces(torch.cat([i, i[:, :1]], 1)), modes)


def _grid_faces(i: Tensor) -> Tensor:
    """Two triangles for each cell of a grid of vertex numbers."""
    a, b, c, d = i[:-1, :-1].flatten(), i[1:, :-1].flatten(), i[1:, 1:].flatten(), i[:-1, 1:].flatten()
    return torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])
