"""Drawing one chain as a band on paper: near parts over far ones, each with a pale rim that makes crossings clear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .geometry import secondary
from .structure import Backbone

FINE = 8  # points of the curve between two residues
WIDTHS = (1.7, 3.4, 3.4)  # points on paper: coil, helix, strand
FOG = 0.62  # how far the most distant part fades to white


def upright(ca: Tensor) -> Tensor:
    """CA positions (L, 3), centred and turned (never mirrored) so that the longest axis is x and the shortest depth."""
    x = ca.detach().cpu().double()
    x = x - x.mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)
    axes = axes * torch.linalg.det(axes).sign()  # a rotation keeps helices right-handed on paper
    return x @ axes.T


def curve(points: Tensor, fine: int = FINE) -> Tensor:
    """A Catmull-Rom spline ((L - 1) fine + 1, 3) through points (L, 3)."""
    ends = torch.cat([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = ends[:-3, None], ends[1:-2, None], ends[2:-1, None], ends[3:, None]
    t = (torch.arange(fine, dtype=points.dtype) / fine)[:, None]
    inner = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return torch.cat([inner.flatten(0, 1), points[-1:]])


def trace(ax: Any, backbone: Backbone, ca: Tensor) -> None:
    """Draw the chain with CA positions (L, 3), x and y on paper, z towards the viewer."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    line = curve(ca)
    pieces = torch.stack([line[:-1], line[1:]], 1)
    count = len(pieces)
    kinds = secondary(backbone.coords)
    width = torch.tensor(WIDTHS)[kinds[(torch.arange(count) + FINE // 2) // FINE]]
    depth = pieces.mean(1)[:, 2]
    near = (depth - depth.min()) / (depth.max() - depth.min()).clamp_min(1e-9)
    colour = torch.from_numpy(colormaps["turbo"](torch.linspace(0.06, 0.94, count).numpy())[:, :3])
    colour = 1 - (1 - colour) * (1 - FOG * (1 - near[:, None]))
    step = pieces[:, 1] - pieces[:, 0]
    longer = torch.stack([pieces[:, 0] - 0.3 * step, pieces[:, 1] + 0.3 * step], 1)  # no seams between pieces
    order = torch.argsort(depth)
    # each piece twice: a pale rim, then the colour
    segments = torch.stack([pieces, longer], 1)[order].flatten(0, 1)[..., :2]
    colours = torch.stack([torch.ones_like(colour), colour], 1)[order].flatten(0, 1)
    widths = torch.stack([width + 1.8, width], 1)[order].flatten()
    ax.add_collection(LineCollection(segments.numpy(), colors=colours.numpy(), linewidths=widths.numpy()))
