"""What samples are compared with, at a time that was left out or at one that was learned: always as many cells in each
row, since distances between finite sets shrink as they grow.

The floor is what the cells of that time say of each other, half against half. Straight lines between exact pairs of the
neighbouring snapshots need no flow; a flow that is no better has learned only what the pairs knew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science import ExactPlan, option, sliced_wasserstein, wasserstein

from .data import Cell, Scale, Sets, Shot, cells, part, points


@dataclass(frozen=True)
class Metrics:
    """How samples are judged."""

    most: int = option(600, "cells of each row, at most", low=10)
    clusters: int = option(4, "clusters of the last snapshot for fates, where the file names no groups", low=2)
    steps: int = option(20, "steps of the solver in each interval, for fates", low=1)


def distances(samples: Sequence[Cell], reference: Sequence[Cell], scale: Scale) -> dict[str, float]:
    """The 2-Wasserstein distance by exact transport, the same of projections on random lines, and the distance of the
    means, all in the scaled coordinates; NaN without two cells to compare, and for the reference itself."""
    n = min(len(samples), len(reference))
    if n < 2 or samples == reference:
        return dict.fromkeys(("w2", "sliced_w2", "means"), math.nan)
    x, y = (points(list(row)[:n], scale) for row in (samples, reference))
    return {
        "w2": wasserstein(x, y),
        "sliced_w2": sliced_wasserstein(x, y),
        "means": float((x.mean(0) - y.mean(0)).norm()),
    }


def references(sets: Sets, time: float, most: int) -> dict[str, list[Cell]]:
    """Rows of as many cells each, at most ``most``: cells of that time, then what they are compared with."""
    rows = at_left_out(sets, most) if sets.left is not None and time == sets.left.time else at_learned(sets, time, most)
    return {name: cells(x, sets.scale, time) for name, x in rows.items()}


def at_left_out(sets: Sets, most: int) -> dict[str, Tensor]:
    """Both halves of the snapshot that was left out, straight lines between its neighbours, and the one before."""
    assert sets.left is not None
    before, after = neighbours(sets.train, sets.left.time)
    n = min(most, len(sets.left.x) // 2, len(before.x), len(after.x))
    share = (sets.left.time - before.time) / (after.time - before.time)
    return {
        "cells that were left out": sets.left.x[:n],
        "floor: other cells of that time": sets.left.x[n : 2 * n],
        "straight lines": straight(before.x[:n], after.x[:n], share),
        "snapshot before, unmoved": before.x[:n],
    }


def at_learned(sets: Sets, time: float, most: int) -> dict[str, Tensor]:
    """Held-out cells of a time that was learned (of the next one, where there are none of it), as many others of it,
    and the snapshot before."""
    k = next((k for k, known in enumerate(sets.times) if known >= time), len(sets.times) - 1)
    before = sets.train[max(k - 1, 0)]
    n = min(most, len(sets.held_out[k].x), len(sets.train[k].x), len(before.x))
    when = "" if sets.times[k] == time else f" of time {sets.times[k]:g}"
    return {
        f"held-out cells{when}": sets.held_out[k].x[:n],
        f"floor: training cells{when}": sets.train[k].x[:n],
        "snapshot before, unmoved": part(before, 0, n).x,
    }


def neighbours(shots: Sequence[Shot], time: float) -> tuple[Shot, Shot]:
    """The snapshots before and after a time."""
    return max((s for s in shots if s.time < time), key=lambda s: s.time), next(s for s in shots if s.time > time)


def straight(early: Tensor, late: Tensor, share: float) -> Tensor:
    """Points ``(n, d)`` so far along the straight lines between exact pairs of both sets."""
    order, _ = ExactPlan()(torch.cdist(early, late).square())  # the early cell of each late one
    return torch.lerp(early[order], late, share)
