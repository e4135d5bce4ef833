"""Pictures of generated and real molecules: what a chemist looks at first.

``molecules.png`` draws samples as structural formulas, broken ones with the reason; ``shapes.png`` shows them in
space; ``geometry.png`` plots bond lengths, angles and torsions over those of the data; ``overview.png`` compares sizes,
elements and bonds, and shows why samples are invalid. No display is needed.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fm_science.distances import line_wasserstein
from fm_science.figures import COLOURS, INK, QUIET, draw, figure

from . import drawing, geometry
from .geometry import Geometry
from .molecule import Molecule, symbol
from .validity import judge, reasons

Rows = Mapping[str, Sequence[Molecule]]
SHOWN = 24  # samples drawn as formulas
IN_SPACE = 12  # samples drawn in space, and half as many of the reference
PANELS = 8  # kinds of bonds shown


def report(rows: Rows, folder: str | Path) -> list[Path]:
    """Draw all pictures of the rows into the folder and return their paths; the first row holds the samples, the second
    the reference."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: list(molecules) for name, molecules in rows.items() if len(molecules)}
    if not kept:
        return []
    samples = next(iter(kept.values()))
    files = [drawing.formulas(samples[:SHOWN], folder / "molecules.png")]
    shapes = {name: Geometry.of(molecules) for name, molecules in kept.items()}
    pictures: dict[str, Callable[[], Any]] = {"overview": partial(overview, kept)}
    if any(len(g.atoms) for g in shapes.values()):
        pictures |= {"geometry": partial(internal, shapes), "shapes": partial(in_space, kept)}
    return [*files, *draw(pictures, folder, dpi=160)]


# ------------------------------------------------------------------------------------------------------ composition


def overview(rows: Rows) -> Any:
    """Four panels: sizes, elements, kinds of bonds, and why samples are not valid."""
    canvas = figure(12.4, 6.4)
    canvas.get_layout_engine().set(w_pad=0.14, h_pad=0.12)
    axes = canvas.subplots(2, 2)
    sizes = {name: [str(len(m)) for m in molecules] for name, molecules in rows.items()}
    numbers = [int(n) for v in sizes.values() for n in v]
    _bars(axes[0, 0], sizes, "Atoms of a molecule", [str(n) for n in range(min(numbers), max(numbers) + 1)])
    _bars(axes[0, 1], _elements(rows), "Elements")
    _bars(axes[1, 0], _bonds(rows), "Bonds", _commonest(rows))
    axes[0, 0].legend(fontsize=8, loc="upper left")
    verdict_plot(axes[1, 1], rows)
    return canvas


def _elements(rows: Rows) -> dict[str, list[str]]:
    return {name: [symbol(n) for m in row for n in m.atoms.tolist()] for name, row in rows.items()}


def _bonds(rows: Rows) -> dict[str, list[str]]:
    kinds = {name: Geometry.of(row).bonds for name, row in rows.items()}
    return {name: [geometry.label(k) for k, v in found.items() for _ in v] for name, found in kinds.items()}


def _commonest(rows: Rows) -> list[str]:
    """The labels of the most common kinds of bonds of the reference."""
    base = Geometry.of(list(rows.values())[min(1, len(rows) - 1)]).bonds
    return [geometry.label(kind) for kind in _common(base, 12)]


def _bars(ax: Any, values: Mapping[str, Sequence[str]], title: str, names: Sequence[str] | None = None) -> None:
    """Shares of each label, one bar per row side by side; ``names`` are the labels shown, else all."""
    kinds = list(names) if names else sorted({v for row in values.values() for v in row})
    width = 0.8 / max(1, len(values))
    for i, (name, row) in enumerate(values.items()):
        counts = Counter(row)
        share = np.array([counts[kind] for kind in kinds]) / max(1, len(row))
        places = np.arange(len(kinds)) + (i - (len(values) - 1) / 2) * width
        ax.bar(places, share, width, color=COLOURS[i % len(COLOURS)], label=name, lw=0)
    ax.set(title=title, xticks=range(len(kinds)), ylabel="share")
    ax.set_xticklabels(kinds, fontsize=8 if len(kinds) < 16 else 6)


