"""Rotations: space has no preferred direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.spaces.rotations import quaternion_matrix
from fm_science.state import Context, State, batch_size, leaves
from fm_science.symmetries.base import Symmetry, flat, nearer, pieces, refuse_frozen, square


@dataclass(frozen=True)
class Rotations(Symmetry):
    """Proper rotations of the plane or of space about the origin; mirror images are not in the group.

    ``align`` takes the rotation R that maximises the ambient dot product of R x and y over all parts that carry a
    direction (Kabsch 1976). For positions that is the nearest point of the orbit; for frames and unit vectors it is
    nearest in the chordal distance, and a turn that would raise the geodesic distance is not made. Frozen sites fix
    the pose, so a batch with frozen sites is refused; centre positions first (``Centered``).

    Args:
        dim: 2 or 3; ``None``: the length of the vectors in the state.
        beside: float conditions that carry no direction although their last axis is as long as a vector.
    """

    dim: int | None = None
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dim not in (None, 2, 3):
            raise ValueError(f"Rotations(dim={self.dim}): expected 2 or 3.")

    def bind(self, space: Any, context: Context) -> Rotations:
        dim = self.dimension(space)
        for name, value in context.cond.items():
            if value.is_floating_point() and value.ndim > 1 and value.shape[-1] == dim and name not in self.beside:
                raise ValueError(
                    f"Rotations would leave the condition {name!r} {tuple(value.shape)} behind, which looks like "
                    f"vectors. Write Rotations(beside=({name!r},)) if it carries no direction; else do without."
                )
        return self

    def dimension(self, space: Any) -> int:
        """The dimension of the space that is turned."""
        if self.dim is not None:
            return self.dim
        vectors = [s.leaf.event[-1] for (s,) in pieces(space) if getattr(s.leaf, "vector", False)]
        return vectors[0] if vectors else 3

    def draw(self, n: int, like: Tensor, dim: int = 3) -> Tensor:
        """Independent Haar rotations, ``(n, dim, dim)``."""
        if dim == 2:
            return _turn(2 * math.pi * torch.rand(n, dtype=like.dtype, device=like.device))
        return quaternion_matrix(torch.randn(n, 4, dtype=like.dtype, device=like.device))

    def randomise(self, space: Any, x: State) -> State:
        refuse_frozen(space, "Rotations")
        return space.rotate(x, self.draw(batch_size(x), leaves(x)[0], self.dimension(space)))

    def align(self, space: Any, x: State, y: State) -> State:
        moved = space.rotate(x, nearest(self._moment(space, x, y)))
        exact = all(flat(s) for (s,) in pieces(space) if turns(s))
        return moved if exact else nearer(space, moved, x, y)

    def cost(self, space: Any, x: State, y: State) -> Tensor:
        found = pieces(space, x, y)
        if not all(flat(s) for s, *_ in found):
            return super().cost(space, x, y)
        # |R x - y|² = |x|² + |y|² - 2 <R x, y>: the best R need not be known
        still = [square(s, a, b) for s, a, b in found if not turns(s)]
        sides = [s.inner(a, a, a) + s.inner(b, b, b) for s, a, b in found if turns(s)]
        overlap = best_overlap(self._moment(space, x, y)) if sides else 0.0
        return (sum(still) + sum(sides) - 2 * overlap).clamp_min(0)

    def _moment(self, space: Any, x: State, y: State) -> Tensor:
        """The matrix H with <H, R> = <R x, y> for all R, ``(B, dim, dim)``: the derivative of that dot product, since
        rotations act linearly on vectors and frames."""
        refuse_frozen(space, "Rotations")
        found = [p for p in pieces(space, x, y) if turns(p[0])]
        if found and all(flat(s) for s, *_ in found):  # there it is a product of matrices
            rows = [(b.reshape(len(b), -1, b.shape[-1]), a.reshape(len(a), -1, a.shape[-1])) for _, a, b in found]
            return sum(b.mT @ a for b, a in rows)
        eye = torch.eye(self.dimension(space), dtype=leaves(x)[0].dtype, device=leaves(x)[0].device)
        still = eye.expand(batch_size(x), *eye.shape).clone()
        return torch.func.vjp(lambda r: space.rotate(x, r), still)[1](y)[0]


def turns(space: Any) -> bool:
    """Whether the points of a bound leaf carry a direction."""
    leaf = space.leaf
    return getattr(leaf, "vector", type(leaf).rotate is not Space.rotate)


def _turn(angle: Tensor) -> Tensor:
    """Rotations of the plane, ``(..., 2, 2)``."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))


def nearest(h: Tensor) -> Tensor:
    """The proper rotation R with the largest <R, h>, ``(..., d, d)`` with d = 2 or 3; finite for any ``h``, also where
    several rotations are equally good (points on a line, all points at the origin)."""
    if h.shape[-1] == 2:
        return _turn(torch.atan2(h[..., 1, 0] - h[..., 0, 1], h[..., 0, 0] + h[..., 1, 1]))
    u, _, v = torch.linalg.svd(h)
    proper = torch.ones_like(h[..., 0])
    proper[..., -1] = torch.linalg.det(u @ v)
    return (u * proper[..., None, :]) @ v


def best_overlap(h: Tensor) -> Tensor:
    """The largest <R, h> over proper rotations R: ``(..., d, d)`` to ``(...)``, d = 2 or 3. It is the sum of the
    singular values, the smallest with the sign of det h; these are found in closed form (Smith 1961)."""
    if h.shape[-1] == 2:
        return torch.hypot(h[..., 1, 0] - h[..., 0, 1], h[..., 0, 0] + h[..., 1, 1])
    a, b, c = (h.double()[..., k] for k in range(3))
    aa, bb, cc, ab, ac, bc = ((p * q).sum(-1) for p, q in ((a, a), (b, b), (c, c), (a, b), (a, c), (b, c)))
    mean = (aa + bb + cc) / 3
    d, e, f = aa - mean, bb - mean, cc - mean
    spread = ((d * d + e * e + f * f + 2 * (ab * ab + ac * ac + bc * bc)) / 6).sqrt()
    det = d * (e * f - bc * bc) - ab * (ab * f - bc * ac) + ac * (ab * bc - e * ac)
    third = torch.acos((det / (2 * spread**3).clamp_min(1e-300)).clamp(-1, 1)) / 3
    first = mean + 2 * spread * torch.cos(third)
    last = mean + 2 * spread * torch.cos(third + 2 * math.pi / 3)
    sign = torch.sign((a * torch.linalg.cross(b, c)).sum(-1))
    roots = [v.clamp_min(0).sqrt() for v in (first, 3 * mean - first - last, last)]
    return (roots[0] + roots[1] + sign * roots[2]).to(h.dtype)
