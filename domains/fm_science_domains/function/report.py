"""Pictures of generated and reference functions.

``functions.png`` shows functions of every row, on a line with the bands that contain 90 % and 50 % of the held-out
values, in the plane as images; ``moments.png`` the pointwise moments and the autocorrelation; ``spectra.png`` the
variance at each wave number. :func:`resolutions` and :func:`posterior` plot results that need a trained flow. No
display is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.figures import COLOURS, INK, QUIET, draw, figure

from .metrics import autocorrelation, moments, spectrum
from .sensors import Sampled, fitting

Rows = Mapping[str, Sequence[Sampled]]
SHOWN = 8  # functions drawn of each row


def report(rows: Rows, folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples, the second
    the held-out functions."""
    usable = {k: [f for f in fs if bool(f.values.isfinite().all())] for k, fs in rows.items()}
    usable = {k: fs for k, fs in usable.items() if fs}
    if not usable:
        return []
    dim = next(iter(usable.values()))[0].coords.shape[1]
    pictures: dict[str, Any] = {"functions": partial(lines if dim == 1 else sheet, usable)}
    grid = base(usable).grid
    if grid is not None and min(len(fs) for fs in usable.values()) > 1:
        if dim == 1:
            pictures["moments"] = partial(moment_panels, usable)
        pictures["spectra"] = partial(spectra, usable)
    return draw(pictures, folder)


def base(rows: Rows) -> Sampled:
    """The function at whose sensors all rows are compared: the first held-out one."""
    return list(rows.values())[min(1, len(rows) - 1)][0]


def together(rows: Rows) -> dict[str, Tensor]:
    """The values of all rows at common sensors, ``(M, N, C)``."""
    at = base(rows)
    return {name: fitting(fs, at.coords.double(), at.grid) for name, fs in rows.items()}


