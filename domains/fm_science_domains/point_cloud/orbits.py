"""The nearest copy of a small planar cloud over order, pose and mirror images together, exactly.

In the plane points are complex numbers, and the best rotation of a cloud x towards y has a closed form: with
z = sum_i y_i conj(x_i) the largest overlap is |z|, and for mirror images |w| with w = sum_i y_i x_i. A few points have
so few orders that all are tried: 24 for four points. This is the exact optimum, which alternating assignment and
rotation only approximate, and it is faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.state import Context
from fm_science.symmetries import Rotations, Symmetry

MOST = 5  # points: 120 orders


@dataclass(frozen=True)
class PlanarOrbits(Symmetry):
    """Reorderings, rotations and mirror images of clouds of up to five points in the plane, as one group.

    The distribution of the noise has to be invariant under all of them, and the network must commute with them.
    """

    def bind(self, space: Space, context: Context) -> PlanarOrbits:
        if context.mask.shape[1] > MOST or not bool(context.mask.all()) or context.free is not None or context.cond:
            raise ValueError(
                f"PlanarOrbits need clouds of one size, at most {MOST} points, nothing frozen and no conditions; the "
                f"batch has {context.mask.shape[1]} sites. Use Transport(Permutations(), Rotations(2))."
            )
        return self

    def cost(self, space: Space, x: Tensor, y: Tensor) -> Tensor:
        best = _overlaps(x, y).square().sum(2).flatten(1).amax(1).sqrt()
        return (x.square().sum((1, 2)) + y.square().sum((1, 2)) - 2 * best).clamp_min(0)

    def align(self, space: Space, x: Tensor, y: Tensor) -> Tensor:
        found = _overlaps(x, y)
        count = found.shape[-1]
        best = found.square().sum(2).flatten(1).argmax(1)
        mirrored, order = best >= count, _orders(x.shape[1], x.device)[best % count]
        moved = x.gather(1, order[..., None].expand_as(x))
        moved = torch.where(mirrored[:, None, None], torch.stack([moved[..., 0], -moved[..., 1]], -1), moved)
        re, im = found.transpose(1, 2).flatten(2).gather(2, best[:, None, None].expand(-1, 2, 1))[..., 0].unbind(1)
        angle = torch.atan2(im, re)
        c, s = angle.cos(), angle.sin()
        return space.rotate(moved, torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2)))

    def randomise(self, space: Space, x: Tensor) -> Tensor:
        order = torch.rand(x.shape[:2], device=x.device).argsort(1)
        x = x.gather(1, order[..., None].expand_as(x))
        sign = torch.randint(0, 2, (len(x), 1), device=x.device) * 2 - 1
        return space.rotate(torch.stack([x[..., 0], sign * x[..., 1]], -1), Rotations(2).draw(len(x), x, 2))


def _orders(n: int, device: torch.device) -> Tensor:
    """All orders of n points, ``(n!, n)``."""
    return torch.tensor(list(permutations(range(n))), device=device)


def _overlaps(x: Tensor, y: Tensor) -> Tensor:
    """z and w, as defined above, for every order of the points of x: ``(B, 2, 2, n!)``, z before w, then real before
    imaginary part."""
    n = x.shape[1]
    orders = _orders(n, x.device)
    chosen = torch.zeros(len(orders), n, n, dtype=x.dtype, device=x.device)
    chosen = chosen.scatter(2, orders[..., None], 1.0).flatten(1)  # (n!, n n): which pairs an order joins
    a, b = y[:, :, None], x[:, None]
    xx, yy, xy, yx = (a[..., i] * b[..., j] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0)))
    pairs = torch.stack([xx + yy, yx - xy, xx - yy, xy + yx], 1).flatten(2)  # (B, 4, n n)
    return (pairs @ chosen.mT).unflatten(1, (2, 2))