def verdict_plot(ax: Any, rows: Rows) -> None:
    """The shares of each row that are valid, connected and unique, a dash if that is not defined, and the most common
    reasons for invalid samples."""
    ax.axis("off")
    ax.set_title("Verdicts")
    names = list(rows)[:4]
    right = [0.2 + 0.8 * (i + 1) / len(names) for i in range(len(names))]
    for i, name in enumerate(names):
        words = "\n".join(textwrap.wrap(name, 12))  # two words of a heading are in two lines
        ax.text(right[i], 0.99, words, color=COLOURS[i], ha="right", va="top", weight="bold", fontsize=8)
        shares = verdicts(rows[name])
        for k, share in enumerate(shares.values()):
            text = "-" if math.isnan(share) else f"{share:.1%}"
            ax.text(right[i], 0.82 - 0.1 * k, text, ha="right", va="top", fontsize=9)
    for k, label in enumerate(shares):
        ax.text(0, 0.82 - 0.1 * k, label, va="top", fontsize=9)
    samples = rows[names[0]]
    broken = [f"{n} x {reason}" for reason, n in list(reasons(samples).items())[:5]]
    split = sum(judge(m).valid and not judge(m).connected for m in samples)
    lines = [*broken, *([f"{split} x valid, in several fragments"] if split else [])]
    text = "\n".join(["Why samples fail:", *(lines or ["they do not"])])
    ax.text(0, 0.48, text, va="top", fontsize=8, color=QUIET, linespacing=1.5)


def verdicts(molecules: Sequence[Molecule]) -> dict[str, float]:
    """The shares of molecules that are valid and connected, and of connected ones that are unique: NaN if there are
    none."""
    whole = [v.smiles for m in molecules if (v := judge(m)).connected]
    return {
        "valid": float(np.mean([judge(m).valid for m in molecules])),
        "connected": len(whole) / len(molecules),
        "unique": len(set(whole)) / len(whole) if whole else math.nan,
    }


# --------------------------------------------------------------------------------------------------------- geometry


