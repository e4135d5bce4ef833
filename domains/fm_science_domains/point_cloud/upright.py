"""Oriented clouds: each is rotated onto its own principal axes, so that a network need not learn every pose.

A network that does not commute with rotations has to learn a shape in all poses. If poses have no meaning the cloud
itself can define one: the longest axis first, and the heavier end of each axis in the positive direction. Clouds are
learned in that pose, and new ones are rotated at random after sampling. Only rotations are used, so handedness is kept.
The pose of a round cloud is arbitrary, which does no harm: each is a valid pose.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axes(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Rotations ``(B, D, D)`` such that ``x @ axes`` is oriented.

    Args:
        x: clouds ``(B, N, D)``, at any position.
        mask: ``(B, N)`` bool, the real points; all without it.
    """
    weight = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
    weight = (weight / weight.sum(1, keepdim=True).clamp_min(1))[..., None]
    y = x - (weight * x).sum(1, keepdim=True)
    found = torch.linalg.eigh(y.mT @ (weight * y)).eigenvectors.flip(-1)
    tilt = (weight * (y @ found).pow(3)).sum(1)
    found = found * torch.where(tilt < 0, -1.0, 1.0)[:, None]
    proper = torch.linalg.det(found).sign()
    return torch.cat([found[..., :-1], found[..., -1:] * proper[:, None, None]], -1)


def turned(clouds: list[Tensor]) -> list[Tensor]:
    """Clouds ``(N, D)`` of any sizes, oriented."""
    found: dict[int, Tensor] = {}
    for size in {len(c) for c in clouds}:
        rows = [i for i, c in enumerate(clouds) if len(c) == size]
        x = torch.stack([clouds[i] for i in rows])
        found |= dict(zip(rows, x @ axes(x), strict=True))
    return [found[i] for i in range(len(clouds))]


def poses(n: int, dim: int) -> Tensor:
    """Uniform random rotations, ``(n, dim, dim)``."""
    q, r = torch.linalg.qr(torch.randn(n, dim, dim))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return torch.cat([q[..., :-1], q[..., -1:] * torch.linalg.det(q)[:, None, None]], -1)
