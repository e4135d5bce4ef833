"""Graphs of near points: which points of each cloud of a batch lie within a radius, with memory for the edges alone.

Space is cut into cells as wide as the radius. A point's neighbours lie in its own cell and in those around it, which
are found by binary search in the sorted list of cells. Small batches compare all pairs, which is quicker.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

DENSE = 2**20  # pairs of sites of a batch, up to which all are compared
FAR = 2**12  # cells from the origin beyond which cells are merged


def radius_graph(x: Tensor, mask: Tensor, radius: float | None) -> Tensor:
    """Ordered pairs of different real points of the same cloud that are nearer than ``radius``.

    Args:
        x: positions ``(B, N, D)``, D at most 3.
        mask: ``(B, N)``, real points.
        radius: in the units of ``x``; ``None``: all pairs.

    Returns:
        ``(2, E)`` receivers and senders, as numbers b N + n of sites, sorted by receiver and sender.
    """
    x = x.detach()
    if radius is None or mask.numel() * mask.shape[1] <= DENSE:
        near = mask[:, :, None] & mask[:, None] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        if radius is not None:
            near = near & ((x[:, :, None] - x[:, None]).square().sum(-1) < radius**2)
        b, i, j = near.nonzero(as_tuple=True)
        return torch.stack([b * mask.shape[1] + i, b * mask.shape[1] + j])
    return _by_cells(x, mask, radius)


def _by_cells(x: Tensor, mask: Tensor, radius: float) -> Tensor:
    site = mask.flatten().nonzero()[:, 0]
    points = x.flatten(0, 1)[site]
    cell = (points / radius).nan_to_num(0.0).floor().clamp(-FAR, FAR).long() + FAR + 1
    key = site // mask.shape[1]
    for axis in range(x.shape[2]):
        key = key * (2 * FAR + 3) + cell[:, axis]
    key, order = key.sort()
    site, points = site[order], points[order]
    found = []
    for step in product((-1, 0, 1), repeat=x.shape[2]):
        shift = 0
        for s in step:
            shift = shift * (2 * FAR + 3) + s
        first, last = (torch.searchsorted(key, key + shift, right=right) for right in (False, True))
        count = last - first
        i = torch.arange(len(key), device=key.device).repeat_interleave(count)
        within = torch.arange(len(i), device=key.device) - (count.cumsum(0) - count)[i]
        j = first[i] + within
        near = (i != j) & ((points[i] - points[j]).square().sum(-1) < radius**2)
        found.append(torch.stack([site[i[near]], site[j[near]]]))
    edges = torch.cat(found, 1)
    return edges[:, (edges[0] * mask.numel() + edges[1]).argsort()]


def envelope(square: Tensor, radius: float | None) -> Tensor:
    """(1 - d² / r²)² inside the radius, from squared distances: messages fade smoothly before an edge is lost."""
    if radius is None:
        return torch.ones_like(square)
    return torch.relu(1 - square / radius**2).square()
