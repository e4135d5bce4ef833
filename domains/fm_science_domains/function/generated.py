"""Functions that are made, not read: the families, with a cache for those whose equations take long to solve."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from fm_science.errors import UserError

from . import families
from .families import Family, kernel
from .options import Data
from .sensors import Sampled, Shape, parse, places, quadrature, scattered_weights


def chosen(o: Data) -> Family | None:
    """The family of the options; ``None`` for a file."""
    law = kernel(o.kernel, o.length, o.nu, period=1.0 if o.periodic or o.kernel == "periodic" else None)
    makers = {
        "gp": lambda: families.process(law, o.dim, o.periodic or o.kernel == "periodic"),
        "mogp": lambda: families.mixture(kernel("rbf", 0.1, std=0.4**0.5)),
        "heat": families.heat, "stokes": families.stokes, "burgers": families.burgers, "darcy": families.darcy,
    }  # fmt: skip
    return makers[o.source]() if o.source in makers else None


def make(family: Family, o: Data, seed: int = 0) -> list[Sampled]:
    """The training functions of a family and then the held-out ones. Raises UserError if sensors cannot be random."""
    n = o.train + o.held_out
    if o.sensors and family.gridded:
        raise UserError(f"data.sensors={o.sensors}: {o.source} is solved on whole grids; leave data.sensors=0")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if o.sensors:
            unit = torch.rand(n, o.sensors, family.dim, dtype=torch.float64).sort(1).values
            grid: Shape | None = None
        else:
            grid = parse(o.grid, family.dim, "data.grid")
            unit = places(grid, family.periodic).expand(n, -1, -1)
        values = family.values(unit, grid).double()
    low, size = (torch.tensor(v, dtype=torch.float64) for v in (family.low, family.size))
    if grid is not None:
        coords, weights = unit[0] * size + low, quadrature(grid, family.periodic)
        return [Sampled(v, coords, grid, weights, f"{o.source}_{i:05d}") for i, v in enumerate(values)]
    rows = ((v, x * size + low) for v, x in zip(values, unit, strict=True))
    return [Sampled(v, x, None, scattered_weights(x), f"{o.source}_{i:05d}") for i, (v, x) in enumerate(rows)]


def cached(family: Family, o: Data) -> list[Sampled]:
    """:func:`make`, with the values cached in a folder (``data.cache``, else ``$XDG_CACHE_HOME/fm_science``, else
    ``~/.cache/fm_science``)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fm_science"
    folder = Path(o.cache).expanduser() if o.cache else home
    grid = parse(o.grid, family.dim, "data.grid")
    key = hashlib.sha256(f"{o.source} {grid} {o.train} {o.held_out} {o.sensors} 1".encode()).hexdigest()[:12]
    file = folder / f"{o.source}-{key}.pt"
    if not file.is_file():
        made = make(family, o)
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        torch.save(torch.stack([f.values for f in made]).float(), part)
        os.replace(part, file)
        return made
    values = torch.load(file, weights_only=True).double()
    low, size = (torch.tensor(v, dtype=torch.float64) for v in (family.low, family.size))
    coords, weights = places(grid, family.periodic) * size + low, quadrature(grid, family.periodic)
    return [Sampled(v, coords, grid, weights, f"{o.source}_{i:05d}") for i, v in enumerate(values)]