def period(f: Sampled) -> list[bool]:
    """Which axes of a grid are treated as periodic: those whose two ends have the same weight as the others."""
    assert f.grid is not None
    w = f.weights.unflatten(0, f.grid)
    middle = [n // 2 for n in f.grid]
    ends = [w[tuple(0 if j == k else m for j, m in enumerate(middle))] for k in range(len(f.grid))]
    return [bool(e > 0.75 * w[tuple(middle)]) for e in ends]


def lines(rows: Rows) -> Any:
    """Curves of each row, one panel per row and one line of panels per channel, on the bands of the held-out values."""
    channels, at = base(rows).values.shape[1], base(rows)
    canvas = figure(3.6 * len(rows), 2.9 * channels)
    axes = canvas.subplots(channels, len(rows), squeeze=False, sharex=True, sharey="row")
    common = all(len(f) == len(at) for f in list(rows.values())[min(1, len(rows) - 1)])
    second = list(rows.values())[min(1, len(rows) - 1)]
    reference = together({"reference": second, "at": [at]})["reference"] if common else None
    for c in range(channels):
        for ax, (k, (name, fs)) in zip(axes[c], enumerate(rows.items()), strict=True):
            if reference is not None and len(reference) > 4:
                band(ax, at.coords[:, 0], reference[..., c], QUIET)
            for f in fs[:SHOWN]:
                order = f.coords[:, 0].argsort()
                style = {"marker": ".", "ms": 2.5} if f.grid is None else {}
                x, y = f.coords[order, 0], f.values[order, c].detach().cpu()
                ax.plot(x.numpy(), y.numpy(), color=COLOURS[k % len(COLOURS)], lw=0.9, alpha=0.85, **style)
            if c == 0:
                ax.set_title(name)
    return canvas


def band(ax: Any, x: Tensor, values: Tensor, colour: str) -> None:
    """The bands that contain 90 % and 50 % of values ``(M, N)`` at positions ``(N,)``, and their median."""
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    q = values.double().quantile(levels, dim=0).numpy()
    for low, high, alpha in ((0, 4, 0.18), (1, 3, 0.25)):
        ax.fill_between(x.numpy(), q[low], q[high], color=colour, alpha=alpha, lw=0)
    ax.plot(x.numpy(), q[2], color=colour, lw=1, ls=":")


def sheet(rows: Rows) -> Any:
    """Images of functions of two coordinates (of three: the middle slice), one line of images per row and channel, all
    of one channel in the same colours; scattered sensors as dots."""
    channels = base(rows).values.shape[1]
    kinds = [(name, c) for name in rows for c in range(channels)]
    canvas = figure(1.5 * SHOWN, 1.65 * len(kinds))
    axes = canvas.subplots(len(kinds), SHOWN, squeeze=False)
    reference = list(rows.values())[min(1, len(rows) - 1)]
    low = torch.stack([f.values.amin(0) for f in reference]).amin(0)
    ends = low, torch.stack([f.values.amax(0) for f in reference]).amax(0)
    for line, (name, c) in zip(axes, kinds, strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.set_frame_on(False)
        for ax, f in zip(line, rows[name][:SHOWN], strict=False):
            image(ax, f, c, (float(ends[0][c]), float(ends[1][c])))
        line[0].set_title(name + (f", channel {c}" if channels > 1 else ""))
    return canvas


def image(ax: Any, f: Sampled, channel: int, ends: tuple[float, float]) -> None:
    """One channel of a function, the first coordinate to the right."""
    style = {"cmap": "viridis", "vmin": ends[0], "vmax": ends[1]}
    if f.grid is None:
        ax.scatter(*f.coords[:, :2].T.numpy(), c=f.values[:, channel].numpy(), s=6, lw=0, **style)
        return
    table = f.gridded[..., channel].detach().cpu()
    table = table[:, :, table.shape[2] // 2] if table.ndim == 3 else table
    ax.imshow(table.T.numpy(), origin="lower", aspect="auto", **style)


def moment_panels(rows: Rows) -> Any:
    """Pointwise mean, standard deviation, skewness and kurtosis of the first channel, and the autocorrelation."""
    values, at = together(rows), base(rows)
    assert at.grid is not None
    canvas = figure(14, 2.8)
    axes = canvas.subplots(1, 5)
    for k, (name, x) in enumerate(values.items()):
        found = moments(x[..., 0])
        curves = [found["mean"], found["variance"].sqrt(), found["skewness"], found["kurtosis"]]
        style = {"color": COLOURS[k % len(COLOURS)], "lw": 1.4 if k < 2 else 0.8, "zorder": 9 - k}
        for ax, curve in zip(axes, curves, strict=False):
            ax.plot(at.coords[:, 0].numpy(), curve.numpy(), label=name, **style)
        lags = autocorrelation(x, at.grid, period(at))[:, 0]
        axes[4].plot(range(1, len(lags) + 1), lags.numpy(), **style)
    clip(axes[:4], list(values)[:2], values)
    titles = ("mean", "standard deviation", "skewness", "excess kurtosis", "autocorrelation by lag")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    axes[0].legend(fontsize=7)
    return canvas


def clip(axes: Sequence[Any], names: Sequence[str], values: Mapping[str, Tensor]) -> None:
    """Set the height of panels from samples and held-out functions, not from an untrained network."""
    found = [moments(values[n][..., 0]) for n in names]
    for ax, key in zip(axes, ("mean", "variance", "skewness", "kurtosis"), strict=True):
        y = torch.cat([f[key].sqrt() if key == "variance" else f[key] for f in found])
        gap = 0.15 * float(y.max() - y.min()) + 1e-6
        ax.set_ylim(float(y.min()) - gap, float(y.max()) + gap)


def spectra(rows: Rows) -> Any:
    """The variance at each wave number of all rows, and its ratio to that of the held-out functions."""
    values, at = together(rows), base(rows)
    assert at.grid is not None
    powers = {name: spectrum(x, at.grid, period(at)).sum(1)[1:] for name, x in values.items()}
    reference = list(powers.values())[min(1, len(powers) - 1)]
    canvas = figure(8.6, 3.4)
    left, right = canvas.subplots(1, 2)
    for k, (name, power) in enumerate(powers.items()):
        style = {"color": COLOURS[k % len(COLOURS)], "lw": 1.5 if k < 2 else 0.9, "label": name, "zorder": 9 - k}
        numbers = range(1, len(power) + 1)
        left.plot(numbers, power.clamp_min(1e-30).numpy(), **style)
        right.plot(numbers, (power / reference.clamp_min(1e-30)).numpy(), **style)
    bottom = 0.1 * float(reference.clamp_min(1e-30).min())
    left.set(xscale="log", yscale="log", xlabel="wave number", ylim=(bottom, None))
    right.axhspan(0.9, 1.1, color=QUIET, alpha=0.2, lw=0)
    right.set(xscale="log", xlabel="wave number", ylim=(0, 2.5))
    left.set_title("variance at each wave number")
    right.set_title("ratio to held-out")
    left.legend(fontsize=8)
    return canvas


def ways(frames: Sequence[Sequence[Sampled]], file: Path) -> Path:
    """The trajectories of some samples from noise (grey) to functions (red), one panel per sample, as a picture."""
    return draw({file.stem: partial(_ways, frames)}, file.parent)[0]


def _ways(frames: Sequence[Sequence[Sampled]]) -> Any:
    shown = min(4, len(frames[0]))
    canvas = figure(3.2 * shown, 2.6)
    for k, ax in enumerate(canvas.subplots(1, shown, squeeze=False)[0]):
        way = [frame[k] for frame in frames]
        if way[0].coords.shape[1] > 1:
            image(ax, way[-1], 0, (float(way[-1].values.min()), float(way[-1].values.max())))
            continue
        for j, f in enumerate(way[:: max(1, len(way) // 8)]):
            shade = 0.8 - 0.5 * j / 8
            ax.plot(f.coords[:, 0].numpy(), f.values[:, 0].detach().cpu().numpy(), color=(shade,) * 3, lw=0.7)
        ax.plot(way[-1].coords[:, 0].numpy(), way[-1].values[:, 0].detach().cpu().numpy(), color=COLOURS[0], lw=1.6)
    return canvas


def resolutions(sweep: Mapping[str, Sequence[Sampled]], reference: Sequence[Sampled]) -> Any:
    """Functions on a line at several resolutions, one panel each, and their spectra with that of the reference, whose
    highest wave number is marked."""
    canvas = figure(3.4 * (len(sweep) + 1), 3)
    axes = canvas.subplots(1, len(sweep) + 1)
    at, last = reference[0], axes[-1]
    assert at.grid is not None
    values = fitting(reference, at.coords.double(), at.grid)
    power = spectrum(values, at.grid, period(at))[1:, 0]
    last.plot(range(1, len(power) + 1), power.numpy(), color=INK, lw=2.4, alpha=0.5, label="held-out")
    last.axvline(len(power), color=QUIET, lw=0.8, ls=":")
    for k, (ax, (name, fs)) in enumerate(zip(axes, sweep.items(), strict=False)):
        if k:
            ax.sharey(axes[0])
        band(ax, at.coords[:, 0], values[..., 0], QUIET)
        for f in fs[:5]:
            ax.plot(f.coords[:, 0].numpy(), f.values[:, 0].numpy(), lw=0.9, color=COLOURS[k])
        ax.set_title(f"{name}: {len(fs[0])} sensors")
        x = fitting(fs, fs[0].coords.double(), fs[0].grid)
        fine = spectrum(x, fs[0].grid, period(fs[0]))[1:, 0]  # type: ignore[arg-type]
        last.plot(range(1, len(fine) + 1), fine.clamp_min(1e-30).numpy(), color=COLOURS[k], lw=1, label=name)
    last.set(xscale="log", yscale="log", xlabel="wave number", ylim=(1e-4 * float(power.min()), None))
    last.set_title("variance at each wave number")
    last.legend(fontsize=7)
    return canvas


@dataclass(frozen=True)
class Completion:
    """The data of the picture of one completed function on a line.

    Attributes:
        x: ``(N,)`` positions, in order.
        mean, std: ``(N,)`` of the completions.
        seen: positions and values of the observations.
        lines: ``(N,)`` each, the true function, or the mean and the ends of the exact band.
    """

    x: Tensor
    mean: Tensor
    std: Tensor
    seen: tuple[Tensor, Tensor]
    lines: tuple[Tensor, ...]


def posterior(panels: Mapping[str, Completion]) -> Any:
    """95 % bands of completions, one panel each, with what is known of the functions."""
    canvas = figure(4 * len(panels), 3)
    axes = canvas.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for k, (ax, (name, c)) in enumerate(zip(axes, panels.items(), strict=True)):
        x, low, high = c.x.numpy(), (c.mean - 1.96 * c.std).numpy(), (c.mean + 1.96 * c.std).numpy()
        ax.fill_between(x, low, high, color=COLOURS[k], alpha=0.25, lw=0, label="95 % band")
        ax.plot(x, c.mean.numpy(), color=COLOURS[k], lw=1.4, label="mean")
        for j, line in enumerate(c.lines):
            ax.plot(x, line.numpy(), ls="--" if j else "-", lw=0.9, color=INK)
        ax.scatter(c.seen[0].numpy(), c.seen[1].numpy(), s=18, color=INK, zorder=5)
        ax.set_title(name)
        ax.legend(fontsize=7)
    return canvas
