"""How good generated clouds are, beside reference clouds: energies, distances and sizes.

A metric takes samples and a reference set and returns named numbers. Distances between laws on the line are
Wasserstein-1 distances between sorted values. Even two finite sets of the same law are some distance apart; the row of
training clouds shows how far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fm_science.domain import option
from fm_science.metrics import Metric

from .data import Sets
from .energies import Energy, distances, virial
from .files import Cloud


@dataclass(frozen=True)
class Metrics:
    """How much is compared, and how the likelihood is measured."""

    clouds: int = option(2_000, "reference clouds that samples are compared with, at most", low=2)
    likelihood: int = option(500, "held-out clouds whose likelihood is measured by `evaluate`; 0: none", low=0)
    weighted: int = option(1_000, "new samples whose importance weights and ways are measured", low=0)
    steps: int = option(20, "Runge-Kutta steps of likelihoods and paths", low=2)


def by_size(clouds: Sequence[Cloud]) -> list[Tensor]:
    """Clouds of equal size together, ``(B, N, D)`` each, in double precision; those not finite are left out."""
    sizes: dict[int, list[Tensor]] = {}
    for cloud in clouds:
        if bool(cloud.points.isfinite().all()):
            sizes.setdefault(len(cloud), []).append(cloud.points.detach().cpu().double())
    return [torch.stack(same) for _, same in sorted(sizes.items())]


def energies(energy: Energy, clouds: Sequence[Cloud]) -> Tensor:
    """The energy of each finite cloud, ``(n,)`` in kT."""
    return torch.cat([torch.zeros(0).double(), *(energy(x) for x in by_size(clouds))])


def pair_distances(clouds: Sequence[Cloud]) -> Tensor:
    """Distances of all pairs of all finite clouds, ``(m,)``."""
    return torch.cat([torch.zeros(0).double(), *(distances(x).flatten() for x in by_size(clouds) if x.shape[1] > 1)])


def radii(clouds: Sequence[Cloud]) -> Tensor:
    """The root mean square distance from the centre of each finite cloud, ``(n,)``."""
    turned = [(x - x.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt() for x in by_size(clouds)]
    return torch.cat([torch.zeros(0).double(), *turned])


def wasserstein(x: Tensor, y: Tensor, power: int = 1) -> float:
    """The Wasserstein distance of two sets of numbers, with the root: exact, between their quantile functions."""
    if len(x) == 0 or len(y) == 0:
        return math.nan
    x, y = x.sort().values, y.sort().values
    edges = [torch.arange(1, len(v) + 1, dtype=torch.float64) / len(v) for v in (x, y)]
    cuts = torch.cat(edges).sort().values
    widths = torch.diff(cuts, prepend=cuts.new_zeros(1))
    middle = cuts - widths / 2
    at = [v[(middle * len(v)).long().clamp_max(len(v) - 1)] for v in (x, y)]
    return float((widths * (at[0] - at[1]).abs() ** power).sum() ** (1 / power))


def energy_metric(energy: Energy, samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """Energies in kT: mean, median, distances to the reference's law, and the virial, which at equilibrium is the
    number of degrees of freedom."""
    u, v = energies(energy, samples), energies(energy, reference)
    virials = torch.cat([torch.zeros(0).double(), *(virial(energy, x) for x in by_size(samples))])
    middle = u.median().item() if len(u) else math.nan
    return {
        "energy": _mean(u), "energy_median": middle, "energy_w1": wasserstein(u, v),
        "energy_w2": wasserstein(u, v, 2), "virial": _mean(virials),
    }  # fmt: skip


def distance_metric(samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """Distances between points: mean, W1 to the reference, and the share of probability that differs (200 bins)."""
    d, e = pair_distances(samples), pair_distances(reference)
    return {"distance": _mean(d), "distance_w1": wasserstein(d, e), "distance_tv": total_variation(d, e)}


def size_metric(samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """How many clouds are finite, their size, and its distance to the reference."""
    finite = sum(len(x) for x in by_size(samples)) / max(1, len(samples))
    r = radii(samples)
    return {"finite": finite, "radius": _mean(r), "radius_w1": wasserstein(r, radii(reference))}


def total_variation(x: Tensor, y: Tensor, bins: int = 200) -> float:
    """Half the absolute difference of two histograms over the range of the second; what lies outside counts whole."""
    if len(x) == 0 or len(y) == 0:
        return math.nan
    low, high = y.min().item(), y.max().item()
    p, q = (torch.histc(v[(v >= low) & (v <= high)], bins, low, high) / len(v) for v in (x, y))
    return float(0.5 * ((p - q).abs().sum() + 1 - p.sum()))


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def metrics(energy: Energy | None) -> Mapping[str, Metric]:
    """The metrics by name; energies only where an energy is known."""
    known: dict[str, Metric] = {"size": size_metric, "distance": distance_metric}
    return known if energy is None else {**known, "energy": partial(energy_metric, energy)}


def references(o: Metrics, sets: Sets, samples: Sequence[Cloud]) -> dict[str, list[Cloud]]:
    """Held-out clouds, and as many training clouds as there are samples: the best that many can do."""
    count = max(2, min(len(samples), o.clouds))
    return {"held-out": sets.held_out.decoded(o.clouds), "training set": sets.train.decoded(count)}
