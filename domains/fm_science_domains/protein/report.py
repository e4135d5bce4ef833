"""Pictures of generated and real backbones: what an expert looks at first.

``overview.png`` shows torsions, secondary structure, size and bond geometry of all rows; ``traces.png`` shows chains,
and ``contacts.png`` their distance maps. No display is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fm_science.figures import COLOURS, INK, QUIET, draw, figure

from . import drawing
from .geometry import RG_LAW, TRANS, measure
from .ramachandran import Density, pairs, reference
from .structure import Backbone

Rows = Mapping[str, Sequence[Backbone]]
SHORT = {"held-out natives": "natives", "resampled training set": "training", "random coil": "coil"}
SHOWN = 8  # samples drawn


def report(rows: Rows, folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples."""
    usable = {name: [b for b in chains if measure(b)["finite"] and len(b) >= 3] for name, chains in rows.items()}
    usable = {name: chains for name, chains in usable.items() if chains}
    if not usable:
        return []
    pictures = (overview, traces, contacts)
    return draw({picture.__name__: partial(picture, usable) for picture in pictures}, folder, dpi=160)


def _grid(count: int, ratio: float, columns: int = 4, right: float = 0.0) -> tuple[Any, list]:
    """A figure with panels of height over width ``ratio``, a line of text above each; right: inches of free space
    there."""
    gap, head, panel = 0.3, 0.55, 2.7
    lines = -(-count // columns)
    width, height = columns * (panel + gap) + gap + right, lines * (panel * ratio + head) + gap
    canvas = figure(width, height, None)
    places = [divmod(k, columns) for k in range(count)]
    boxes = [(gap + c * (panel + gap), height - (r + 1) * (head + panel * ratio)) for r, c in places]
    return canvas, [canvas.add_axes((x / width, y / height, panel / width, panel * ratio / height)) for x, y in boxes]


def _order(rows: Rows) -> list[tuple[str, Sequence[Backbone], str]]:
    """Rows with their colours, samples last so that they are on top."""
    named = [(name, chains, COLOURS[i % len(COLOURS)]) for i, (name, chains) in enumerate(rows.items())]
    return [*named[1:], named[0]]


def overview(rows: Rows) -> Any:
    """Six panels: torsions of natives and of samples, helix against strand, size against length, CA-CA, a table."""
    canvas = figure(12.4, 7.6)
    canvas.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    axes = canvas.subplots(2, 3, width_ratios=(1, 1, 1.12))
    names = list(rows)
    shown = [names[1], names[0]] if len(names) > 1 else [names[0]] * 2
    for ax, name in zip(axes[0], shown, strict=False):
        torsion_plot(ax, rows[name], name)
    composition_plot(axes[0, 2], rows)
    size_plot(axes[1, 0], rows)
    bond_plot(axes[1, 1], rows)
    table_plot(axes[1, 2], rows)
    return canvas


def torsion_plot(ax: Any, chains: Sequence[Backbone], name: str) -> None:
    """phi against psi as a density of dots over the favoured (solid) and allowed (dashed) regions of real proteins."""
    density = reference()
    _regions(ax, density)
    dots = torch.cat([pairs(b) for b in chains]).rad2deg().cpu()
    colours = torch.linspace(0, 1, len(dots))[torch.argsort(torch.argsort(density(dots.deg2rad())))]
    ax.scatter(*dots.T.numpy(), s=4, c=colours.numpy(), cmap="viridis", alpha=0.45, linewidths=0, rasterized=True)
    inside = [sum(measure(b)[key] for b in chains) / len(chains) for key in ("rama_favoured", "rama_allowed")]
    ax.set(xlim=(-180, 180), ylim=(-180, 180), xlabel="φ (degrees)", ylabel="ψ (degrees)", aspect="equal")
    ax.set(xticks=range(-180, 181, 90), yticks=range(-180, 181, 90), title=f"Torsions: {name}")
    text = f"favoured {inside[0]:.1%}\nallowed {inside[1]:.1%}"
    ax.text(176, -174, text, ha="right", va="bottom", fontsize=8, bbox={"fc": "white", "ec": "none", "alpha": 0.8})


def _regions(ax: Any, density: Density) -> None:
    cells = len(density.mass)
    centres, mass = ((torch.arange(cells) + 0.5) * 360 / cells - 180).numpy(), density.mass.T.numpy()
    levels = [density.allowed, density.favoured, 1.0]
    ax.contourf(centres, centres, mass, levels=levels, colors=["#eef1f4", "#dde3ea"])
    ax.contour(centres, centres, mass, levels=levels[:2], colors="#9aa5b1", linewidths=0.7, linestyles=["--", "-"])


def composition_plot(ax: Any, rows: Rows) -> None:
    """Helix against strand content, one dot per chain."""
    for name, chains, colour in _order(rows):
        helix, strand = ([measure(b)[key] for b in chains] for key in ("helix", "strand"))
        ax.scatter(helix, strand, s=22, color=colour, alpha=0.65, linewidths=0.4, edgecolors="white", label=name)
    ax.plot([0, 1], [1, 0], color=QUIET, lw=0.8, ls=":")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="helix (fraction)", ylabel="strand (fraction)")
    ax.set(title="Secondary structure", aspect="equal")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[-1:] + handles[:-1], labels[-1:] + labels[:-1], loc="upper right", handletextpad=0.1, fontsize=8)


