"""Rotations: space has no preferred direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Space
from fm_science.spaces.rotations import quaternion_matrix
from fm_science.state import Context, State, batch_size, leaves
from fm_science.symmetries.base import Symmetry, bound_leaves, flat, nearer, refuse_frozen, square


@dataclass(frozen=True)
class Rotations(Symmetry):
    """Proper rotations of the plane or of space about the origin; mirror images are not in the group.

    ``align`` applies the rotation R that maximises the ambient dot product of R x and y over all parts that have a
    direction (Kabsch 1976). For positions that is the nearest point of the orbit; for frames and unit vectors it is
    nearest in the chordal distance, and a rotation that would increase the geodesic distance is not applied. Frozen
    sites determine the pose, so a batch with frozen sites raises an error; centre positions first (``Centered``).

    Args:
        dim: 2 or 3; ``None``: the length of the vectors in the state.
        beside: float conditions that have no direction although their last axis is as long as a vector.
    """

    dim: int | None = None
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dim not in (None, 2, 3):
            raise ValueError(f"Rotations(dim={self.dim}): expected 2 or 3.")

    def bind(self, space: Space, context: Context) -> Rotations:
        dim = self.dimension(space)
        for name, value in context.cond.items():
            if value.is_floating_point() and value.ndim > 1 and value.shape[-1] == dim and name not in self.beside:
                raise ValueError(
                    f"Rotations would leave the condition {name!r} {tuple(value.shape)} behind, which looks like "
                    f"vectors. Write Rotations(beside=({name!r},)) if it has no direction; else do without."
                )
        return self

    def dimension(self, space: Space) -> int:
        """The dimension of the space that is rotated."""
        if self.dim is not None:
            return self.dim
        vectors = [s.leaf.event[-1] for (s,) in bound_leaves(space) if s.leaf.vector]
        return vectors[0] if vectors else 3

    def draw(self, n: int, like: Tensor, dim: int = 3) -> Tensor:
        """Independent Haar rotations, ``(n, dim, dim)``."""
        if dim == 2:
            return _turn(2 * math.pi * torch.rand(n, dtype=like.dtype, device=like.device))
        return quaternion_matrix(torch.randn(n, 4, dtype=like.dtype, device=like.device))

    def randomise(self, space: Space, x: State) -> State:
        refuse_frozen(space, "Rotations")
        return space.rotate(x, self.draw(batch_size(x), leaves(x)[0], self.dimension(space)))

    def align(self, space: Space, x: State, y: State) -> State:
        moved = space.rotate(x, nearest(self._moment(space, x, y)))
        exact = all(flat(s) for (s,) in bound_leaves(space) if turns(s))
        return moved if exact else nearer(space, moved, x, y)

    def cost(self, space: Space, x: State, y: State) -> Tensor:
        found = bound_leaves(space, x, y)
        if not all(flat(s) for s, *_ in found):
            return super().cost(space, x, y)
        # |R x - y|² = |x|² + |y|² - 2 <R x, y>: the best R itself is not needed
        still = [square(s, a, b) for s, a, b in found if not turns(s)]
        sides = [_length(a) + _length(b) for s, a, b in found if turns(s)]
        overlap = best_overlap(self._moment(space, x, y)) if sides else 0.0
        return torch.as_tensor(sum(still) + sum(sides) - 2 * overlap).clamp_min(0)

    def _moment(self, space: Space, x: State, y: State) -> Tensor:
        """The matrix H with <H, R> = <R x, y> for all rotations R, ``(B, dim, dim)``."""
        refuse_frozen(space, "Rotations")
        dim, first = self.dimension(space), leaves(x)[0]
        none = torch.zeros(len(first), dim, dim, dtype=first.dtype, device=first.device)
        return none + sum(_piece_moment(p, a, b, dim) for p, a, b in bound_leaves(space, x, y) if turns(p))


def _piece_moment(space: BoundLeaf, x: Tensor, y: Tensor, dim: int) -> Tensor:
    """The matrix of one leaf. Vectors give a product of matrices; for others, since rotations act linearly, it follows
    from the dot products under rotations that span all of them."""
    if flat(space):
        return y.reshape(len(y), -1, dim).mT @ x.reshape(len(x), -1, dim)
    basis = _spanning(dim).to(x)
    dots = [(space.rotate(x, r.expand(len(x), dim, dim)) * y).flatten(1).sum(1) for r in basis]
    return (torch.stack(dots, 1) @ torch.linalg.pinv(basis.flatten(1)).mT).unflatten(1, (dim, dim))


def _spanning(dim: int) -> Tensor:
    """Rotations that span all matrices: in the plane 1 and a quarter turn, in space half turns times cyclic swaps of
    axes."""
    if dim == 2:
        return torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]])
    half_turns = torch.diag_embed(torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1]]))
    cycle = torch.eye(3).roll(1, 0)
    return torch.cat([half_turns, half_turns @ cycle, half_turns @ cycle @ cycle])


def _length(x: Tensor) -> Tensor:
    """The squared length of each sample, ``(B,)``."""
    return torch.linalg.vecdot(x.flatten(1), x.flatten(1))


def turns(space: BoundLeaf) -> bool:
    """Whether the points of a bound leaf have a direction."""
    return space.leaf.directed


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
    """The largest <R, h> over proper rotations R: ``(..., d, d)`` to ``(...)``, d = 2 or 3.

    In space that is s1 + s2 + s3 for the singular values of h, s3 with the sign of det h. The largest comes in closed
    form from the eigenvalues of h h' (Smith 1961), the others from (s2 + s3)² = |h|² - s1² + 2 det h / s1.
    """
    if h.shape[-1] == 2:
        return torch.hypot(h[..., 1, 0] - h[..., 0, 1], h[..., 0, 0] + h[..., 1, 1])
    rows = h.double().flatten(-2).unbind(-1)
    a, b, c = rows[:3], rows[3:6], rows[6:]
    aa, bb, cc, ab, ac, bc = (_dot(p, q) for p, q in ((a, a), (b, b), (c, c), (a, b), (a, c), (b, c)))
    mean = (aa + bb + cc) / 3
    d, e, f = aa - mean, bb - mean, cc - mean
    spread = ((d * d + e * e + f * f + 2 * (ab * ab + ac * ac + bc * bc)) / 6).sqrt()
    cubic = d * (e * f - bc * bc) - ab * (ab * f - bc * ac) + ac * (ab * bc - e * ac)
    third = torch.acos((cubic / (2 * spread**3).clamp_min(1e-300)).clamp(-1, 1)) / 3
    first = (mean + 2 * spread * torch.cos(third)).clamp_min(0)
    det = _dot(a, (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]))
    rest = 3 * mean - first + 2 * det / first.sqrt().clamp_min(1e-100)
    return (first.sqrt() + rest.clamp_min(0).sqrt()).to(h.dtype)


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The dot product of vectors given by their three components."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
