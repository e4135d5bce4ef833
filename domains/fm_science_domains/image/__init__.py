"""Images: the shipped digits, folders of pictures, or arrays; a U-Net or a small transformer.

An image is one site whose event is (channels, height, width), with values in [-1, 1]. Grey levels are dithered in
training, so that the flow has a density and bits per dimension can be compared; samples are rounded back to levels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, Statistics
from fm_science.errors import UserError, nearest
from fm_science.files import write_dropped
from fm_science.flow import Flow, Sampler
from fm_science.metrics import Metric
from fm_science.objectives import FlowMatching
from fm_science.priors import Normal
from fm_science.solvers import Heun, power_grid
from fm_science.state import Context
from fm_science.symmetries import Mirrors

from . import metrics as measured
from . import recipe, report
from .data import Data, Images, Sets, Summary, sets
from .features import Features
from .files import read
from .likelihood import appraise
from .meanings import MEANINGS
from .picture import Image, rounded
from .recipe import Coupling, Network, Objective, Path, Sample
from .stored import ImagePreparation


@dataclass(frozen=True)
class Options:
    """The options."""

    data: Data = Data()
    network: Network = Network()
    path: Path = Path()
    coupling: Coupling = Coupling()
    objective: Objective = Objective()
    sample: Sample = Sample()
    metrics: measured.Metrics = measured.Metrics()


class ImageDomain(Domain):
    """The domain of images.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no images to learn from.
    """

    name = "image"
    metric_meanings = MEANINGS
    options: Options

    def load_data(self) -> TrainingData:
        o = self.options.data
        found = sets(o)
        if self.given is not None:
            self.summary.check(found)
        train, held_out = Images(found.train), Images(found.held_out)
        return TrainingData(train, held_out, o.batch, 0, o.workers, found, found.train.digest)

    def preparation(self) -> ImagePreparation:
        return ImagePreparation(vars(self.options.data))

    @property
    def sets(self) -> Sets:
        """All data that were read."""
        return self.data.source

    def fit_statistics(self, data: TrainingData) -> Statistics:
        """Shape, grey levels and classes."""
        return vars(Summary.of(data.source))

    @cached_property
    def summary(self) -> Summary:
        """What sampling needs to know about the training images."""
        return Summary.unpacked(self.statistics)

    @cached_property
    def symmetries(self) -> tuple[Mirrors, ...]:
        return (Mirrors(),) if self.options.data.flip else ()

    @cached_property
    def equivariant(self) -> bool:
        return False

    def build_flow(self, statistics: Statistics) -> Flow:
        o = self.options
        path = recipe.path(o.path, self.summary.shape)
        steps = power_grid(o.sample.steps) if path.singular else o.sample.steps  # steps shrink towards a singular end
        return Flow(path, Normal(), recipe.network(o.network, self.summary), Sampler(Heun(), steps))

    def build_objective(self, statistics: Statistics) -> FlowMatching:
        o, known = self.options, self.summary
        return recipe.objective(o.objective, recipe.coupling(o.coupling, known, o.data.dither), known.classes)

    def class_number(self, label: int | str | None) -> int | None:
        """The number of a class. Raises UserError if there is none of that name."""
        names = self.summary.names
        if label is None:
            return None
        if not names:
            raise UserError(f"sample.label={label}: these images have no classes, or data.labels=false leaves them out")
        if str(label) in names:
            return names.index(str(label))
        if str(label).isdigit() and int(label) < len(names):
            return int(label)
        raise UserError(f"sample.label={label}: no such class; {nearest(str(label), names)}")

    def request(
        self, n: int, label: int | str | None = None, guidance: float | None = None
    ) -> Context:
        """``n`` images; of a class, or of classes as frequent as in training, if classes are learned."""
        o = self.options.sample
        chosen = self.class_number(o.label if label is None else label)
        strength = o.guidance if guidance is None else guidance
        if not self.summary.classes:
            if strength != 1:
                raise UserError(f"sample.guidance={strength}: these images have no classes to be guided by")
            return Context.full(n)
        labels = self.summary.draw(n) if chosen is None else torch.full((n,), chosen)
        if strength == 1:
            return Context.full(n, label=labels)
        return Context.full(n, label=labels, guidance=torch.full((n,), float(strength)))

    def decode(self, state: Tensor, context: Context) -> list[Image]:
        """States ``(B, 1, C, H, W)`` to images rounded to grey levels; values that are not finite are unchanged."""
        labels = context.cond.get("label")
        requested = [None] * len(state) if labels is None else [k if k >= 0 else None for k in labels.tolist()]
        pixels = rounded(state.detach().cpu().float()[:, 0], self.summary.top)
        return [Image(x, k, f"sample_{i:06d}") for i, (x, k) in enumerate(zip(pixels, requested, strict=True))]

    def encode(self, samples: Sequence[Image]) -> tuple[Tensor, Context]:
        """Images as states, of the class ``sample.label``, else of their own, else of none. Raises UserError for images
        of another shape."""
        o, known = self.options.sample, self.summary
        for image in samples:
            if tuple(image.pixels.shape) != known.shape:
                raise UserError(
                    f"{image.name}: (channels, height, width) are {tuple(image.pixels.shape)}; what was trained has "
                    f"{known.shape}"
                )
        x = torch.stack([image.pixels.float() for image in samples])[:, None]
        if not known.classes:
            return x, Context.full(len(x))
        chosen = self.class_number(o.label)
        labels = [image.label if chosen is None else chosen for image in samples]
        cond = {"label": torch.tensor([-1 if label is None else label for label in labels])}
        if o.guidance != 1:
            cond["guidance"] = torch.full((len(x),), float(o.guidance))
        return x, replace(Context.full(len(x)), cond=cond)

    def read(self, paths: Sequence[Any]) -> list[Image]:
        """Images from files and folders, at the grey levels and size of the training images."""
        o, known = self.options.data, self.summary
        return read(paths, known.top, o.size, known.names, o.background, o.white or known.white)

    def write(self, samples: Sequence[Image], folder: FilePath, first: int = 0) -> list[FilePath]:
        """One picture per sample and an array of all; see :func:`~.report.write_all`."""
        return report.write_all(samples, folder, first)

    def trajectory(self, frames: Sequence[Sequence[Image]], folder: FilePath, first: int = 0) -> list[FilePath]:
        """Pictures of the trajectories; see :func:`~.report.trajectory`."""
        return report.trajectory(frames, folder, first)

    @cached_property
    def measures(self) -> measured.Measures:
        """The metrics of samples; reads the data."""
        features = Features(self.sets, self.options.metrics.cache)
        return measured.Measures(self.sets, features, self.options.data.flip)

    def build_metrics(self) -> Mapping[str, Metric]:
        return measured.metrics(self.options.metrics, lambda: self.measures)

    def references(self, samples: Sequence[Image]) -> dict[str, list[Image]]:
        """Held-out images, and training images."""
        return measured.references(self.options.metrics, self.sets, samples)

    def report(self, rows: Mapping[str, list[Image]], folder: FilePath) -> list[FilePath]:
        """Sheets of all rows, and the training images nearest to samples."""
        return report.report(self.measures, rows, folder)

    def evaluate_flow(self, flow: Flow, folder: FilePath | None = None) -> dict[str, float]:
        """Bits per dimension, and evaluations of the network; see :mod:`.likelihood`."""
        return appraise(self.sets, self.options.metrics, flow, folder)

    def write_provenance(self, folder: FilePath) -> list[FilePath]:
        """The training data, and the features in which samples are measured, as ``images.json``; files that were left
        out, as ``dropped.csv``."""
        found, features = self.sets, self.measures.features
        about = {
            "shape": found.shape, "grey_levels": found.train.top + 1, "train": len(found.train),
            "held_out": len(found.held_out), "classes": list(found.train.classes),
            "features": {
                "learned": "quarter turns" if features.turns else "classes", "key": features.key,
                "weights": features.digest, "held_out_accuracy": features.accuracy(),
            },
        }  # fmt: skip
        (folder / "images.json").write_text(json.dumps(about, indent=2) + "\n")
        lost = [write_dropped(found.dropped, folder / "dropped.csv")] if found.dropped else []
        return [folder / "images.json", *lost]


build = ImageDomain
