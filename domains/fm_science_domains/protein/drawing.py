"""Drawing one chain as a ribbon: near parts over far ones, each with a pale rim that makes crossings clear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .geometry import secondary
from .structure import Backbone

FINE = 6  # points of the curve between two residues
WIDTHS = (0.75, 1.5, 1.5)  # angstrom: coil, helix, strand
RIM = 0.5  # angstrom on each side
FOG = 0.55  # how far the most distant part fades to white


def upright(ca: Tensor) -> Tensor:
    """CA positions (L, 3), centred and rotated (never mirrored): the longest axis is x, the shortest is depth."""
    x = ca.detach().cpu().double()
    x = x - x.mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)
    axes = axes * torch.linalg.det(axes).sign()  # a rotation keeps helices right-handed in the picture
    x = x @ axes.T
    return x - (x.amax(0) + x.amin(0)) / 2


def curve(points: Tensor, fine: int = FINE) -> Tensor:
    """A Catmull-Rom spline ((L - 1) fine + 1, 3) through points (L, 3)."""
    ends = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = ends[:-3, None], ends[1:-2, None], ends[2:-1, None], ends[3:, None]
    t = (torch.arange(fine, dtype=points.dtype) / fine)[:, None]
    inner = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return torch.cat([inner.flatten(0, 1), points[-1:]])


def trace(ax: Any, backbone: Backbone, ca: Tensor, angstrom: float) -> None:
    """Draw the chain with CA positions (L, 3), x and y in the plane, z towards the viewer.

    angstrom: points of the picture per angstrom, for the widths of the lines.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    line = curve(ca)
    pieces = torch.stack([line[:-1], line[1:]], 1)
    count = len(pieces)
    kinds = secondary(backbone.coords)
    width = angstrom * torch.tensor(WIDTHS)[kinds[(torch.arange(count) + FINE // 2) // FINE]]
    depth = pieces.mean(1)[:, 2]
    near = (depth - depth.min()) / (depth.max() - depth.min()).clamp_min(1e-9)
    colour = torch.from_numpy(colormaps["turbo"](torch.linspace(0.06, 0.94, count).numpy())[:, :3])
    colour = 1 - (1 - colour) * (1 - FOG * (1 - near[:, None]))
    order = torch.argsort(depth)
    # from far to near, each piece is a pale rim, then its neighbours along the chain again, then its colour: so the rim
    # separates it from parts behind it and not from the chain itself
    rank = torch.argsort(order)
    around = (torch.arange(count)[:, None] + torch.arange(-FINE, FINE + 1)).clamp(0, count - 1)
    around = torch.where(rank[around] < rank[:, None], around, torch.arange(count)[:, None])
    painted = torch.cat([around, torch.arange(count)[:, None]], 1)
    segments = torch.cat([pieces[:, None], pieces[painted]], 1)[order].flatten(0, 1)[..., :2]
    colours = torch.cat([torch.ones_like(colour)[:, None], colour[painted]], 1)[order].flatten(0, 1)
    widths = torch.cat([(width + 2 * RIM * angstrom)[:, None], width[painted]], 1)[order].flatten()
    strokes = LineCollection(
        list(segments.numpy()), colors=colours.numpy(), linewidths=widths.tolist(), capstyle="round"
    )
    ax.add_collection(strokes)