def internal(shapes: Mapping[str, Geometry]) -> Any:
    """Histograms: lengths of the most common kinds of bonds, most common angles, and torsions about the most common
    bonds."""
    base = list(shapes.values())[min(1, len(shapes) - 1)]
    chosen = {"bonds": _common(base.bonds, PANELS), "angles": _common(base.angles, 4),
              "torsions": _common(base.torsions, 4)}  # fmt: skip
    lines = [("bonds", k) for k in chosen["bonds"]] + [(w, k) for w in ("angles", "torsions") for k in chosen[w]]
    rows = max(1, -(-len(lines) // 4))
    canvas = figure(13, 2.5 * rows)
    axes = canvas.subplots(rows, 4, squeeze=False)
    for ax in axes.flat[len(lines) :]:
        ax.axis("off")
    for ax, (what, kind) in zip(axes.flat, lines, strict=False):
        histogram(ax, {name: getattr(g, what).get(kind, np.zeros(0)) for name, g in shapes.items()}, what, kind)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    return canvas


def _common(values: geometry.Values, most: int) -> list[geometry.Kind]:
    """The kinds with most values."""
    return sorted(values, key=lambda kind: -len(values[kind]))[:most]


def histogram(ax: Any, values: Mapping[str, np.ndarray], what: str, kind: geometry.Kind) -> None:
    """Densities of one kind over the range of the reference, widened; the share outside is written next to it."""
    names = list(values)
    base = values[names[min(1, len(names) - 1)]]
    low, high, width = geometry.BINS[what]
    if what == "bonds" and len(base):
        low, high = (float(np.quantile(base, q)) for q in (0.001, 0.999))
        low, high, width = low - 0.08, high + 0.08, max(0.005, (high - low + 0.16) / 60)
    edges = np.linspace(low, high, round((high - low) / width) + 1)
    for i, (name, v) in enumerate(values.items()):
        if len(v):
            density = np.histogram(v, edges)[0] / len(v) / (edges[1] - edges[0])
            style = {"fill": True, "alpha": 0.25, "lw": 0} if i == 1 else {"lw": 1.5 if i == 0 else 0.9}
            ax.stairs(density, edges, color=COLOURS[i % len(COLOURS)], label=name, zorder=3 - i, **style)
    first = values[names[0]]
    unit = "Å" if what == "bonds" else "°"
    if len(first) and len(base) and len(names) > 1:
        away = float(((first < low) | (first > high)).mean())
        text = f"W1 {line_wasserstein(torch.from_numpy(first), torch.from_numpy(base)):.3g} {unit}"
        text += f"\n{away:.1%} outside" if away > 0.005 else ""
        ax.text(0.98, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=7, color=INK)
    ax.set(title=_name(what, kind), xlim=(low, high), yticks=[])
    ax.set_xlabel({"bonds": "length (Å)", "angles": "angle (°)", "torsions": "torsion (°)"}[what], fontsize=8)
    ax.spines["left"].set_visible(False)


def _name(what: str, kind: geometry.Kind) -> str:
    if what == "angles":
        return "-".join(symbol(z) for z in kind)
    return geometry.label(kind) if what == "bonds" else f"about {geometry.label(kind)}"


# ---------------------------------------------------------------------------------------------------------- in space


def in_space(rows: Rows) -> Any:
    """Samples as balls and sticks, then some of the reference, all at one scale."""
    names = list(rows)
    chosen = [(m, names[0]) for m in rows[names[0]][:IN_SPACE]]
    chosen += [(m, name) for name in names[1:2] for m in rows[name][: IN_SPACE // 2]]
    columns = 6
    lines = -(-len(chosen) // columns)
    wide, high = drawing.reach([m for m, _ in chosen])
    canvas = figure(2.1 * columns, (2.1 * high / wide + 0.3) * lines)
    axes = canvas.subplots(lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, (molecule, row) in zip(axes.flat, chosen, strict=False):
        drawing.balls(ax, molecule, wide, high)
        verdict = judge(molecule)
        state = "connected" if verdict.connected else "in fragments" if verdict.valid else "invalid"
        ax.set_title(f"{row}: {state}" if row == names[0] else row, fontsize=7.5, color=INK, weight="normal")
    return canvas


def against_steps(table: Mapping[float, Mapping[str, float]], file: str | Path, label: str = "steps") -> Path:
    """The picture of some metrics against the number of steps (or another setting), ``table[steps][metric]``."""
    file = Path(file)
    return draw({file.stem: partial(_curves, table, label)}, file.parent)[0]


def _curves(table: Mapping[float, Mapping[str, float]], label: str) -> Any:
    panels = {
        "Graph": ("connected", "valid", "molecule_stable", "unique", "edm_molecule_stable"),
        "Geometry": ("bond_w1", "bond_off_worst"), "Energy (kcal/mol)": ("mmff_strain", "xtb_energy"),
    }  # fmt: skip
    settings = sorted(table)
    canvas = figure(4.2 * len(panels), 3.6)
    for ax, (title, names) in zip(canvas.subplots(1, len(panels)), panels.items(), strict=True):
        for i, name in enumerate(n for n in names if any(n in row for row in table.values())):
            ax.plot(settings, [table[s].get(name, np.nan) for s in settings], "o-", color=COLOURS[i], ms=4, label=name)
        ax.set(title=title, xlabel=label, xscale="log" if settings[0] > 0 else "linear")
        ax.set_xticks(settings, [f"{s:g}" for s in settings])
        ax.minorticks_off()
        ax.set_ylim(bottom=0, top=1.03 if title == "Graph" else None)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    return canvas
