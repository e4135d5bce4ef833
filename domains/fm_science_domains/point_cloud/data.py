"""Point clouds as training data: equilibrium samples of a particle system, or the clouds of a file.

A cloud of N points in D dimensions becomes the state ``(N, D)``, centred. Clouds of one set may differ in N.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science.domain import option
from fm_science.errors import UserError

from .energies import Energy
from .files import Cloud, read
from .reference import Plan, Reference, cached
from .systems import System, imported, named

log = logging.getLogger(__name__)
Item = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Data:
    """Which clouds to learn from, and how many at a time."""

    source: str = option("dw4", "dw4, lj13, module:energy of your own, or a file or folder of .npz, .csv or .xyz")
    factor: float = option(1.0, "weight of Lennard-Jones pairs: 1 counts ordered pairs, 0.5 unordered", low=0)
    energy: str | None = option(None, "module:energy that scores clouds of a file; none: no energy is known")
    points: int = option(4, "points of a cloud, for an energy of your own", low=2)
    dim: int = option(2, "dimensions, for an energy of your own", low=1, high=3)
    train: int = option(50_000, "training clouds sampled from a system", low=1)
    held_out: int = option(10_000, "held-out clouds sampled from a system", low=1)
    effort: float = option(1.0, "work of the reference sampler, as a multiple of the usual", low=0.01)
    cache: str | None = option(None, "folder that keeps reference samples; none: the user's cache")
    batch: int = option(256, "clouds a batch", low=1)
    budget: int = option(0, "at most this many padded pairs of points a batch; 0: no limit", low=0)
    workers: int = option(0, "processes that prepare batches, pairing included", low=0)


class Clouds(Dataset):
    """Clouds as items. sizes: ``(len,)`` int64, points of each."""

    def __init__(self, clouds: Sequence[Tensor]) -> None:
        self.clouds = [c - c.mean(0) for c in clouds]
        self.sizes = torch.tensor([len(c) for c in clouds], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: int) -> Item:
        return self.clouds[index], {}

    def decoded(self, count: int) -> list[Cloud]:
        """The first ``count`` clouds as decoded objects."""
        return [Cloud(c, f"reference_{i:04d}") for i, c in enumerate(self.clouds[:count])]


@dataclass(frozen=True)
class Sets:
    """What a source gives.

    Attributes:
        train, held_out: the clouds.
        dim: dimensions.
        spread: standard deviation of a coordinate over the training clouds.
        energy: of the clouds, where one is known.
        system, reference: what was sampled and how it was tested, where a system was.
    """

    train: Clouds
    held_out: Clouds
    dim: int
    spread: float
    energy: Energy | None = None
    system: System | None = None
    reference: Reference | None = None


def load(o: Data) -> Sets:
    """The training and held-out clouds. Raises UserError where there are none, or samples fail their tests."""
    system = named(o.source, o.factor, o.points, o.dim)
    if system is not None:
        reference = cached(system, o.train + o.held_out, plan(system, o.effort), o.cache)
        held_out, train = reference.x[: o.held_out], reference.x[o.held_out :]
        found = Sets(Clouds(list(train)), Clouds(list(held_out)), system.dim, float(train.std()))
        return Sets(**{**vars(found), "energy": system.energy, "system": system, "reference": reference})
    clouds = [c.points for c in read([o.source])]
    dims = {c.shape[1] for c in clouds}
    if len(dims) > 1:
        raise UserError(f"the clouds in {o.source} have {sorted(dims)} coordinates; all must have the same number")
    order = torch.randperm(len(clouds), generator=torch.Generator().manual_seed(0)).tolist()
    some = max(1, len(clouds) // 10)
    held = [clouds[i] for i in order[:some]]
    trained = Clouds([clouds[i] for i in order[some:]] or held)
    if len(clouds) == 1:
        log.warning("%s holds one cloud: it is trained and held out", o.source)
    spread = float(torch.cat(trained.clouds).std())
    return Sets(trained, Clouds(held), dims.pop(), spread, imported(o.energy) if o.energy else None)


def plan(system: System, effort: float) -> Plan:
    """The work of the reference sampler: clouds grow with the effort, and below 1 the cooling gets shorter."""
    return Plan(
        clouds=max(8, round(system.clouds * effort)),
        temperatures=max(60, round(system.temperatures * min(1.0, effort**0.5))),
    )
