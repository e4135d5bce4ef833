"""Pictures of cells in the plane of their first two principal axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.figures import COLOURS, QUIET, draw, figure

from .data import Cell, Scale, Shot, points
from .fates import Fates

DOTS = 2000  # cells of a panel, at most
PATHS = 60  # cells whose way is drawn


def plane(x: Tensor) -> tuple[Tensor, Tensor]:
    """The centre ``(d,)`` and the first two principal axes ``(d, 2)`` of cells."""
    centre = x.mean(0)
    axes = torch.linalg.svd(x - centre, full_matrices=False).Vh[:2].T
    return centre, torch.nn.functional.pad(axes, (0, 2 - axes.shape[1]))


def rows(found: Mapping[str, Sequence[Cell]], scale: Scale, folder: Path) -> list[Path]:
    """``rows.png``: the cells of every row, one panel each."""
    shown = {name: points(cells, scale)[:DOTS] for name, cells in found.items() if cells}
    centre, axes = plane(torch.cat(list(shown.values())))

    def picture() -> Any:
        canvas = figure(2.8 * len(shown), 2.9)
        panels = canvas.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
        for k, (panel, (name, x)) in enumerate(zip(panels, shown.items(), strict=True)):
            panel.scatter(*((x - centre) @ axes).T, s=4, lw=0, alpha=0.6, color=COLOURS[k % len(COLOURS)])
            panel.set_title(f"{name}\n(n = {len(x):,})", fontsize=8)
        return canvas

    return draw({"rows": picture}, folder)


def overview(shots: Sequence[Shot], grown: Sequence[Tensor], found: Fates, folder: Path) -> list[Path]:
    """``cells.png``: all snapshots with the ways of some first cells, the growth of cells until the next snapshot, and
    the fates of the first cells."""
    centre, axes = plane(torch.cat([shot.x for shot in shots]))

    def flat(x: Tensor) -> Tensor:
        return ((x - centre) @ axes).T

    def picture() -> Any:
        canvas = figure(13.5, 3.9)
        panels = canvas.subplots(1, 3, sharex=True, sharey=True)
        _ways(canvas, panels[0], shots, [flat(x[:PATHS]) for x in found.paths], flat)
        _growths(canvas, panels[1], shots, grown, flat)
        _fates(panels[2], shots, found, flat)
        for panel in panels:
            panel.set_xlabel("first principal axis")
        panels[0].set_ylabel("second principal axis")
        return canvas

    return draw({"cells": picture}, folder)


def _ways(canvas: Any, panel: Any, shots: Sequence[Shot], ways: Sequence[Tensor], flat: Any) -> None:
    x, time = torch.cat([shot.x for shot in shots]), [shot.time for shot in shots for _ in range(len(shot.x))]
    dots = panel.scatter(*flat(x), c=time, s=3, lw=0, alpha=0.5, cmap="viridis", rasterized=True)
    for way in torch.stack(list(ways)).permute(2, 1, 0):
        panel.plot(*way, color="#22272e", lw=0.5, alpha=0.7)
    canvas.colorbar(dots, ax=panel, label="time", shrink=0.8)
    panel.set_title("Cells, and ways of first cells")


def _growths(canvas: Any, panel: Any, shots: Sequence[Shot], grown: Sequence[Tensor], flat: Any) -> None:
    x, growth = torch.cat([shot.x for shot in shots[:-1]]), torch.cat(list(grown))
    panel.scatter(*flat(shots[-1].x), s=3, lw=0, alpha=0.4, color=QUIET)
    dots = panel.scatter(*flat(x), c=growth.clamp_min(1e-3).log2(), s=3, lw=0, cmap="RdBu_r", vmin=-2, vmax=2)
    canvas.colorbar(dots, ax=panel, label="log2 growth until the next time", shrink=0.8, extend="both")
    panel.set_title("Growth (grey: last time)")


def _fates(panel: Any, shots: Sequence[Shot], found: Fates, flat: Any) -> None:
    panel.scatter(*flat(torch.cat([shot.x for shot in shots])), s=3, lw=0, alpha=0.25, color=QUIET, rasterized=True)
    fate = found.shares.argmax(1)
    for k, group in enumerate(found.groups):
        mine, colour = fate == k, COLOURS[k % len(COLOURS)]
        panel.scatter(
            *flat(shots[0].x[mine]), s=6, lw=0, color=colour, label=f"{group} ({float(mine.double().mean()):.0%})"
        )
        panel.scatter(*flat(found.paths[-1][mine]), s=6, lw=0, color=colour, marker="^")
    panel.legend(fontsize=7, markerscale=2, title="most likely end", title_fontsize=7)
    panel.set_title("First cells (dots), their ends (triangles)")
