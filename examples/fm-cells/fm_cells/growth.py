"""Growth: how many descendants a cell has, next to the mean cell of its snapshot.

Snapshots count cells, and do not follow them. Where one kind of cells divides and another dies, their shares change
although no cell changes its kind; a coupling that must use every early cell equally would invent cells that turn from
one kind into the other. An *unbalanced* plan between two snapshots holds the late cells exactly, and the early ones by
a penalty ``keep KL(marginal | uniform)`` alone (Chizat et al. 2018). The mass that leaves early cell i, times the
number of early cells, is its growth g_i: above one it has more descendants than the mean cell, below one fewer
(Schiebinger et al. 2019). Only ratios are known: the mean is one, and the growth of the whole culture has to be
measured otherwise.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fm_science import Unbalanced, UserError

from .data import Shot

SIZE = 512  # cells of a table of costs
ROUNDS = 4  # tables that each early cell is in


@torch.no_grad()
def growth(early: Tensor, late: Tensor, reg: float, keep: float) -> Tensor:
    """The growth ``(n,)`` of cells ``(n, d)`` until a later snapshot ``(m, d)``, with mean one.

    Tables of up to 512 cells of both are solved, four for each early cell, and averaged. Draws are from torch's
    generator.

    Args:
        early, late: cells in the coordinates in which they are near.
        reg: weight of the entropy of the plan, in units of the mean squared distance.
        keep: weight of the penalty, in the same units; infinite: all cells grow equally.

    Raises:
        UserError: where a plan does not converge.
    """
    size = min(SIZE, max(len(early), len(late)))
    total, count = (torch.zeros(len(early), dtype=torch.float64) for _ in range(2))
    plan = Unbalanced(reg, keep_data=keep, keep_noise=math.inf)  # the columns, its "data", are the early cells
    for _ in range(ROUNDS):
        for rows in repeated(len(early), -(-len(early) // size) * size).split(size):
            cost = torch.cdist(late[repeated(len(late), size)].double(), early[rows].double()).square()
            try:
                _, mass = plan(cost)
            except RuntimeError as error:
                raise UserError(f"objective.reg={reg:g}: {error}") from error
            total.index_add_(0, rows, mass)
            count.index_add_(0, rows, torch.ones_like(mass))
    found = total / count
    return found / found.mean()


def repeated(n: int, size: int) -> Tensor:
    """``size`` numbers below ``n`` in random order, each as often as any other, but for one."""
    return torch.cat([torch.randperm(n) for _ in range(-(-size // n))])[:size]


def of_groups(shots: Sequence[Shot], grown: Sequence[Tensor]) -> dict[str, float]:
    """The mean growth of each group of the cells of each snapshot but the last, by its name."""
    found = {}
    for shot, later, growths in zip(shots, shots[1:], grown, strict=False):
        for group in sorted(set(shot.groups)):
            mine = torch.tensor([name == group for name in shot.groups])
            found[f"growth of {group}, {shot.time:g} to {later.time:g}"] = float(growths[mine].mean())
    return found


def write(shots: Sequence[Shot], grown: Sequence[Tensor], file: Path) -> Path:
    """One line for each cell of every snapshot but the last: its row in the file (the first cell is 0), its growth
    until the next snapshot, and its rate, log g divided by the time between."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cell", "time", "until", "group", "growth", "rate"])
        for shot, later, growths in zip(shots, shots[1:], grown, strict=False):
            groups = shot.groups or ("",) * len(shot.x)
            for row, group, value in zip(shot.rows.tolist(), groups, growths.tolist(), strict=True):
                rate = math.log(max(value, 1e-300)) / (later.time - shot.time)
                writer.writerow([row, f"{shot.time:g}", f"{later.time:g}", group, f"{value:.5g}", f"{rate:.5g}"])
    return file
