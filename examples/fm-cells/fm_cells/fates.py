"""Fates: which groups of the last snapshot early cells end in, by the flow.

Each cell of the first snapshot is carried to the last time. Its fates are the shares of the groups among the cells
nearest to where it ends. A flow is deterministic, so a cell near a decision has mixed fates only as far as it ends
between groups; it says where its velocity leads, not with which chance.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fm_science import Flow

from .data import Shot
from .walk import carried

NEAREST = 15  # cells that vote


@dataclass(frozen=True)
class Fates:
    """Where cells end.

    Attributes:
        paths: ``(n, d)`` cells at the time of each snapshot.
        groups: the names of the groups of the last snapshot.
        shares: ``(n, groups)`` that sum to one.
    """

    paths: list[Tensor]
    groups: tuple[str, ...]
    shares: Tensor


def fates(
    flow: Flow, first: Shot, last: Shot, clock: Sequence[float], clusters: int = 4, steps: int = 20
) -> Fates:  # fmt: skip
    """The fates of the cells of the first snapshot among the groups of the last; where the file names no groups, among
    so many clusters of it."""
    names = last.groups or clustered(last.x, clusters)
    groups = tuple(sorted(set(names)))
    paths = carried(flow, first.x, clock, steps)
    return Fates(paths, groups, votes(paths[-1], last.x, [groups.index(name) for name in names], len(groups)))


def votes(x: Tensor, reference: Tensor, labels: Sequence[int], classes: int) -> Tensor:
    """The shares ``(n, classes)`` of labels among the points ``(m, d)`` of reference nearest to ``x`` ``(n, d)``."""
    nearest = torch.cdist(x.double(), reference.double()).topk(min(NEAREST, len(reference)), largest=False).indices
    return torch.nn.functional.one_hot(torch.tensor(labels)[nearest], classes).double().mean(1)


def landing(ends: Tensor, held_out: Tensor, reference: Tensor) -> dict[str, float]:
    """How near ends ``(n, d)`` come to the cells of the last snapshot ``(m, d)``, whatever the shares of its groups:
    the mean distance to the nearest one, and the same of held-out cells of that time. Ends that lie farther than those
    are no cells of that time, and their fates mean nothing."""
    nearest = {
        "ends of first cells to the nearest last cell": ends,
        "floor of that: held-out last cells": held_out,
    }
    return {name: float(torch.cdist(x.double(), reference.double()).amin(1).mean()) for name, x in nearest.items()}


def clustered(x: Tensor, clusters: int, steps: int = 100) -> tuple[str, ...]:
    """Names of clusters of cells ``(n, d)`` by k-means from starts that are far apart (Arthur & Vassilvitskii 2007),
    largest first; always the same ones."""
    generator = torch.Generator().manual_seed(0)
    x = x.double()
    centres = x[:1]
    for _ in range(clusters - 1):
        far = torch.cdist(x, centres).amin(1).square()
        centres = torch.cat([centres, x[torch.multinomial(far, 1, generator=generator)]])
    for _ in range(steps):
        labels = torch.cdist(x, centres).argmin(1)
        means = [x[labels == k].mean(0) if bool((labels == k).any()) else centres[k] for k in range(clusters)]
        centres = torch.stack(means)
    rank = labels.bincount(minlength=clusters).argsort(descending=True).argsort()
    return tuple(f"cluster {k + 1}" for k in rank[labels].tolist())


def table(found: Fates, first: Shot) -> dict[str, float]:
    """The mean shares of the groups at the end, of all first cells and of each of their groups."""
    numbers = {f"fate {group}": float(found.shares[:, k].mean()) for k, group in enumerate(found.groups)}
    for begin in sorted(set(first.groups)):
        mine = torch.tensor([name == begin for name in first.groups])
        for k, group in enumerate(found.groups):
            numbers[f"fate {group}, of {begin}"] = float(found.shares[mine, k].mean())
    return numbers


def write(found: Fates, first: Shot, file: Path) -> Path:
    """One line for each cell of the first snapshot: its row in the file, its group, and the shares of its fates."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["cell", "group", *found.groups])
        groups = first.groups or ("",) * len(first.x)
        for row, group, shares in zip(first.rows.tolist(), groups, found.shares.tolist(), strict=True):
            writer.writerow([row, group, *(f"{share:.4f}" for share in shares)])
    return file
