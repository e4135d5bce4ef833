"""Point clouds as training data: equilibrium samples of a particle system, procedural shapes, or the clouds of files.

A cloud of N points in D dimensions becomes the state ``(N, D)``, centred. Clouds of one set may differ in N. If they
belong to classes (the families of shapes, the subfolders of a folder, labels in files), each has the number of its
class as ``label``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError, nearest
from fm_science.files import Dropped
from fm_science.memory import reserve

from .cache import cached
from .energies import Energy
from .files import Cloud
from .found import Found
from .reference import Plan, Reference
from .shapes import FAMILIES, drawn
from .stored import CloudPreparation, StoredPoints, centred
from .systems import System, imported, named, probe
from .upright import turned

log = logging.getLogger(__name__)
Item = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Data:
    """Which clouds to learn from, and how many at a time."""

    source: str = option(
        "dw4",
        "dw4, lj13, lj55, shapes, module:energy of your own, a file or folder of .npz, .csv, .xyz, .ply, ..., or "
        "a prepared file; subfolders and labels are classes",
    )
    factor: float = option(1.0, "weight of Lennard-Jones pairs: 1 counts ordered pairs, 0.5 unordered", low=0)
    energy: str | None = option(None, "module:energy of the clouds of a file; none: no energy is known")
    points: int | None = option(
        None, "points of a cloud: for your own energy (none: 4), shapes (none: 256)", low=2
    )
    dim: int = option(2, "dimensions, for your own energy", low=1, high=3)
    families: str = option("torus,box,superquadric", "families of shapes, with commas")
    train: int = option(50_000, "training clouds sampled from a system, or shapes", low=1)
    held_out: int = option(10_000, "held-out clouds sampled from a system, or shapes", low=1)
    effort: float = option(1.0, "work of the reference sampler, as a multiple of the default", low=0.01)
    cache: str | None = option(None, "folder for reference samples; none: the user's cache")
    upright: bool = option(
        False, "learn clouds on their principal axes, and rotate new ones at random: for networks that do not commute "
        "with rotations",
    )  # fmt: skip
    batch: int = option(256, "clouds per batch", low=1)
    budget: int = option(0, "at most this many padded pairs of points per batch; 0: no limit", low=0)
    workers: int = option(0, "processes that prepare batches, pairing included", low=0)


class Clouds(Dataset):
    """Clouds as items. sizes: ``(len,)`` int64, points of each."""

    def __init__(
        self, clouds: Sequence[Tensor], labels: Sequence[int] = (), classes: Sequence[str] = (), upright: bool = False
    ) -> None:  # fmt: skip
        found = [centred(c) for c in clouds]
        self.clouds: Sequence[Tensor] = turned(found) if upright else found
        self.sizes = torch.tensor([len(c) for c in clouds], dtype=torch.long)
        self.labels, self.classes = torch.tensor(labels, dtype=torch.long), tuple(classes)

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: int) -> Item:
        return self.clouds[index], {"label": self.labels[index]} if self.classes else {}

    def decoded(self, count: int) -> list[Cloud]:
        """The first ``count`` clouds as decoded objects."""
        names = [self.classes[k] for k in self.labels[:count]] if self.classes else [""] * count
        return [Cloud(c, f"reference_{i:04d}", names[i]) for i, c in enumerate(self.clouds[:count])]


class StoredClouds(Clouds):
    """Clouds of a prepared file as items, each made when it is asked for."""

    def __init__(self, clouds: StoredPoints, labels: Sequence[int] = (), classes: Sequence[str] = ()) -> None:
        self.clouds, self.sizes = clouds, clouds.sizes
        self.labels, self.classes = torch.tensor(labels, dtype=torch.long), tuple(classes)


@dataclass(frozen=True)
class Sets:
    """The data of a source.

    Attributes:
        train, held_out: the clouds.
        dim: dimensions.
        spread: standard deviation of a coordinate over the training clouds.
        energy: of the clouds, if one is known.
        system, reference: the sampled system and the tests, if there is one.
        classes: names of the classes, if there are any.
        shapes: whether the clouds are procedural shapes, whose parameters can be fitted.
        upright: whether they are on their principal axes, and new ones are rotated at random.
        dropped: files and clouds that were left out.
        digest: of a prepared file that they lie in.
    """

    train: Clouds
    held_out: Clouds
    dim: int
    spread: float
    energy: Energy | None = None
    system: System | None = None
    reference: Reference | None = None
    classes: tuple[str, ...] = ()
    shapes: bool = False
    upright: bool = False
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs to know about the training clouds.

    Attributes:
        dim: dimensions.
        spread: standard deviation of a coordinate.
        kinds: ``(K, 2)`` the sizes and numbers of classes that occur together; class -1: none.
        counts: ``(K,)`` how many training clouds are of each kind.
        classes: names of the classes, if there are any.
        system: name of the sampled system, if there is one.
    """

    dim: int
    spread: float
    kinds: Tensor
    counts: Tensor
    classes: tuple[str, ...] = ()
    system: str | None = None

    @staticmethod
    def of(sets: Sets) -> Summary:
        """From the training clouds of some sets."""
        sizes = sets.train.sizes
        labels = sets.train.labels if sets.classes else torch.full_like(sizes, -1)
        kinds, counts = torch.stack([sizes, labels], 1).unique(dim=0, return_counts=True)
        system = None if sets.system is None else sets.system.name
        return Summary(sets.dim, sets.spread, kinds, counts, sets.classes, system)

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """From the statistics of a run: a mapping of the attributes."""
        return Summary(**{**kept, "classes": tuple(kept["classes"])})

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Sizes and numbers of classes ``(n,)`` of random training clouds."""
        chosen = torch.searchsorted(self.counts.cumsum(0), torch.randint(int(self.counts.sum()), (n,)), right=True)
        return self.kinds[chosen, 0], self.kinds[chosen, 1]


def load(o: Data, known: Summary | None = None) -> Sets:
    """The training and held-out clouds, in the ``known`` classes if there are some. Raises UserError if there are none,
    they are of another kind, or samples fail their tests."""
    sets = _load(o, known.classes if known is not None else ())
    if known is not None and (sets.dim, sets.classes) != (known.dim, known.classes):
        have, wanted = (f"{s.dim} coordinates and classes {', '.join(s.classes) or 'none'}" for s in (sets, known))
        raise UserError(f"the clouds of data.source={o.source} have {have}; what was trained has {wanted}")
    return sets


def _load(o: Data, classes: tuple[str, ...]) -> Sets:
    made = f"data.train={o.train} with data.held_out={o.held_out} clouds"
    if o.source == "shapes":
        reserve(o.train + o.held_out, 12 * (o.points or 256), made)
        return procedural(o)
    system = named(o.source, o.factor, o.points or 4, o.dim)
    if system is None:
        return stored(o, classes)
    reserve(o.train + o.held_out, 12 * system.points * system.dim, made)
    reference = cached(system, o.train + o.held_out, plan(system, o.effort), o.cache)
    held_out, train = reference.x[: o.held_out], reference.x[o.held_out :]
    mine, theirs = (Clouds(list(x), upright=o.upright) for x in (train, held_out))
    found = Sets(mine, theirs, system.dim, float(train.std()), upright=o.upright)
    return replace(found, energy=system.energy, system=system, reference=reference)


def procedural(o: Data) -> Sets:
    """Shapes of the requested families. Raises UserError for one that is not known."""
    names = [word.strip() for word in o.families.split(",") if word.strip()]
    for name in names or [""]:
        if name not in FAMILIES:
            raise UserError(f"data.families={o.families}: unknown family {name!r}; {nearest(name, FAMILIES)}")
    clouds, labels = zip(*drawn(names, o.train + o.held_out, o.points or 256), strict=True)
    held_out = Clouds(clouds[: o.held_out], labels[: o.held_out], names, o.upright)
    train = Clouds(clouds[o.held_out :], labels[o.held_out :], names, o.upright)
    spread = float(torch.cat(list(train.clouds[:1000])).std())
    return Sets(train, held_out, 3, spread, classes=tuple(names), shapes=True, upright=o.upright)


def stored(o: Data, known: tuple[str, ...] = ()) -> Sets:
    """The clouds of a file or folder; a tenth of them is held out. They have classes where every cloud is labelled:
    those that are ``known``, where theirs are among them."""
    kept = CloudPreparation(vars(o)).open(o.source)
    found = Found.of_files(o.source) if kept is None else Found.of_prepared(kept)
    named = set(found.labels)
    classes = tuple(sorted(named)) if "" not in named else ()
    classes = known if classes and named <= set(known) else classes
    if len(named) > 1 and not classes:
        bare = found.labels.count("")
        log.warning("%s: no classes are learned, since %d of %d clouds have none", o.source, bare, len(found.labels))
    if len(found.dims) > 1:
        raise UserError(f"the clouds in {o.source} have {sorted(found.dims)} coordinates; all must have as many")
    order = torch.randperm(len(found.labels), generator=torch.Generator().manual_seed(0))
    some = max(1, len(order) // 10)
    if len(order) == 1:
        log.warning("%s holds one cloud: it is trained and held out", o.source)
    validation, learned = order[:some], order[some:] if len(order) > 1 else order
    held_out, train = (_part(found, part.tolist(), classes, o.upright) for part in (validation, learned))
    dim = found.dims.pop()
    spread = found.spread(learned, int(train.sizes.sum()) * dim)
    energy = imported(o.energy) if o.energy else None
    if energy is not None:
        probe(energy, held_out.clouds[0][None].double(), f"data.energy={o.energy}")
    return Sets(
        train, held_out, dim, spread, energy, classes=classes, upright=o.upright, dropped=tuple(found.dropped),
        digest=found.digest,
    )  # fmt: skip


def _part(found: Found, chosen: list[int], classes: tuple[str, ...], upright: bool) -> Clouds:
    """Some of the clouds as a set."""
    labels = [classes.index(found.labels[i]) if classes else -1 for i in chosen]
    if isinstance(found.points, StoredPoints):
        return StoredClouds(StoredPoints(found.points.prepared, np.array(chosen), upright), labels, classes)
    return Clouds([found.points[i] for i in chosen], labels, classes, upright)


def plan(system: System, effort: float) -> Plan:
    """The work of the reference sampler: the number of clouds grows with the effort, and below 1 the cooling is
    shorter."""
    return Plan(
        clouds=max(8, round(system.clouds * effort)),
        temperatures=max(60, round(system.temperatures * min(1.0, effort**0.5))),
    )
