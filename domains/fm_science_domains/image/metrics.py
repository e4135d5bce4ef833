"""How good generated images are, compared with held-out ones: distances of distributions in features, classes, and
copies.

A metric takes samples and the held-out images and returns named numbers. Two finite sets from the same distribution
have some distance: the row of training images shows it for distances to held-out images, and the row of held-out images
for distances to training images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fm_science.distances import frechet
from fm_science.domain import option
from fm_science.metrics import Metric

from .data import Sets
from .features import Features
from .picture import Image

NEIGHBOURS = 3  #: of precision and recall, as Kynkäänniemi et al. (2019)
CHUNK = 512


@dataclass(frozen=True)
class Metrics:
    """The amount of comparisons, and how the likelihood is measured."""

    images: int = option(2_000, "held-out images that samples are compared with, at most", low=2)
    likelihood: int = option(8, "held-out images whose bits per dimension `evaluate` measures; 0: none", low=0)
    steps: int = option(20, "Runge-Kutta steps of the likelihood", low=2)
    exact: int = option(64, "values an image up to which the trace is exact; above, Hutchinson's estimate", low=0)
    draws: int = option(1, "samples of the noise within grey levels, averaged", low=1)
    evaluations: int = option(64, "new samples over which evaluations of the network are counted; 0: none", low=0)
    cache: str | None = option(None, "folder for the classifier whose features are compared; none: the user's")
    fid: bool = option(False, "also FID, by torch-fidelity and its Inception weights (pip install torch-fidelity)")


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)³ (Bińkowski et al. 2018)."""
    if min(len(x), len(y)) < 2:
        return math.nan

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def support(x: Tensor, y: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision: the share of ``x`` inside the balls of ``y`` that reach to their k-th neighbours; recall: the same
    with roles exchanged (Kynkäänniemi et al. 2019). Coverage: the share of balls of ``y`` that contain an ``x`` (Naeem
    et al. 2020)."""
    if min(len(x), len(y)) <= k:
        return dict.fromkeys(("precision", "recall", "coverage"), math.nan)
    apart = torch.cdist(x, y)
    reach_x, reach_y = (torch.cdist(a, a).kthvalue(k + 1, 1).values for a in (x, y))  # the nearest is itself
    inside = apart <= reach_y
    return {
        "precision": float(inside.any(1).double().mean()),
        "recall": float((apart <= reach_x[:, None]).any(0).double().mean()),
        "coverage": float(inside.any(0).double().mean()),
    }


def stacked(images: Sequence[Image]) -> Tensor:
    """The finite images as rows of values ``(n, C H W)``."""
    rows = [image.pixels.detach().cpu().float().flatten() for image in images if bool(image.pixels.isfinite().all())]
    return torch.stack(rows) if rows else torch.zeros(0, 1)


def finite(images: Sequence[Image]) -> list[Image]:
    """The images whose values are all finite."""
    return [image for image in images if bool(image.pixels.isfinite().all())]


class Measures:
    """The metrics of one set of training images, which share its features.

    Args:
        found: the images.
        features: of them.
        mirrored: whether training mirrors images, so that a mirror image is a copy too.
    """

    def __init__(self, found: Sets, features: Features, mirrored: bool) -> None:
        self.sets, self.features, self.mirrored = found, features, mirrored

    @cached_property
    def trained(self) -> Tensor:
        """Features of training images."""
        return self.features(self.sets.train.images(10_000))[0]

    @cached_property
    def bound(self) -> float:
        """The distance from the nearest training image that 99 in 100 held-out images exceed."""
        return float(self.nearest(stacked(self.sets.held_out.images(2_000)))[0].quantile(0.01))

    def law(self, samples: Sequence[Image], reference: Sequence[Image]) -> dict[str, float]:
        """Distances in features to the held-out images (the training row is the best that can be expected) and to the
        training images (the held-out row is); precision, recall and coverage of the held-out images."""
        x, y = self.features(finite(samples))[0], self.features(reference)[0]
        return {
            "frechet": frechet(x, y), "frechet_to_training": frechet(x, self.trained),
            "kernel": kernel_distance(x, y), "kernel_to_training": kernel_distance(x, self.trained),
            **support(x, y),
        }  # fmt: skip

    def classes(self, samples: Sequence[Image], reference: Sequence[Image]) -> dict[str, float]:
        """The result of the classifier: the share of samples in the requested class, its confidence, and the total
        variation between the frequencies of its classes on samples and on held-out images."""
        usable = finite(samples)
        p, q = self.features(usable)[1], self.features(reference)[1]
        if not len(p) or self.features.turns:
            return {}
        requested = torch.tensor([-1 if image.label is None else image.label for image in usable])
        known = requested >= 0
        agreed = (p.argmax(1) == requested)[known].double().mean() if known.any() else torch.tensor(math.nan)
        shares = [torch.bincount(v.argmax(1), minlength=p.shape[1]).double() / len(v) for v in (p, q)]
        return {
            "class_as_asked": float(agreed), "class_confidence": float(p.max(1).values.mean()),
            "class_tv": float(0.5 * (shares[0] - shares[1]).abs().sum()),
        }  # fmt: skip

    def copies(self, samples: Sequence[Image], reference: Sequence[Image]) -> dict[str, float]:
        """Distance to the nearest training image, root mean square per pixel: median, and the share of samples nearer
        than 99 in 100 held-out images. Held-out images are the reference: more copies than theirs are memorisation."""
        x = stacked(samples)
        if not len(x):
            return {"nearest_training": math.nan, "copies": math.nan}
        far = self.nearest(x)[0]
        return {"nearest_training": float(far.median()), "copies": float((far < self.bound).double().mean())}

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Root mean square distance and number of the training image nearest to each row of ``x``."""
        best, where = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.long)
        for start in range(0, len(self.sets.train), CHUNK):
            pixels = self.sets.train.pixels(slice(start, start + CHUNK))
            for y in (pixels, pixels.flip(-1))[: 1 + self.mirrored]:
                far, index = torch.cdist(x, y.flatten(1)).min(1)
                better = far < best
                best, where = torch.where(better, far, best), torch.where(better, index + start, where)
        return best / x.shape[1] ** 0.5, where

    def neighbours(self, samples: Sequence[Image]) -> list[Image]:
        """The training image nearest to each sample."""
        return [self.sets.train.take(i[None]).images()[0] for i in self.nearest(stacked(samples))[1]]


def metrics(o: Metrics, measures: Callable[[], Measures]) -> Mapping[str, Metric]:
    """The metrics by name; ``measures`` gives those of the training images, when one is called."""
    known: dict[str, Metric] = {
        "finite": share_finite,
        "law": lambda samples, reference: measures().law(samples, reference),
        "classes": lambda samples, reference: measures().classes(samples, reference),
        "copies": lambda samples, reference: measures().copies(samples, reference),
    }
    if o.fid:
        from .fid import fid

        known["fid"] = lambda samples, reference: fid(measures().sets.train, samples, reference)
    return known


def share_finite(samples: Sequence[Image], reference: Sequence[Image]) -> dict[str, float]:
    """The share of the images whose values are all finite."""
    return {"finite": len(finite(samples)) / max(1, len(samples))}


def references(o: Metrics, found: Sets, samples: Sequence[Image]) -> dict[str, list[Image]]:
    """Held-out images, and as many training images as there are samples: as near as another real set is."""
    count = max(NEIGHBOURS + 2, min(len(samples), o.images))
    return {"held-out": found.held_out.images(o.images), "training set": found.train.images(count)}
