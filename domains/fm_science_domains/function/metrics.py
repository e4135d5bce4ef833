"""How good generated functions are, compared with held-out ones: moments, correlations, spectra and distances between
distributions.

All functions are compared at the held-out functions' sensors (at 64 on each axis if those have none in common), with
values in standard deviations of the data. Two finite sets from the same distribution differ too: the row of training
functions shows by how much. The samples of a perfect flow would be as good as that row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.distances import energy_distance, frechet
from fm_science.domain import option
from fm_science.metrics import Metric

from .exact import crps
from .frame import Frame
from .sensors import Sampled, Shape, fitting, places, quadrature
from .sets import Sets


@dataclass(frozen=True)
class Metrics:
    """The amount of comparisons."""

    functions: int = option(500, "held-out functions that samples are compared with, at most", low=2)
    sweep: int = option(200, "new functions at 1, 2 and 4 times the resolution, measured by `evaluate`; 0: none", low=0)
    likelihood: int = option(0, "held-out functions whose likelihood per sensor is measured; 0: none", low=0)
    completions: int = option(0, "held-out functions completed from a few observations; 0: none", low=0)
    observed: int = option(6, "observations of each function that is completed", low=1)


@dataclass(frozen=True, eq=False)
class Stage:
    """The sensors at which functions are compared: ``coords`` ``(N, d)`` in the units of the source, the grid they form
    if any, weights ``(N,)``, and the frame that scales values."""

    coords: Tensor
    grid: Shape | None
    weights: Tensor
    frame: Frame

    def values(self, functions: Sequence[Sampled]) -> Tensor:
        """Values in standard deviations of the data, ``(M, N, C)`` in double precision; functions that are not finite
        are left out."""
        finite = [f for f in functions if bool(f.values.isfinite().all())]
        if not finite:
            return torch.zeros(0, len(self.coords), len(self.frame.shift), dtype=torch.float64)
        return (fitting(finite, self.coords, self.grid) - self.frame.shift) / self.frame.scale

    def flat(self, functions: Sequence[Sampled]) -> Tensor:
        """Values times the root of their weights, ``(M, N C)``: Euclidean distances of rows are root mean square
        differences of functions, whatever the sensors."""
        values = self.values(functions)
        return (values * self.weights[:, None].sqrt()).flatten(1) / values.shape[2] ** 0.5


def stage(sets: Sets) -> Stage:
    """The sensors at which functions of these sets are compared."""
    f, frame = sets.held_out.functions[0], sets.frame
    if sets.held_out.shared:
        return Stage(f.coords.double(), f.grid, f.weights.double(), frame)
    shape = (64 if sets.dim == 1 else 24,) * sets.dim
    grid = frame.box(places(shape, frame.periodic))
    return Stage(grid, shape, quadrature(shape, frame.periodic), frame)


def moments(x: Tensor) -> dict[str, Tensor]:
    """Mean, variance, skewness and excess kurtosis of each value over functions ``(M, ...)``."""
    mean, centred = x.mean(0), x - x.mean(0)
    variance = centred.square().mean(0)
    std = variance.sqrt().clamp_min(1e-8)
    z = centred / std
    return {"mean": mean, "variance": variance, "skewness": z.pow(3).mean(0), "kurtosis": z.pow(4).mean(0) - 3}


def autocorrelation(x: Tensor, grid: Shape, periodic: Sequence[bool]) -> Tensor:
    """The correlation of values some steps apart along each axis, over all functions ``(M, N, C)`` and positions, by
    the number of steps: around the circle if the axis has a period, else up to half of it. ``(lags of all axes,
    C)``."""
    f = (x - x.mean(0)).unflatten(1, grid)
    base, found = f.square().flatten(0, -2).mean(0).clamp_min(1e-12), []
    for k, (n, p) in enumerate(zip(grid, periodic, strict=True)):
        for lag in range(1, n // 2 + 1):
            ahead = f.roll(-lag, k + 1) if p else f.narrow(k + 1, lag, n - lag)
            here = f if p else f.narrow(k + 1, 0, n - lag)
            found.append((ahead * here).flatten(0, -2).mean(0) / base)
    return torch.stack(found)


def moment_metric(s: Stage, samples: Sequence[Sampled], reference: Sequence[Sampled]) -> dict[str, float]:
    """Mean square differences, over sensors, of pointwise mean, variance, skewness and kurtosis, and over lags of the
    autocorrelation: the five numbers of Kerrigan, Migliorini & Smyth (2024)."""
    x, y = s.values(samples), s.values(reference)
    names = ("mean", "variance", "skewness", "kurtosis", "autocorrelation")
    if len(x) < 2 or len(y) < 2:
        return {f"{name}_mse": math.nan for name in names}
    a, b = moments(x), moments(y)
    found = {f"{k}_mse": float((a[k] - b[k]).square().mean()) for k in a}
    if s.grid is None:
        return {**found, "autocorrelation_mse": math.nan}
    p = s.frame.periodic
    gap = autocorrelation(x, s.grid, p) - autocorrelation(y, s.grid, p)
    return {**found, "autocorrelation_mse": float(gap.square().mean())}


def spectrum(x: Tensor, grid: Shape, periodic: Sequence[bool]) -> Tensor:
    """The variance at each wave number, ``(K, C)``: of the deviations of functions ``(M, N, C)`` from their mean,
    summed over directions with |k| in [j - 1/2, j + 1/2), j from 0 to the smallest Nyquist number. Axes without a
    period are multiplied by a Hann window, so that their ends do not look like waves."""
    f = (x - x.mean(0)).unflatten(1, grid)
    for k, (n, p) in enumerate(zip(grid, periodic, strict=True)):
        if not p:
            fade = torch.hann_window(n, periodic=False, dtype=f.dtype) * (8 / 3) ** 0.5
            f = f * fade.reshape(-1, *[1] * (len(grid) - k))
    waves = torch.fft.fftn(f, dim=tuple(range(1, 1 + len(grid))), norm="forward").abs().square().mean(0)
    numbers = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n) * n for n in grid), indexing="ij"), -1)
    size = numbers.square().sum(-1).sqrt().round().long().flatten()
    top = min(grid) // 2
    power = torch.zeros(int(size.max()) + 1, x.shape[2], dtype=x.dtype)
    return power.index_add(0, size, waves.flatten(0, -2))[: top + 1]


def spectrum_metric(s: Stage, samples: Sequence[Sampled], reference: Sequence[Sampled]) -> dict[str, float]:
    """Variance at each wave number over that of the reference: the mean of |ratio - 1|, and the ratio of all variance
    in the upper half of the wave numbers, where noise of the grid would show."""
    x, y = s.values(samples), s.values(reference)
    if s.grid is None or len(x) < 2 or len(y) < 2:
        return {"spectrum_error": math.nan, "spectrum_high": math.nan}
    a, b = (spectrum(v, s.grid, s.frame.periodic)[1:] for v in (x, y))
    ratio, half = a / b.clamp_min(1e-12 * float(b.max())), len(a) // 2
    return {
        "spectrum_error": float((ratio - 1).abs().mean()),
        "spectrum_high": float(a[half:].sum() / b[half:].sum().clamp_min(1e-300)),
    }


def distance_metric(s: Stage, samples: Sequence[Sampled], reference: Sequence[Sampled]) -> dict[str, float]:
    """Fréchet distance of Gaussians in function space, energy distance, and how well the samples as an ensemble predict
    reference values (continuous ranked probability score, over sensors); all in standard deviations of the data."""
    x, y = s.flat(samples), s.flat(reference)
    if len(x) < 2 or len(y) < 2:
        return {"frechet": math.nan, "energy_distance": math.nan, "crps": math.nan}
    some, truth = s.values(samples), s.values(reference)[:100]
    score = torch.stack([crps(some, v) for v in truth]).mean(0).mean(1)
    return {
        "frechet": frechet(x, y) ** 0.5, "energy_distance": energy_distance(x, y),
        "crps": float((score * s.weights).sum() / s.weights.sum()),
    }  # fmt: skip


def memory_metric(s: Stage, sets: Sets, samples: Sequence[Sampled], reference: Sequence[Sampled]) -> dict[str, float]:
    """The median distance to the nearest training function, and the share of samples three times as near to one
    training function as to any other: those were memorised (Yoon et al. 2023)."""
    x, train = s.flat(samples), s.flat(sets.train.functions[:2000])
    if len(x) == 0 or len(train) < 2:
        return {"nearest_training": math.nan, "memorised": math.nan}
    near = torch.cdist(x, train).topk(2, largest=False).values
    return {"nearest_training": float(near[:, 0].median()),
            "memorised": float((3 * near[:, 0] < near[:, 1]).double().mean())}  # fmt: skip


def value_metric(samples: Sequence[Sampled], reference: Sequence[Sampled]) -> dict[str, float]:
    """The share of functions that are finite, and the mean and standard deviation of their values, in the units of the
    source."""
    finite = [f.values.double().flatten() for f in samples if bool(f.values.isfinite().all())]
    values = torch.cat(finite) if finite else torch.full((1,), math.nan)
    share = len(finite) / max(1, len(samples))
    return {"finite": share, "mean": float(values.mean()), "spread": float(values.std(unbiased=False))}


def metrics(sets: Callable[[], Sets]) -> Mapping[str, Metric]:
    """The metrics by name; ``sets`` gives the data when a metric needs them."""
    on_stage = {"moments": moment_metric, "spectrum": spectrum_metric, "distance": distance_metric}

    def staged(metric: Callable[..., dict[str, float]]) -> Metric:
        return lambda samples, reference: metric(stage(sets()), samples, reference)

    return {
        "values": value_metric, **{name: staged(metric) for name, metric in on_stage.items()},
        "memory": lambda samples, reference: memory_metric(stage(sets()), sets(), samples, reference),
    }  # fmt: skip


def references(o: Metrics, sets: Sets, samples: Sequence[Sampled]) -> dict[str, list[Sampled]]:
    """Held-out functions, and as many training functions as there are samples: as good as a perfect flow."""
    count = max(2, min(len(samples), o.functions))
    return {"held-out": sets.held_out.functions[: o.functions], "training set": sets.train.functions[:count]}


def table(sets: Sets | None, samples: Sequence[Sampled]) -> list[dict[str, object]]:
    """Each sample: its mean, standard deviation and range in the units of the source, and its distance to the nearest
    training function in standard deviations of the data; none if those are missing."""
    finite = iter(_nearest(sets, samples) if sets is not None else [math.nan] * len(samples))
    rows: list[dict[str, object]] = []
    for f in samples:
        v = f.values.double()
        fine = bool(v.isfinite().all())
        rows.append({
            "name": f.name, "sensors": len(f), "mean": float(v.mean()), "spread": float(v.std()), "low": float(v.min()),
            "high": float(v.max()), "nearest_training": next(finite) if fine else math.nan,
        })  # fmt: skip
    return rows


def _nearest(sets: Sets, samples: Sequence[Sampled]) -> list[float]:
    """The distance of each finite sample to the nearest training function."""
    s = stage(sets)
    found: list[float] = torch.cdist(s.flat(samples), s.flat(sets.train.functions[:2000])).min(1).values.tolist()
    return found
