"""Pictures of new rows beside others: every column by itself, pairs of columns, correlations; and of a flow of two
numbers what it does to its noise.

``marginals.png``: histograms of all columns; ``pairs.png``: scatter plots of pairs of columns, samples below the
diagonal and held-out rows above; ``correlations.png``: correlations of both and what differs; ``flow.png`` for two
numbers: the learned density, trajectories, arrows of the velocity, and the noise on its way. No display is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fm_science.figures import COLOURS, QUIET, draw, figure
from fm_science.flow import Flow
from fm_science.state import Context

from .columns import Column
from .data import Rows
from .encoding import NUMBERS, Encoding
from .files import Numbers, write_csv
from .metrics import correlation_matrix
from .rows import Row, matrix

Found = Mapping[str, Numbers]
PAIRED = 6  # columns of the pair plot, at most
SHOWN = 24  # columns whose histograms are drawn, at most
DOTS = 1_000  # rows of a scatter plot, at most


def report(encoding: Encoding, rows: Mapping[str, Sequence[Row]], folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples."""
    found = {name: matrix(some) for name, some in rows.items() if len(some)}
    names = [name for name in ("samples", "held-out") if name in found] or list(found)[:2]
    if not names:
        return []
    pictures = {"marginals": partial(marginals, encoding, found)}
    if len(encoding.order) > 1:
        pair = {name: found[name] for name in names}
        pictures |= {"pairs": partial(pairs, encoding, pair), "correlations": partial(correlations, encoding, pair)}
    return draw(pictures, folder)


def marginals(encoding: Encoding, rows: Found) -> Any:
    """One histogram a column, over the range of the held-out rows."""
    shown = encoding.learned[:SHOWN]
    wide = min(4, len(shown))
    high = -(-len(shown) // wide)
    canvas = figure(3.1 * wide, 2.3 * high + 0.3)
    axes = canvas.subplots(high, wide, squeeze=False).ravel()
    for ax, k in zip(axes, shown, strict=False):
        _marginal(ax, encoding.columns[k], {name: v[:, k] for name, v in rows.items()})
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(rows), fontsize=8)
    return canvas


def _marginal(ax: Any, column: Column, rows: Found) -> None:
    ax.set(title=column.name, yticks=[])
    ax.spines["left"].set_visible(False)
    clean = {name: v[np.isfinite(v)] for name, v in rows.items()}
    if column.kind == "class":
        count = len(column.classes)
        for i, (name, v) in enumerate(clean.items()):
            share = np.bincount(v.astype(int), minlength=count) / max(1, len(v))
            ax.bar(
                np.arange(count) + (i - len(rows) / 2) * 0.8 / len(rows),
                share,
                0.8 / len(rows),
                color=COLOURS[i % 6],
                label=name,
            )
        ax.set_xticks(range(count), column.classes, rotation=30 if count > 4 else 0, fontsize=7)
        return
    base = clean.get("held-out", next(iter(clean.values())))
    low, high = _range(column, base)
    bins = min(60, max(12, round(2 * len(base) ** 0.5)))
    edges = np.linspace(low, high, bins + 1)
    for i, (name, v) in enumerate(clean.items()):
        if not len(v):
            continue
        share = np.histogram(v, edges)[0] / len(v) / np.diff(edges)
        style: dict[str, Any] = (
            {"fill": True, "alpha": 0.25, "lw": 0} if name == "held-out" else {"lw": 1.6 if i == 0 else 0.8}
        )
        ax.stairs(share, edges, color=COLOURS[i % 6], label=name, zorder=9 - i, **style)
    top = max(
        float(np.histogram(v, edges, density=True)[0].max()) for v in (base, next(iter(clean.values()))) if len(v)
    )
    ax.set(xlim=(low, high), ylim=(0, 1.25 * top if np.isfinite(top) and top > 0 else 1))


def _range(column: Column, v: Numbers) -> tuple[float, float]:
    if column.kind == "period":
        return column.start, column.start + column.period
    if not len(v):
        return 0.0, 1.0
    low, high = (float(q) for q in np.quantile(v, [0.002, 0.998]))
    gap = 0.08 * (high - low) + 1e-9
    return low - gap, high + gap