def size_plot(ax: Any, rows: Rows) -> None:
    """Radius of gyration against length, over the mean of real chains and twice the standard deviation."""
    lengths = [len(b) for chains in rows.values() for b in chains]
    factor, power, spread = RG_LAW
    x = torch.linspace(min(lengths) - 2, max(lengths) + 2, 100).numpy()
    law = factor * x**power
    ax.fill_between(x, law * math.exp(-2 * spread), law * math.exp(2 * spread), color="#e4e9ef", lw=0)
    ax.plot(x, law, color="#9aa5b1", lw=1, label=f"{factor:g} · L$^{{{power:g}}}$ Å, ± 2 sd")
    for _, chains, colour in _order(rows):
        ax.scatter([len(b) for b in chains], [measure(b)["rg"] for b in chains], s=14, color=colour, alpha=0.6, lw=0)
    largest = max(measure(b)["rg"] for chains in rows.values() for b in chains)
    top = float(law[-1]) * min(max(1.05 * largest / float(law[-1]), 1.6), 3)
    ax.set(title="Size", xlabel="length (residues)", ylabel="radius of gyration (Å)", ylim=(0, top))
    ax.legend(loc="lower right", fontsize=8)


def bond_plot(ax: Any, rows: Rows) -> None:
    """Distances of neighbouring CA atoms on a logarithmic scale, with the window of trans peptides."""
    bins = torch.linspace(2.6, 5.0, 121)
    ax.axvspan(TRANS[0] - TRANS[1], TRANS[0] + TRANS[1], color="#e4e9ef", lw=0)
    for name, chains, colour in _order(rows):
        if name == "random coil":
            continue  # one spike at 3.81 by construction
        steps = torch.cat([torch.linalg.vector_norm(b.ca[1:] - b.ca[:-1], dim=-1) for b in chains])
        share = torch.histogram(steps.cpu().float().clamp(2.6, 5.0), bins).hist / len(steps)
        ax.stairs(share.clamp_min(1e-9).numpy(), bins.numpy(), color=colour, lw=1.4)
    ax.set(yscale="log", ylim=(2e-4, 1), xlim=(2.6, 5.0), xlabel="CA-CA of neighbours (Å)", title="Bond geometry")
    ax.set_ylabel("share of residues")
    ax.text(2.95, 0.6, "cis", ha="center", color=QUIET, fontsize=8)
    ax.text(3.8, 0.6, "trans", ha="center", color=QUIET, fontsize=8)


TABLE = {
    "ca_ca_ok": ("CA-CA 3.8 Å", "{:.1%}"), "c_n_ok": ("C-N 1.33 Å", "{:.1%}"),
    "rama_favoured": ("favoured φ, ψ", "{:.1%}"), "phi_positive": ("φ > 0", "{:.1%}"),
    "clashes": ("clashes / residue", "{:.3f}"), "rg_ratio": ("Rg / (2.2 L$^{0.38}$)", "{:.2f}"),
    "helix": ("helix", "{:.0%}"), "strand": ("strand", "{:.0%}"), "long_range": ("far contacts / residue", "{:.2f}"),
}  # fmt: skip


