"""Cells that are made, not measured, to try the package without data of one's own::

    python -m fm_cells.made cells.csv

One kind of cells becomes two. From day 0 to day 3 they move from the left to the right, and part into an upper and a
lower branch; those above divide faster, so that their share grows from one half to three quarters, though no cell
changes its branch after day 1.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import torch
from torch import Tensor

DAYS = (0.0, 1.0, 2.0, 3.0)
UPPER = (0.5, 0.5, 0.64, 0.75)  #: the share of the upper branch on each day


def made(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor, list[str]]:
    """Days ``(4 n,)``, coordinates ``(4 n, 3)`` and the branch of ``n`` cells a day."""
    generator = torch.Generator().manual_seed(seed)
    days, x, branch = [], [], []
    for day, share in zip(DAYS, UPPER, strict=True):
        up = torch.arange(n) < round(share * n)
        height = torch.where(up, 1.0, -1.0) * (0.3 + 0.9 * day)
        centre = torch.stack([torch.full((n,), 1.5 * day), height, 0.4 * height.square()], 1)
        x.append(centre + torch.tensor([0.35, 0.3, 0.3]) * torch.randn(n, 3, generator=generator))
        days += [day] * n
        branch += ["upper" if above else "lower" for above in up.tolist()]
    return torch.tensor(days), torch.cat(x), branch


def main(words: list[str]) -> None:
    """Write made cells into the file that is named."""
    file = Path(words[0] if words else "cells.csv")
    days, x, branch = made()
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cell", "day", "branch", "x1", "x2", "x3"])
        for k, (day, row, name) in enumerate(zip(days.tolist(), x.tolist(), branch, strict=True)):
            writer.writerow([f"c{k}", f"{day:g}", name, *(f"{value:.4f}" for value in row)])
    print(file)


if __name__ == "__main__":
    main(sys.argv[1:])