def pairs(encoding: Encoding, rows: Found) -> Any:
    """Scatter plots of the first columns: samples below the diagonal, held-out rows above, histograms on it."""
    shown = encoding.learned[:PAIRED]
    names = list(rows)
    if len(shown) == 2:
        return _two(encoding, rows)
    n = len(shown)
    canvas = figure(1.7 * n + 0.4, 1.7 * n + 0.4)
    axes = canvas.subplots(n, n, squeeze=False)
    rng = np.random.default_rng(0)
    for i, k in enumerate(shown):
        for j, m in enumerate(shown):
            ax = axes[i][j]
            ax.tick_params(labelsize=6)
            if i == j:
                _marginal(ax, encoding.columns[k], {name: v[:, k] for name, v in rows.items()})
                continue
            which = names[0] if i > j else names[-1]
            _scatter(ax, encoding, rows, which, (m, k), rng)
            if i < n - 1:
                ax.set_xticklabels([])
            if j > 0:
                ax.set_yticklabels([])
    canvas.suptitle(f"below: {names[0]}   above: {names[-1]}", fontsize=9, color=QUIET)
    return canvas


def _two(encoding: Encoding, rows: Found) -> Any:
    """Two columns: a scatter plot a row of the report."""
    canvas = figure(4.0 * len(rows), 3.9)
    rng = np.random.default_rng(0)
    pair = (encoding.learned[0], encoding.learned[1])
    for ax, name in zip(canvas.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        _scatter(ax, encoding, rows, name, pair, rng, dots=4 * DOTS)
        ax.set(title=name, xlabel=encoding.columns[pair[0]].name, ylabel=encoding.columns[pair[1]].name)
    return canvas


def _scatter(
    ax: Any, encoding: Encoding, rows: Found, which: str, pair: tuple[int, int], rng: np.random.Generator,
    dots: int = DOTS,
) -> None:  # fmt: skip
    """Two columns against each other; classes are spread a little, so that dots do not cover each other."""
    base = rows.get("held-out", rows[which])
    v = rows[which][:dots]
    xy = [v[:, k] + (0.25 * (rng.random(len(v)) - 0.5) if encoding.columns[k].kind == "class" else 0) for k in pair]
    ax.scatter(*xy, s=5, lw=0, alpha=0.5, color=COLOURS[0 if which == "samples" else 1])
    for k, setter, axis in zip(pair, (ax.set_xlim, ax.set_ylim), (ax.xaxis, ax.yaxis), strict=True):
        column = encoding.columns[k]
        if column.kind == "class":
            axis.set_ticks(range(len(column.classes)), column.classes)
        seen = base[:, k][np.isfinite(base[:, k])]
        setter(*((-0.5, len(column.classes) - 0.5) if column.kind == "class" else _range(column, seen)))


def correlations(encoding: Encoding, rows: Found) -> Any:
    """Correlations of the coordinates of samples and of held-out rows, and their difference."""
    names = list(rows)
    tables = {name: correlation_matrix(encoding.features(v)) for name, v in rows.items()}
    labels = feature_names(encoding)
    panels = dict(tables)
    if len(names) > 1:
        panels["difference"] = tables[names[0]] - tables[names[1]]
    size = max(2.6, 0.16 * len(labels) + 1.6)
    canvas = figure(size * len(panels) + 0.8, size)
    for i, (ax, (name, table)) in enumerate(
        zip(canvas.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)
    ):
        shown = ax.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        ax.set(title=name, xticks=[], yticks=range(len(labels)) if i == 0 else [])
        if i == 0:
            ax.set_yticklabels(labels, fontsize=6)
        ax.set_frame_on(False)
    canvas.colorbar(shown, ax=ax, shrink=0.8)
    return canvas


def feature_names(encoding: Encoding) -> list[str]:
    """The names of the coordinates that :meth:`Encoding.features` gives."""
    found: list[str] = []
    for c in encoding.columns:
        if not c.learned:
            continue
        parts = {"period": [f"cos {c.name}", f"sin {c.name}"], "class": [f"{c.name} = {v}" for v in c.classes]}
        found += parts.get(c.kind, [c.name])
    return found


def trajectory(encoding: Encoding, frames: Sequence[Sequence[Row]], folder: Path, first: int = 0) -> list[Path]:
    """One CSV a sample with a row a step, and where there are two numbers a picture of the ways."""
    folder = Path(folder) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, way in enumerate(zip(*frames, strict=True), start=first):
        files.append(folder / f"row_{i:06d}.csv")
        cells = [row.cells for row in way]
        write_csv([list(c.values()) for c in cells], files[-1], list(cells[0]), append=False)
    if len(encoding.linear) > 1:
        x = np.stack([matrix(frame)[:, encoding.linear[:2]] for frame in frames])
        files += draw({f"ways_{first:06d}": partial(_ways_figure, encoding, x)}, folder)
    return files


def _ways_figure(encoding: Encoding, x: Numbers) -> Any:
    canvas = figure(4.2, 4.0)
    ax = canvas.subplots()
    _ways(ax, x)
    names = [encoding.columns[k].name for k in encoding.linear[:2]]
    ax.set(xlabel=names[0], ylabel=names[1])
    return canvas


def _ways(ax: Any, x: Numbers) -> None:
    """Lines ``(steps, n, 2)`` from noise (grey) to data (red)."""
    ax.plot(x[..., 0], x[..., 1], color=QUIET, lw=0.5, alpha=0.6)
    ax.scatter(*x[0].T, s=6, color="#b9c0c8", lw=0, zorder=2)
    ax.scatter(*x[-1].T, s=10, color=COLOURS[0], lw=0, zorder=3)


@torch.no_grad()
def flow_pictures(flow: Flow, encoding: Encoding, held_out: Rows, folder: Path) -> list[Path]:
    """``flow.png``: what a flow of two numbers does."""
    walk = _walk(flow, encoding, 600)
    return draw({"flow": partial(_flow_figure, flow, encoding, held_out, walk)}, folder)


def _walk(flow: Flow, encoding: Encoding, n: int, steps: int = 40) -> Numbers:
    """Coordinates ``(steps + 1, n, 2)`` of rows on their way from noise."""
    context = _plain(encoding, n, flow)
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    noise = flow.noise(context)
    torch.random.set_rng_state(torch_state)
    states = [noise, *flow.trajectory(noise, context, steps=steps)]
    return np.stack([s[NUMBERS][..., 0].cpu().double().numpy() for s in states])


def _plain(encoding: Encoding, n: int, flow: Flow) -> Context:
    observed = torch.ones(n, len(encoding.order), dtype=torch.bool)
    return Context.full(n, encoding.sites, observed=observed).to(next(flow.parameters()).device)


def _flow_figure(flow: Flow, encoding: Encoding, held_out: Rows, walk: Numbers) -> Any:
    canvas = figure(13.2, 6.8)
    top, bottom = canvas.subfigures(2, 1, height_ratios=[1.35, 1])
    axes = top.subplots(1, 3)
    data = held_out.state[NUMBERS][:3000, :, 0].numpy()
    low, high = np.quantile(data, 0.001, 0) - 0.6, np.quantile(data, 0.999, 0) + 0.6
    _density(axes[0], flow, encoding, low, high)
    axes[0].scatter(*data[:400].T, s=2, color="white", lw=0, alpha=0.7)
    axes[0].set(title="learned density, held-out rows")
    _ways(axes[1], walk[:, :150])
    axes[1].set(title="trajectories from noise to data")
    _arrows(axes[2], flow, encoding, low, high)
    for ax in axes:
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
    axes[1].set(xlim=(min(low[0], -3), max(high[0], 3)), ylim=(min(low[1], -3), max(high[1], 3)))
    for ax, share in zip(bottom.subplots(1, 5), (0, 0.25, 0.5, 0.75, 1), strict=True):
        ax.scatter(*walk[round(share * (len(walk) - 1))].T, s=4, lw=0, color=COLOURS[0])
        ax.set(title=f"t = {share:g}", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), xticks=[], yticks=[], aspect="equal")
    return canvas


