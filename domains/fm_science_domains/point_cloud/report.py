"""Pictures of generated and reference clouds: the histograms that a physicist looks at, and the clouds.

``overview.png`` shows energies, distances and sizes of all rows; ``clouds.png`` plots clouds, one line per row;
``weighted.png`` the effect of importance weights on samples. No display is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.distances import line_wasserstein
from fm_science.figures import COLOURS, QUIET, draw, figure

from .energies import Energy, distances
from .files import Cloud
from .metrics import energies, pair_distances, radii

Rows = Mapping[str, Sequence[Cloud]]
SHOWN = 8  # clouds drawn of each row
WEIGHTED: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[1], "fill": True, "alpha": 0.22, "lw": 0},
    {"color": COLOURS[0], "lw": 1.2, "ls": ":"},
    {"color": COLOURS[2], "lw": 1.5},
)  # styles of the reference, samples, weighted samples
BOND = 1.35  # points nearer than this many times the typical nearest distance are joined by a line


def report(energy: Energy | None, rows: Rows, folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples."""
    usable = {k: [c for c in clouds if bool(c.points.isfinite().all())] for k, clouds in rows.items()}
    usable = {k: clouds for k, clouds in usable.items() if clouds}
    if not usable:
        return []
    return draw({"overview": partial(overview, energy, usable), "clouds": partial(sheet, usable)}, folder)


def overview(energy: Energy | None, rows: Rows) -> Any:
    """Histograms of all rows: energy (if one is known), distance of pairs, size."""
    panels = [("Distances", "distance between points", pair_distances), ("Size", "root mean square radius", radii)]
    if energy is not None:
        panels.insert(0, ("Energy", "energy (kT)", lambda clouds: energies(energy, clouds)))
    canvas = figure(4.3 * len(panels), 3.8)
    axes = canvas.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, label, measure) in zip(axes, panels, strict=True):
        histogram(ax, {name: measure(clouds) for name, clouds in rows.items()})
        ax.set(title=title, xlabel=label, yticks=[])
        ax.spines["left"].set_visible(False)
    axes[-1].legend(fontsize=8, loc="upper right")
    return canvas


def histogram(ax: Any, values: Mapping[str, Tensor]) -> None:
    """Densities over the range of the held-out row, widened a little; the share outside is written next to it.
    The fewer the numbers, the wider the bins."""
    names = list(values)
    bins = min(80, max(12, round(2.5 * min(len(v) for v in values.values()) ** 0.5)))
    base = values[names[1] if len(names) > 1 else names[0]]
    low, high = base.min().item(), base.max().item()
    gap = 0.15 * (high - low) + 1e-6
    edges = torch.linspace(low - gap, high + gap, bins + 1, dtype=torch.float64)
    outside = []
    for i, (name, v) in enumerate(values.items()):
        if len(v) == 0:
            continue
        density = _density(v[:, None], None, edges)
        style = {"fill": True, "alpha": 0.22, "lw": 0} if i == 1 else {"lw": 1.5 if i == 0 else 0.9}
        ax.stairs(density.numpy(), edges.numpy(), color=COLOURS[i % len(COLOURS)], label=name, zorder=3 - i, **style)
        away = ((v < edges[0]) | (v > edges[-1])).double().mean().item()
        outside += [f"{name}: {away:.1%} outside"] if away > 0.005 else []
    if len(names) > 1:
        outside.insert(0, f"W1 to {names[1]}: {line_wasserstein(values[names[0]], base):.3g}")
    ax.text(0.02, 0.98, "\n".join(outside), transform=ax.transAxes, va="top", fontsize=7, color=QUIET)
    ax.set(xlim=(float(edges[0]), float(edges[-1])), ylim=(0, 1.35 * ax.dataLim.y1 + 1e-9))  # space for text


def weighted(energy: Energy, x: Tensor, log_w: Tensor, held_out: Tensor, folder: Path) -> Path:
    """Histograms of energies and distances of samples ``(n, N, D)`` with logarithms of weights ``(n,)``, as they are
    and weighted, with those of reference clouds ``(m, N, D)`` (may be none); and of the weights themselves."""
    return draw({"weighted": partial(_weighted, energy, x.double(), log_w.softmax(0), held_out.double())}, folder)[0]


def _weighted(energy: Energy, x: Tensor, share: Tensor, held_out: Tensor) -> Any:
    """The figure of :func:`weighted`, for weights that add up to one."""
    canvas = figure(12.6, 3.6)
    *axes, last = canvas.subplots(1, 3)
    panels = {"energy (kT)": lambda c: energy(c)[:, None], "distance between points": distances}
    bins = min(40, max(12, round(2 * min(len(x), len(held_out) or len(x)) ** 0.5)))
    rows = [("reference", held_out, None), ("samples", x, None), ("samples, weighted", x, share)]
    for ax, (label, measure) in zip(axes, panels.items(), strict=True):
        base = measure(held_out if len(held_out) else x)
        gap = 0.15 * (base.max() - base.min()) + 1e-6
        edges = torch.linspace(float(base.min() - gap), float(base.max() + gap), bins + 1, dtype=torch.float64)
        for (name, clouds, weight), style in zip(rows, WEIGHTED, strict=True):
            if len(clouds):
                ax.stairs(_density(measure(clouds), weight, edges).numpy(), edges.numpy(), label=name, **style)
        ax.set(xlabel=label, yticks=[])
    axes[0].legend(fontsize=8)
    fair = (share * len(share)).clamp_min(1e-3).log10()
    last.hist(fair.numpy(), bins=40, color=COLOURS[2])
    last.axvline(0, color=QUIET, lw=0.8, ls=":")
    size = 1 / (share.square().sum() * len(share))
    last.set(xlabel="weight over the mean weight, log10", yticks=[], title=f"{size:.0%} of the samples count")
    return canvas


