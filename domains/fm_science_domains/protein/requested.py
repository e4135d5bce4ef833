"""Whether generated chains satisfy their conditions: secondary structure, sheets, and the effect of closing their
bonds.

A generated chain has its conditions (:class:`~.structure.Backbone`); real chains have none, and no such numbers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fm_science.errors import OptionError
from fm_science.state import Context

from .geometry import LETTERS, OPEN, kinds, peptide, secondary, spelt
from .sheets import bridges, numbers, parse, stated, written
from .structure import Backbone

RAW = ("ca_ca_ok", "c_n_ok", "angle_ca_c_n_sd", "angle_c_n_ca_sd")  # measured before bonds are closed, too


def words(context: Context, row: int) -> dict[str, Any]:
    """The fields of a :class:`~.structure.Backbone` with the conditions of chain number ``row`` of a context."""
    real = context.mask[row]
    structure, sheet = (context.cond.get(name) for name in ("structure", "sheet"))
    if structure is None or not (structure[row][real] != OPEN).any():
        return {}
    requested = structure[row][real]
    pairs = stated(sheet[row][real][:, real], requested) if sheet is not None else torch.zeros(0, 3, dtype=torch.long)
    return {"structure": spelt(requested), "sheet": written(pairs)}


def fitting(structure: str, sheet: str, length: int) -> dict[str, Any]:
    """The same fields from a table, of a chain of ``length`` residues; none if they do not fit."""
    if len(structure) != length or set(structure) - set(LETTERS.values()):
        return {}
    try:
        return {"structure": structure, "sheet": written(parse(sheet, kinds(structure))) if sheet else ""}
    except OptionError:
        return {"structure": structure}


def kept(backbone: Backbone) -> dict[str, float]:
    """The shares of the conditions of one chain that are satisfied; NaN without conditions.

    structure_kept: residues that are requested to be coil, helix or strand, and are; sheet_kept: pairs of strands that
    are requested to be parallel or anti-parallel, and are joined in this way by at least one bridge of hydrogen bonds.
    """
    row = {"structure_kept": math.nan, "sheet_kept": math.nan}
    if backbone.structure is None or not backbone.coords.isfinite().all():
        return row
    requested = kinds(backbone.structure)
    said = requested != OPEN
    if said.any():
        row["structure_kept"] = (secondary(backbone.coords) == requested)[said].double().mean().item()
    if backbone.sheet:
        row["sheet_kept"] = _paired(backbone.coords, requested, parse(backbone.sheet, requested))
    return row


def _paired(coords: Tensor, requested: Tensor, pairs: Tensor) -> float:
    """The share of ``pairs`` (P, 3) of strands of a blueprint (L,) with a bridge of the right kind."""
    found, number = bridges(coords), numbers(requested)
    joined = [(found[number == i][:, number == j] == sort).any() for i, j, sort in pairs.tolist()]
    return torch.stack(joined).double().mean().item()


def closed(backbone: Backbone) -> dict[str, float]:
    """The effect of closing the bonds of one chain: its bonds before (see ``geometry.peptide``), and the displacement
    of its atoms, root mean square in angstrom. NaN if they were not closed."""
    names = [f"raw_{name}" for name in RAW]
    raw = backbone.raw
    if raw is None or len(backbone) < 3 or not (raw.isfinite().all() and backbone.coords.isfinite().all()):
        return dict.fromkeys([*names, "atoms_moved"], math.nan)
    before = peptide(raw.detach().cpu().double())
    moved = (raw - backbone.coords).square().sum(-1).mean().sqrt().item()
    return {name: before[plain] for name, plain in zip(names, RAW, strict=True)} | {"atoms_moved": moved}
