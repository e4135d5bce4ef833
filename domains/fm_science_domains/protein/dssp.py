"""Secondary structure by the DSSP program itself, beside the hydrogen bonds of pydssp.

The program (Kabsch & Sander 1983; Hekkelman et al. 2025), ``mkdssp``, is not a Python package: it is used where it is
installed (``apt install dssp``, ``conda install dssp``), version 4 or later. A backbone is written as mmCIF, the
program is run on it, and its letters are read: H, G and I are helix, E and B are strand, all others coil.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from fm_science.errors import UserError

from .structure import Backbone
from .writing import write_cif

PROGRAM = "mkdssp"
HELIX, STRAND = "HGI", "EB"
SECONDS = 60  # after which a run of the program is given up


def installed() -> bool:
    """Whether the program is installed."""
    return shutil.which(PROGRAM) is not None


@lru_cache(maxsize=4096)
def letters(backbone: Backbone) -> str:
    """The letter of DSSP for each residue, "-" where it has none; takes half a second.

    Raises:
        UserError: when the program is not installed, fails, or gives other residues than those of the backbone.
    """
    from Bio.PDB.DSSP import make_dssp_dict

    program = shutil.which(PROGRAM)
    if program is None:
        raise UserError(f"DSSP is not installed: there is no program {PROGRAM} (apt install dssp, conda install dssp)")
    with tempfile.TemporaryDirectory() as folder:
        written, found = write_cif(backbone, Path(folder) / "chain.cif"), Path(folder) / "chain.dssp"
        command = [program, "--output-format=dssp", str(written), str(found)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
            rows, keys = make_dssp_dict(str(found))
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            reason = said[-1] if said else "no reason given"
            raise UserError(f"{PROGRAM} failed on {backbone.name}: {reason}") from error
    if len(keys) != len(backbone):
        raise UserError(f"{PROGRAM} found {len(keys)} residues in {backbone.name}: expected {len(backbone)}")
    return "".join(rows[key][1] for key in keys)


def shares(backbones: Sequence[Backbone]) -> dict[str, float]:
    """The mean shares of helix and strand of backbones with finite coordinates; NaN if there are none."""
    found = [letters(b) for b in backbones if bool(torch.isfinite(b.coords).all())]
    if not found:
        return {"dssp_helix": math.nan, "dssp_strand": math.nan}
    return {
        name: sum(sum(map(row.count, kinds)) / len(row) for row in found) / len(found)
        for name, kinds in (("dssp_helix", HELIX), ("dssp_strand", STRAND))
    }
