"""The similarity of two sets of shapes: distances between clouds, and statistics of them.

Chamfer distance: the mean squared distance of each point to the nearest of the other cloud, both ways added. Earth
mover's distance: the mean distance between points under the best one-to-one matching. From either:

- 1-NNA: how often a cloud's nearest neighbour comes from its own set. One half means that the sets cannot be
  distinguished (Lopez-Paz & Oquab 2017; Yang et al. 2019).
- MMD: the mean distance of a reference cloud to the nearest sample, the smaller the better.
- COV: the share of reference clouds that are nearest to some sample (Achlioptas et al. 2018).

Numbers depend on the normalisation of clouds, so that is an option: ``none`` centres them only, ``set`` divides all by
one number, the root mean square radius of the reference set, ``cloud`` each by its own. Clouds in random poses are
first rotated onto their principal axes, the longest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .files import Cloud

MATCHED = 128  # points of a cloud that are matched one to one, at most


def chamfer(x: Tensor, y: Tensor) -> float:
    """The Chamfer distance of clouds ``(N, D)`` and ``(M, D)``, squared distances."""
    square = torch.cdist(x, y).square()
    return float(square.amin(1).mean() + square.amin(0).mean())


def earth_mover(x: Tensor, y: Tensor) -> float:
    """The mean distance under the best matching; the larger cloud is thinned evenly, both to at most 128 points."""
    from scipy.optimize import linear_sum_assignment

    n = min(len(x), len(y), MATCHED)
    x, y = (v[torch.linspace(0, len(v) - 1, n).round().long()] for v in (x, y))
    cost = torch.cdist(x, y).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


DISTANCES = {"cd": chamfer, "emd": earth_mover}


def comparable(clouds: Sequence[Cloud], normalise: str, scale: Tensor, turned: bool) -> list[Tensor]:
    """Finite clouds centred, divided and rotated as described above, in double precision."""
    found = []
    for cloud in clouds:
        x = cloud.points.detach().cpu().double()
        if not bool(x.isfinite().all()):
            continue
        x = x - x.mean(0)
        if normalise != "none":
            x = x / (scale if normalise == "set" else radius([x])).clamp_min(1e-12)
        if turned:
            x = x @ torch.linalg.svd(x, full_matrices=False)[2].T
            x = x * torch.where(x.pow(3).sum(0) < 0, -1.0, 1.0)  # the heavier end of each axis first
        found.append(x)
    return found


def radius(clouds: Sequence[Tensor]) -> Tensor:
    """The root mean square distance from the centre, over all points of clouds."""
    return torch.cat([x - x.mean(0) for x in clouds]).square().sum(1).mean().sqrt()


def likeness(
    samples: Sequence[Cloud], reference: Sequence[Cloud], most: int = 64, normalise: str = "set", turned: bool = True
) -> dict[str, float]:
    """1-NNA, MMD and COV by both distances, of equally many clouds of each set. A reference set that is compared with
    itself is split into two halves, which shows the best values that can be expected."""
    if samples is reference or [id(s) for s in samples[:3]] == [id(r) for r in reference[:3]]:
        samples, reference = reference[::2], reference[1::2]
    usable = [c.points.double() for c in reference if bool(c.points.isfinite().all())]
    scale = radius(usable) if usable else torch.tensor(1.0)
    a, b = (comparable(s[:most], normalise, scale, turned) for s in (samples, reference))
    n = min(len(a), len(b))
    numbers: dict[str, float] = {}
    for name, distance in DISTANCES.items():
        unknown = dict.fromkeys(("1nna", "mmd", "cov"), math.nan)
        values = _matching([*a[:n], *b[:n]], n, distance) if n > 1 else unknown
        numbers |= {f"{k}_{name}": v for k, v in values.items()}
    return numbers


def _matching(clouds: list[Tensor], n: int, distance) -> dict[str, float]:
    table = torch.zeros(2 * n, 2 * n, dtype=torch.float64)
    for i in range(2 * n):
        for j in range(i):
            table[i, j] = table[j, i] = distance(clouds[i], clouds[j])
    between = table[:n, n:]
    nearest = table.clone().fill_diagonal_(math.inf).argmin(1)
    same = (nearest < n) == (torch.arange(2 * n) < n)
    covered = len(between.argmin(1).unique()) / n
    return {"1nna": same.double().mean().item(), "mmd": between.amin(0).mean().item(), "cov": covered}