def _density(ax: Any, flow: Flow, encoding: Encoding, low: Numbers, high: Numbers, points: int = 48) -> None:
    """The density of the flow on a grid of coordinates."""
    axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    x = {NUMBERS: torch.from_numpy(grid)[..., None].to(next(flow.parameters()).device, flow.dtype)}
    logp = flow.log_prob(x, _plain(encoding, len(grid), flow), steps=20).cpu().double().numpy()
    ax.pcolormesh(*axes, np.exp(logp).reshape(points, points).T, cmap="viridis", shading="gouraud", rasterized=True)


def _arrows(ax: Any, flow: Flow, encoding: Encoding, low: Numbers, high: Numbers) -> None:
    """Velocities half way, as arrows on a grid of coordinates."""
    axes = [np.linspace(a, b, 19) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    context = _plain(encoding, len(grid), flow)
    x = {NUMBERS: torch.from_numpy(grid)[..., None].to(context.mask.device, flow.dtype)}
    t = torch.full((len(grid),), 0.5, dtype=flow.dtype, device=context.mask.device)
    path: Any = flow.path.bind(context, flow.prior)
    u = path.velocity(flow.network(x, t, context), x, t)[NUMBERS][..., 0].cpu().numpy()
    ax.quiver(*grid.T, *u.T, color=COLOURS[1], width=0.004)
    ax.set(title="velocity at t = 1/2")