def _density(v: Tensor, share: Tensor | None, edges: Tensor) -> Tensor:
    """The histogram of numbers ``(n, k)`` with weights ``(n,)``, as a density."""
    w = torch.full((len(v),), 1 / len(v), dtype=v.dtype) if share is None else share.to(v)
    each = (w[:, None] / v.shape[1]).expand_as(v)
    return torch.histogram(v.flatten(), edges, weight=each.flatten()).hist / (edges[1] - edges[0])


def paths(frames: Sequence[Sequence[Cloud]], file: Path) -> Path:
    """The trajectories of the points of some samples from noise (grey) to data (red), one panel per sample, as a
    picture."""
    return draw({file.stem: partial(ways, frames)}, file.parent)[0]


def ways(frames: Sequence[Sequence[Cloud]]) -> Any:
    """The figure of :func:`paths`."""
    shown = min(SHOWN, len(frames[0]))
    wide = 1.1 * max(c.points.abs().max().item() for frame in frames for c in frame[:shown])
    canvas = figure(2.2 * shown, 2.3)
    for ax, way in zip(canvas.subplots(1, shown, squeeze=False)[0], zip(*frames, strict=True), strict=False):
        flat = torch.stack([c.points[:, :2].detach().cpu() for c in way])  # seen along z; (steps, N, 2)
        for k in range(len(flat) - 1):
            shade = 0.75 - 0.75 * (k + 1) / len(flat)
            ax.plot(*flat[k : k + 2].permute(2, 0, 1).numpy(), color=(shade, shade, 0.5 + shade / 2), lw=1.2)
        ax.scatter(*flat[0].T.numpy(), s=12, color="#b9c0c8", zorder=2)
        ax.scatter(*flat[-1].T.numpy(), s=24, color=COLOURS[0], zorder=3, edgecolors="white", linewidths=0.6)
        ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-wide, wide), ylim=(-wide, wide))
        ax.set_frame_on(False)
    return canvas


def sheet(rows: Rows) -> Any:
    """A contact sheet: clouds rotated to their flattest view, near points large and dark, joined to neighbours."""
    names = list(rows)
    canvas = figure(1.5 * SHOWN + 0.3, 1.75 * len(names))
    axes = canvas.subplots(len(names), SHOWN, squeeze=False)
    shown = {name: [upright(c.points) for c in rows[name][:SHOWN]] for name in names}
    wide = torch.cat([p.abs().amax(1) for name in names[:2] for p in shown[name]]).max().item() * 1.15
    bond = BOND * _nearest(rows[names[1] if len(names) > 1 else names[0]])
    for line, (name, colour) in enumerate(zip(names, COLOURS * 9, strict=False)):
        for ax in axes[line]:
            ax.set(xlim=(-wide, wide), ylim=(-wide, wide), aspect="equal", xticks=[], yticks=[])
            ax.set_frame_on(False)
        for ax, points in zip(axes[line], shown[name], strict=False):
            cloud(ax, points, colour, bond)
        axes[line][0].set_title(name)
    return canvas


def upright(points: Tensor) -> Tensor:
    """A cloud ``(N, D)`` as ``(N, 3)``: centred, its longest axis x, the shortest depth; planar clouds get depth 0."""
    x = points.detach().cpu().double()
    x = torch.nn.functional.pad(x - x.mean(0), (0, 3 - x.shape[1]))
    _, _, axes = torch.linalg.svd(x, full_matrices=True)
    axes = torch.cat([axes[:2], torch.linalg.cross(axes[0], axes[1])[None]])  # rotated, never mirrored out of plane
    return x @ axes.T


def cloud(ax: Any, points: Tensor, colour: str, bond: float) -> None:
    """Draw points ``(N, 3)``, x and y in the plane, z towards the viewer, from far to near."""
    from matplotlib.colors import to_rgb

    depth = points[:, 2]
    near = (depth - depth.min()) / (depth.max() - depth.min()).clamp_min(1e-9) if len(points) > 4 else depth * 0 + 1
    tint = torch.tensor(to_rgb(colour), dtype=torch.float64)
    shade = 1 - (1 - tint) * (0.35 + 0.65 * near[:, None])
    close = torch.cdist(points, points) < bond
    for i, j in torch.triu(close, 1).nonzero().tolist():
        level = float(torch.minimum(depth[i], depth[j]))
        fog = (shade[i] + shade[j]) / 2
        ax.plot(*points[[i, j], :2].T.numpy(), color=fog.numpy(), lw=1.1, zorder=2 + level * 1e-3)
    size = 15 + 45 * near
    order = depth.argsort()
    x, y = points[order, :2].T.numpy()
    ax.scatter(x, y, s=size[order].numpy(), c=shade[order].numpy(), edgecolors="white", linewidths=0.6, zorder=4)


def _nearest(clouds: Sequence[Cloud]) -> float:
    """The median distance of a point to its nearest neighbour."""
    some = [c.points.detach().cpu().double() for c in clouds[:50] if len(c) > 1]
    if not some:
        return 0.0
    return torch.cat([(torch.cdist(x, x) + torch.eye(len(x)) * 1e9).min(1).values for x in some]).median().item()
