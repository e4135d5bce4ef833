"""Images: the shipped digits, folders of pictures, or arrays; a U-Net or a small transformer.

An image is one site whose event is (channels, height, width), with values in [-1, 1]. Grey levels are dithered in
training, so that the flow has a density and bits per dimension can be compared; samples are rounded back to levels.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from fm_science.data import TrainingData
from fm_science.domain import Domain, groups
from fm_science.errors import UserError, nearest
from fm_science.flow import Sampler
from fm_science.paths import Gaussian
from fm_science.priors import Normal
from fm_science.solvers import Heun, power_grid
from fm_science.state import Context

from . import metrics as measured
from . import recipe, report
from .data import Data, Images, Sets, sets
from .features import Features
from .files import Image, read, rounded
from .likelihood import appraise
from .recipe import Coupling, Network, Objective, Path, Sample

OPTIONS = {
    "data": Data, "network": Network, "path": Path, "coupling": Coupling, "objective": Objective, "sample": Sample,
    "metrics": measured.Metrics,
}  # fmt: skip


def build(
    data: Any = None, network: Any = None, path: Any = None, coupling: Any = None, objective: Any = None,
    sample: Any = None, metrics: Any = None,
) -> Domain:  # fmt: skip
    """The domain of images. Each argument is an options dataclass of this package, a mapping, or None.

    Raises:
        OptionError: for an unknown option or a value that does not fit.
        UserError: when there are no images to learn from.
    """
    o = groups(OPTIONS, locals())
    found = sets(o["data"])
    wanted(found, o["sample"].label)  # a class that does not exist is told before any work
    way = recipe.path(o["path"], found.shape)
    features = Features(found, o["metrics"].cache)
    measures = measured.Measures(found, features, o["data"].flip)
    train, held_out = Images(found.train), Images(found.held_out)
    return Domain(  # type: ignore[abstract]  # a record of its parts
        name="image",
        path=way,
        prior=Normal(),
        network=recipe.network(o["network"], found),
        data=TrainingData(train, held_out, o["data"].batch, 0, o["data"].workers),  # type: ignore[arg-type]
        objective=recipe.objective(
            o["objective"], recipe.coupling(o["coupling"], found, o["data"].dither), found.classes
        ),
        sampler=Sampler(Heun(), grid(way, o["sample"].steps)),
        symmetries=(recipe.Mirror(),) if o["data"].flip else (),
        equivariant=False,
        request=partial(request, found, o["sample"]),
        decode=partial(decode, found.train.top),
        read=partial(read, top=found.train.top, size=o["data"].size, classes=found.train.classes),
        write=report.write_all,
        metrics=measured.metrics(o["metrics"], measures),
        report=partial(report.report, measures),
        references=partial(measured.references, o["metrics"], found),
        trajectory=report.trajectory,
        record=partial(record, found, features),
        appraise=partial(appraise, found, o["metrics"]),
        options=OPTIONS,
    )


def grid(path: Gaussian, steps: int) -> int | Tensor:
    """Even steps, or steps that shrink towards the data where the velocity is not defined there."""
    return power_grid(steps) if path.singular else steps


def wanted(found: Sets, label: int | str | None) -> int | None:
    """The number of a class. Raises UserError where there is none of that name."""
    if label is None:
        return None
    if not found.classes:
        raise UserError(f"sample.label={label}: these images have no classes, or data.labels=false leaves them out")
    names = found.train.classes
    if str(label) in names:
        return names.index(str(label))
    if str(label).isdigit() and int(label) < found.classes:
        return int(label)
    raise UserError(f"sample.label={label}: no such class; {nearest(str(label), names)}")


def request(
    found: Sets, o: Sample, n: int, label: int | str | None = None, guidance: float | None = None
) -> Context:  # fmt: skip
    """``n`` images; of a class, or of classes as frequent as in training, where classes are learned."""
    chosen = wanted(found, o.label if label is None else label)
    strength = o.guidance if guidance is None else guidance
    if not found.classes:
        if strength != 1:
            raise UserError(f"sample.guidance={strength}: these images have no classes to be guided by")
        return Context.full(n)
    drawn = found.train.labels[torch.randint(len(found.train), (n,))]  # type: ignore[index]
    labels = drawn if chosen is None else torch.full((n,), chosen)
    if strength == 1:
        return Context.full(n, label=labels)
    return Context.full(n, label=labels, guidance=torch.full((n,), float(strength)))


def decode(top: int, state: Tensor, context: Context) -> list[Image]:
    """States ``(B, 1, C, H, W)`` to images rounded to grey levels; what is not finite stays so."""
    labels = context.cond.get("label")
    asked = [None] * len(state) if labels is None else [k if k >= 0 else None for k in labels.tolist()]
    pixels = rounded(state.detach().cpu().float()[:, 0], top)
    return [Image(x, k, f"sample_{i:06d}") for i, (x, k) in enumerate(zip(pixels, asked, strict=True))]


def record(found: Sets, features: Features, folder: FilePath) -> list[FilePath]:
    """What was learned from, and which features samples are measured in, as ``images.json``."""
    told = {
        "shape": found.shape, "grey_levels": found.train.top + 1, "train": len(found.train),
        "held_out": len(found.held_out), "classes": list(found.train.classes),
        "features": {
            "learned": "quarter turns" if features.turns else "classes", "key": features.key,
            "weights": features.digest, "held_out_accuracy": features.accuracy(),
        },
    }  # fmt: skip
    (folder / "images.json").write_text(json.dumps(told, indent=2) + "\n")
    return [folder / "images.json"]
