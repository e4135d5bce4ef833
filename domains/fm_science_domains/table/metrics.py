"""How like held-out rows new rows are: each column by itself, all pairs of columns, and the law as a whole.

Distances are between rows in standardised coordinates, angles as points of a circle, classes as corners at distance
one. Even two sets of rows of one law are some distance apart: a reference that is compared with itself is cut into
halves, and the row of training rows shows what as many rows of the true law would score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fm_science.distances import energy_distance, line_wasserstein, sliced_wasserstein, wasserstein
from fm_science.domain import option
from fm_science.metrics import Metric

from .data import Sets, Summary
from .distances import classifier, copies
from .encoding import Encoding
from .files import Numbers
from .rivals import gaussian_rows
from .rows import Row, matrix, rows_of


@dataclass(frozen=True)
class Metrics:
    """How much is compared, and what is said of the trained flow itself."""

    rows: int = option(2_000, "held-out rows that samples are compared with, at most", low=2)
    transport: int = option(500, "rows of each set that are carried onto each other exactly, at most", low=2)
    likelihood: int = option(1_000, "held-out rows whose likelihood is measured; 0: none", low=0)
    steps: int = option(40, "Runge-Kutta steps of likelihoods", low=2)
    coverage: int = option(200, "held-out cells that are filled to measure the coverage of intervals; 0: none", low=0)
    spline: float = option(0.0, "seconds to train a neural spline flow beside ours (zuko); 0: none", "seconds", low=0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows against rows.

    Args:
        encoding: what the columns are.
        o: options.
        sets: gives training rows, read when they are needed.
    """

    encoding: Encoding
    o: Metrics
    sets: Callable[[], Sets]

    def _pair(self, samples: Sequence[Row], reference: Sequence[Row]) -> tuple[Numbers, Numbers]:
        """The values of both, finite rows alone; a reference that is compared with itself is cut in halves."""
        if len(samples) and len(reference) and samples[0] is reference[0]:
            samples, reference = reference[::2], reference[1::2]
        width = len(self.encoding.columns)
        a, b = (matrix(rows[: self.o.rows]).reshape(-1, width) for rows in (samples, reference))
        return a[~np.isinf(a).any(1)], b[~np.isinf(b).any(1)]

    def _points(self, samples: Sequence[Row], reference: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Both as vectors, ``(n, D)`` and ``(m, D)``."""
        x, y = (torch.from_numpy(self.encoding.features(v)) for v in self._pair(samples, reference))
        return x, y

    def columns(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Each column by itself: Wasserstein-1 distances in spreads (on the circle in radians, cut where the data are
        thinnest), total variation of classes; their means, and the worst."""
        x, y = self._pair(samples, reference)
        lines, classes = {}, {}
        for k in self.encoding.order:
            c = self.encoding.columns[k]
            a, b = (v[~np.isnan(v)] for v in (x[:, k], y[:, k]))
            if c.kind == "class":
                p, q = (np.bincount(v.astype(int), minlength=len(c.classes)) / max(1, len(v)) for v in (a, b))
                classes[c.name] = float(0.5 * np.abs(p - q).sum()) if len(a) and len(b) else math.nan
            elif c.kind == "period":
                lines[c.name] = circular_wasserstein(c.coordinate(a), c.coordinate(b))
            else:
                ends = [torch.from_numpy(c.coordinate(v)) for v in (a, b)]
                lines[c.name] = line_wasserstein(ends[0], ends[1])
        found: dict[str, float] = {}
        if lines:
            found |= {"column_w1": float(np.mean(list(lines.values()))), "column_w1_worst": max(lines.values())}
        return found | ({"class_tv": float(np.mean(list(classes.values())))} if classes else {})

    def correlations(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """The mean and largest difference of correlations between the coordinates of rows."""
        x, y = (correlation_matrix(self.encoding.features(v)) for v in self._pair(samples, reference))
        if len(x) < 2 or x.shape != y.shape:
            return {}
        gap = np.abs(x - y)[np.triu_indices(len(x), 1)]
        gap = gap[np.isfinite(gap)]
        mean, worst = (float(gap.mean()), float(gap.max())) if len(gap) else (math.nan, math.nan)
        return {"correlation_error": mean, "correlation_error_worst": worst}

    def energy(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Energy distance and sliced Wasserstein-2 distance."""
        x, y = self._points(samples, reference)
        sliced = sliced_wasserstein(x, y) if len(x) and len(y) else math.nan
        return {"energy_distance": energy_distance(x, y), "sliced_w2": sliced}

    def transport(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """The exact Wasserstein-2 distance of as many rows of each."""
        x, y = self._points(samples, reference)
        n = min(len(x), len(y), self.o.transport)
        return {"w2": wasserstein(x[:n], y[:n]) if n else math.nan}

    def classifier(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """How often a classifier tells samples from reference rows; a half means never."""
        x, y = (self.encoding.features(v) for v in self._pair(samples, reference))
        return {"classifier_accuracy": classifier(x, y)}

    def copies(self, samples: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Copies of training rows among the samples."""
        x = matrix(samples[: self.o.rows]).reshape(-1, len(self.encoding.columns))
        train = self.sets().train.values[:20_000]
        return copies(self.encoding.features(x), self.encoding.features(train))


def metrics(o: Metrics, summary: Summary, sets: Callable[[], Sets]) -> Mapping[str, Metric]:
    """The metrics by name."""
    compare = Comparison(summary.encoding, o, sets)
    return {
        "columns": compare.columns, "correlations": compare.correlations, "energy": compare.energy,
        "transport": compare.transport, "classifier": compare.classifier, "copies": compare.copies,
    }  # fmt: skip


def circular_wasserstein(x: Numbers, y: Numbers, grid: int = 720) -> float:
    """The Wasserstein-1 distance of angles in radians on the circle: the integral of |F - G - median(F - G)| (Rabin,
    Delon & Gousseau 2011), on a grid."""
    if not len(x) or not len(y):
        return math.nan
    edges = np.linspace(-np.pi, np.pi, grid + 1)
    p, q = (np.histogram(v, edges)[0].cumsum() / len(v) for v in (x, y))
    gap = p - q
    return float(np.abs(gap - np.median(gap)).mean() * 2 * np.pi)


def correlation_matrix(features: Numbers) -> Numbers:
    """Correlations of features ``(n, D)``; NaN where one does not vary."""
    if len(features) < 2:
        return np.zeros((0, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_2d(np.corrcoef(features, rowvar=False))


def references(o: Metrics, summary: Summary, sets: Sets, count: int) -> dict[str, list[Row]]:
    """Held-out rows; as many training rows as there are samples, drawn with replacement; and as many rows of a Gaussian
    that is fitted to each combination of classes."""
    rng = np.random.default_rng(0)
    count = max(2, min(count, o.rows))
    again = sets.train.values[rng.integers(0, len(sets.train), count)]
    return {
        "held-out": rows_of(sets.held_out.values[: o.rows], summary),
        "training set": rows_of(again, summary),
        "fitted Gaussian": rows_of(gaussian_rows(sets.train, count, rng), summary),
    }
