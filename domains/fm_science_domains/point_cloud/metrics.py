"""How good generated clouds are, compared with reference clouds: energies, distances and sizes.

A metric takes samples and a reference set and returns named numbers. Distances between distributions on the line are
Wasserstein-1 distances between sorted values. Even two finite sets from the same distribution have some distance; the
row of training clouds shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from fm_science.distances import line_wasserstein
from fm_science.domain import option
from fm_science.metrics import Metric

from .data import Sets
from .energies import Energy, distances, virial
from .files import Cloud
from .fits import Fit, recognised
from .likeness import likeness
from .shapes import FAMILIES


@dataclass(frozen=True)
class Metrics:
    """The amount of comparisons, and how the likelihood is measured."""

    clouds: int = option(2_000, "reference clouds that samples are compared with, at most", low=2)
    likelihood: int = option(500, "held-out clouds whose likelihood is measured by `evaluate`; 0: none", low=0)
    weighted: int = option(1_000, "new samples whose importance weights and path lengths are measured", low=0)
    ways: int = option(200, "new samples whose path lengths are measured, if neither of these is", low=0)
    steps: int = option(20, "Runge-Kutta steps of likelihoods and paths", low=2)
    shapes: int = option(50, "clouds of each set that are compared as shapes; 0: none", low=0)
    normalise: str = option(
        "set", "before shapes are compared, divide by the radius of: nothing, the whole set, each cloud",
        choices=("none", "set", "cloud"),
    )  # fmt: skip
    turned: bool = option(True, "rotate clouds onto their principal axes before shapes are compared")


def by_size(clouds: Sequence[Cloud]) -> list[Tensor]:
    """Clouds of equal size together, ``(B, N, D)`` each, in double precision; those that are not finite are left
    out."""
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


def energy_metric(energy: Energy, samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """Energies in kT: mean, median, distances to the distribution of the reference, and the virial, which at
    equilibrium is the number of degrees of freedom."""
    u, v = energies(energy, samples), energies(energy, reference)
    virials = torch.cat([torch.zeros(0).double(), *(virial(energy, x) for x in by_size(samples))])
    middle = u.median().item() if len(u) else math.nan
    return {
        "energy": _mean(u), "energy_median": middle, "energy_w1": line_wasserstein(u, v),
        "energy_w2": line_wasserstein(u, v, 2), "virial": _mean(virials),
    }  # fmt: skip


def distance_metric(samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """Distances between points: mean, W1 to the reference, and the total variation distance (200 bins)."""
    d, e = pair_distances(samples), pair_distances(reference)
    return {"distance": _mean(d), "distance_w1": line_wasserstein(d, e), "distance_tv": total_variation(d, e)}


def size_metric(samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """The share of finite clouds, their size, and its distance to the reference."""
    finite = sum(len(x) for x in by_size(samples)) / max(1, len(samples))
    r = radii(samples)
    return {"finite": finite, "radius": _mean(r), "radius_w1": line_wasserstein(r, radii(reference))}


def total_variation(x: Tensor, y: Tensor, bins: int = 200) -> float:
    """Half the absolute difference of two histograms over the range of the second; values outside count fully."""
    if len(x) == 0 or len(y) == 0:
        return math.nan
    low, high = y.min().item(), y.max().item()
    p, q = (torch.histc(v[(v >= low) & (v <= high)], bins, low, high) / len(v) for v in (x, y))
    return float(0.5 * ((p - q).abs().sum() + 1 - p.sum()))


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def likeness_metric(o: Metrics, samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """1-NNA, MMD and COV of clouds as shapes (:mod:`.likeness`)."""
    return likeness(samples, reference, o.shapes, o.normalise, o.turned)


def parameter_metric(o: Metrics, samples: Sequence[Cloud], reference: Sequence[Cloud]) -> dict[str, float]:
    """Results of the fitted surfaces: the distance of points from the nearest family's surface (root mean square,
    median over clouds), the share of clouds recognised as the requested class, and for each family its share of the
    clouds and the W1 distance of each of its parameters to the reference's."""
    (mine, fits), (theirs, known) = (_fitted(tuple(clouds[: 4 * o.shapes])) for clouds in (samples, reference))
    names = list(FAMILIES)
    error = torch.stack([fits[k].error for k in names], 1).amin(1) if len(mine) else torch.zeros(0)
    wanted = [names.index(c.label) if c.label in names else -1 for c in samples[: 4 * o.shapes] if _sound(c)]
    labelled = torch.tensor(wanted) >= 0
    right = (mine == torch.tensor(wanted))[labelled].double() if bool(labelled.any()) else torch.zeros(0)
    numbers = {"surface_error": error.median().item() if len(error) else math.nan, "class_right": _mean(right)}
    for k, name in enumerate(names):
        a, b = fits[name].parameters[mine == k], known[name].parameters[theirs == k]
        numbers[f"{name}_share"] = _mean((mine == k).double())
        for i, number in enumerate(FAMILIES[name].numbers):
            numbers[f"{name}_{number}_w1"] = line_wasserstein(a[:, i], b[:, i])
    return numbers


def _sound(cloud: Cloud) -> bool:
    return bool(cloud.points.isfinite().all()) and len(cloud) > 3


@lru_cache(maxsize=4)  # the held-out clouds are compared with every row
def _fitted(clouds: tuple[Cloud, ...]) -> tuple[Tensor, dict[str, Fit]]:
    """The family of each finite cloud and the fits of all families, thinned to the number of points of the smallest."""
    points = [c.points.detach().cpu() for c in clouds if _sound(c)]
    least = min((len(x) for x in points), default=0)
    even = [x[torch.linspace(0, len(x) - 1, least).round().long()] for x in points]
    return recognised(torch.stack(even) if even else torch.zeros(0, 4, 3))


def metrics(o: Metrics, energy: Callable[[], Energy] | None, shapes: bool) -> Mapping[str, Metric]:
    """The metrics by name: energies if one is known, else shapes, parameters of procedural ``shapes``."""
    known: dict[str, Metric] = {"size": size_metric, "distance": distance_metric}
    if energy is not None:
        known["energy"] = lambda samples, reference: energy_metric(energy(), samples, reference)
    elif o.shapes:
        known["likeness"] = partial(likeness_metric, o)
    if shapes and o.shapes:
        known["parameters"] = partial(parameter_metric, o)
    return known


def references(o: Metrics, sets: Sets, samples: Sequence[Cloud]) -> dict[str, list[Cloud]]:
    """Held-out clouds, and as many training clouds as there are samples: the best values for this number."""
    count = max(2, min(len(samples), o.clouds))
    return {"held-out": sets.held_out.decoded(o.clouds), "training set": sets.train.decoded(count)}