def table_plot(ax: Any, rows: Rows) -> None:
    """The most important numbers, averaged over chains, one column per row."""
    ax.axis("off")
    ax.set_title("In numbers")
    columns = list(rows)[:4]
    right = [0.4 + 0.6 * (i + 1) / len(columns) for i in range(len(columns))]
    for i, name in enumerate(columns):
        style = {"ha": "right", "va": "top", "weight": "bold", "fontsize": 8}
        ax.text(right[i], 0.97, SHORT.get(name, name), color=COLOURS[i], **style)
    for k, (key, (label, form)) in enumerate(TABLE.items()):
        y = 0.87 - 0.095 * k
        ax.text(0, y, label, va="top", fontsize=8)
        for i, name in enumerate(columns):
            values = [measure(b)[key] for b in rows[name]]
            ax.text(right[i], y, form.format(sum(values) / len(values)), ha="right", va="top", fontsize=8)


def _gallery(rows: Rows, natives: int) -> list[tuple[Backbone, str]]:
    """Samples, then some real chains, with the name of their row."""
    names = list(rows)
    chosen = [(b, names[0]) for b in rows[names[0]][:SHOWN]]
    return chosen + [(b, name) for name in names[1:2] for b in rows[name][:natives]]


def traces(rows: Rows) -> Any:
    """Chains from the first residue (blue) to the last (red), helices and strands thick, all at one scale."""
    chosen = _gallery(rows, 4)
    drawn = [drawing.upright(b.ca) for b, _ in chosen]
    wide, high = (min(max(float(x[:, k].max()) for x in drawn), 60.0) + 2 for k in (0, 1))
    high = max(high, 0.4 * wide)
    canvas, axes = _grid(len(chosen), high / wide)
    for ax, (backbone, row), ca in zip(axes, chosen, drawn, strict=True):
        ax.axis("off")
        ax.set(xlim=(-wide, wide), ylim=(-high, high))
        drawing.trace(ax, backbone, ca, angstrom=2.7 * 72 / (2 * wide))
        _label(ax, backbone, row)
    axes[0].plot([wide - 10, wide], [1 - high] * 2, color=INK, lw=1.5)
    axes[0].text(wide - 5, 1.6 - high, "10 Å", ha="center", va="bottom", fontsize=8)
    return canvas


def _label(ax: Any, backbone: Backbone, row: str) -> None:
    values = measure(backbone)
    ax.set_title(backbone.name or row, fontsize=9.5, pad=15)
    text = f"{row}, {len(backbone)} residues, helix {values['helix']:.0%}, strand {values['strand']:.0%}"
    ax.annotate(text, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=7, color=QUIET, va="bottom")


def contacts(rows: Rows) -> Any:
    """Distance maps of CA atoms: helices thicken the diagonal, sheets are lines parallel or orthogonal to it."""
    names = list(rows)
    chosen = [(b, name) for name in names[:2] for b in rows[name][:4]]
    canvas, axes = _grid(len(chosen), 1.0, columns=min(4, len(rows[names[0]])), right=0.6)
    image = None
    for ax, (backbone, name) in zip(axes, chosen, strict=True):
        image = ax.imshow(_distances(backbone), cmap="YlGnBu_r", vmin=3.5, vmax=24, origin="lower", aspect="auto")
        ax.tick_params(labelsize=7, length=2)
        ax.spines[:].set_visible(False)
        _label(ax, backbone, name)
    width, height = canvas.get_size_inches()
    place = canvas.add_axes((1 - 0.75 / width, 0.3 / height, 0.1 / width, 2.7 / height))
    bar = canvas.colorbar(image, cax=place, extend="max", ticks=[5, 10, 15, 20])
    bar.set_label("CA-CA (Å)", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    return canvas


def _distances(backbone: Backbone) -> Any:
    ca = backbone.ca.detach().cpu().double()
    return torch.cdist(ca, ca).numpy()
