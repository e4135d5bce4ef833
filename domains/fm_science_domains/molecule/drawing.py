"""Pictures of molecules: structural formulas by RDKit, and ball-and-stick models seen from the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.figures import COLOURS, QUIET

from .molecule import Molecule, quiet
from .validity import judge

#: The usual colours of elements (Corey, Pauling, Koltun), and their radii in angstrom (Alvarez 2008).
COLOUR = {
    1: "#f2f2f2", 6: "#4d5560", 7: "#3b5bdb", 8: "#e03131", 9: "#74b816", 15: "#f08c00", 16: "#f2c200", 17: "#2f9e44",
    35: "#9c4221", 53: "#7048e8",
}  # fmt: skip
RADIUS = {1: 0.31, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 15: 1.07, 16: 1.05, 17: 1.02, 35: 1.2, 53: 1.39}
CELL = (230, 190)  # pixels of a formula
COLUMNS = 6


def formulas(molecules: Sequence[Molecule], file: Path) -> Path:
    """Structural formulas on a grid, with the SMILES below each, or the reason why it is not valid, as a PNG."""
    from rdkit.Chem.Draw import rdMolDraw2D

    lines = -(-len(molecules) // COLUMNS)
    sheet = rdMolDraw2D.MolDraw2DCairo(CELL[0] * min(COLUMNS, len(molecules)), CELL[1] * lines, *CELL)
    options: Any = sheet.drawOptions()
    options.legendFontSize = 13
    options.padding = 0.08
    options.prepareMolsBeforeDrawing = False
    with quiet():
        drawn = [flat(m) for m in molecules]
        sheet.DrawMolecules(drawn, legends=[legend(m) for m in molecules])
    sheet.FinishDrawing()
    file.write_bytes(sheet.GetDrawingText())
    return file


def flat(molecule: Molecule) -> Any:
    """The RDKit molecule with 2D coordinates, hydrogens left out if possible."""
    from rdkit import Chem
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    verdict = judge(molecule)
    if verdict.valid:
        mol = Chem.RemoveHs(verdict.mol)
    else:
        mol = molecule.to_rdkit()
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
    mol.RemoveAllConformers()
    rdDepictor.Compute2DCoords(mol)
    return rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=verdict.valid, addChiralHs=False)


def legend(molecule: Molecule) -> str:
    """A short description of a molecule."""
    verdict = judge(molecule)
    words = verdict.smiles if verdict.connected else ("in fragments" if verdict.valid else verdict.reason)
    return words if len(words) <= 34 else words[:32] + "..."


def upright(positions: Tensor) -> Tensor:
    """(N, 3) centred, the longest axis along x and the shortest towards the viewer; rotated, never mirrored."""
    x = positions.double() - positions.double().mean(0)
    _, _, axes = torch.linalg.svd(x, full_matrices=True)
    return x @ torch.stack([axes[0], axes[1], torch.linalg.cross(axes[0], axes[1])]).T


def reach(molecules: Sequence[Molecule], most: float = 9.0) -> tuple[float, float]:
    """Half the width and half the height in angstrom that show all molecules, or nearly."""
    far = [upright(m.positions)[:, :2].abs().amax(0).tolist() for m in molecules if _drawable(m)]
    wide, high = (min(max((f[k] for f in far), default=2.0), most) + 0.7 for k in (0, 1))
    return wide, max(high, 0.5 * wide)


def _drawable(molecule: Molecule) -> bool:
    return len(molecule) > 0 and bool(torch.isfinite(molecule.positions).all())


def balls(ax: Any, molecule: Molecule, wide: float, high: float) -> None:
    """Balls and sticks, x and y in the plane, z towards the viewer, from far to near; no ball for unknown atoms."""
    ax.set(xlim=(-wide, wide), ylim=(-high, high), aspect="equal", xticks=[], yticks=[])
    if not _drawable(molecule):
        ax.text(0, 0, "no coordinates", ha="center", color=QUIET, fontsize=7)
        return
    place = upright(molecule.positions)
    scale = ax.figure.get_size_inches()[0] * 72 / 6 * 0.9 / (2 * wide)  # points per angstrom
    for i, j in molecule.bonds.triu(1).nonzero().tolist():
        _stick(ax, place[i], place[j], int(molecule.bonds[i, j]), scale)
    for i in place[:, 2].argsort().tolist():
        number = int(molecule.atoms[i])
        radius = 0.55 * RADIUS.get(number, 0.9)
        fill = COLOUR.get(number, COLOURS[5]) if number else "#ffffff"
        ax.plot(*place[i, :2].tolist(), "o", ms=2 * radius * scale, mfc=fill, mec="#22272e", mew=0.4,
                zorder=10 + float(place[i, 2]))  # fmt: skip


def _stick(ax: Any, a: Tensor, b: Tensor, order: int, scale: float) -> None:
    """One line per bond order, side by side."""
    way = (b - a)[:2]
    side = torch.stack([-way[1], way[0]]) / way.norm().clamp_min(1e-9)
    lines = min(order, 3)
    for k in range(lines):
        shift = side * 0.13 * (k - (lines - 1) / 2)
        ends = torch.stack([a[:2] + shift, b[:2] + shift])
        ax.plot(*ends.T.tolist(), color="#6b7280", lw=0.11 * scale, zorder=9.9 + float(torch.minimum(a[2], b[2])),
                solid_capstyle="round")  # fmt: skip
