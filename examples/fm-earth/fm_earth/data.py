"""Events as unit vectors, cut at random into training, validation and test events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science import UserError, option

from .files import Event, Table, read_table

FEWEST = 30  # events that can be cut in three
EARTH = 6371.0  # mean radius of the Earth, km
CHUNK = 256  # events whose distances are found at once


@dataclass(frozen=True)
class Data:
    """Which events to learn from."""

    file: str | None = option(None, "your events: .csv, .tsv, .txt, .npz or .npy with latitudes and longitudes")
    lat: str | None = option(None, "name of the column of latitudes; none: it is guessed")
    lon: str | None = option(None, "name of the column of longitudes; none: it is guessed")
    skip: bool = option(False, "leave rows out that give no place, in place of an error")
    distinct: bool = option(False, "use each place once, so that no test event repeats a training event")
    split: int = option(0, "seed of the random split: 8/10 to train, 1/10 to validate, 1/10 to test", low=0)
    batch: int = option(512, "events a batch", low=1)


@dataclass(frozen=True)
class Sets:
    """Unit vectors ``(n, 3)`` in double precision.

    Attributes:
        train, validation, test: the three sets.
        repeated: share of the test events whose place is that of a training event.
        quarter, half: within what great-circle distances in km of a training event these shares of the test events lie.
        table: what was read.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    repeated: float
    quarter: float
    half: float
    table: Table

    def describe(self) -> str:
        """What was read, in a few lines."""
        counts = [f"{len(x):,}" for x in (self.train, self.validation, self.test)]
        lines = [
            f"columns: {' and '.join(self.table.columns)}",
            f"events: {counts[0]} to train on, {counts[1]} to validate, {counts[2]} to test",
            f"test events at the very place of a training event: {self.repeated:.1%}",
        ]
        if self.repeated > 0.01:
            lines.append("  a density may pile up there without bound: compare likelihoods with data.distinct=true")
        lines.append(
            f"a quarter of the test events lie within {self.quarter:.3g} km of a training event, half within "
            f"{self.half:.3g} km"
        )
        if self.table.skipped:
            lines.append(f"left out: {len(self.table.skipped):,} rows; first {self.table.skipped[0]}")
        return "\n".join(lines)


class Places(Dataset):
    """A data set of single places: items are states ``(1, 3)`` without conditions."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.float()[:, None]
        self.sizes = torch.ones(len(x), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.x[index], {}


def load(o: Data) -> Sets:
    """The events of a file, in three sets. Raises UserError where none is named, or it cannot be used."""
    if o.file is None:
        raise UserError("data.file names no events: name a table of latitudes and longitudes: data.file=events.csv")
    table = read_table(o.file, o.lat, o.lon, o.skip)
    places = np.unique(table.degrees, axis=0) if o.distinct else table.degrees
    if len(places) < FEWEST:
        raise UserError(f"{o.file} holds {len(places)} events: expected {FEWEST} at least")
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(o.split)).numpy()
    tenth = len(places) // 10
    parts = np.split(places[order], [len(places) - 2 * tenth, len(places) - tenth])
    seen = set(map(tuple, parts[0].tolist()))
    repeated = sum(tuple(place) in seen for place in parts[2].tolist()) / len(parts[2])
    train, validation, test = (unit_vectors(torch.from_numpy(part)) for part in parts)
    quarter, half = nearest(test, train).quantile(torch.tensor([0.25, 0.5]).double()).tolist()
    return Sets(train, validation, test, repeated, quarter, half, table)


def ground(x: Tensor, y: Tensor) -> Tensor:
    """Great-circle distances ``(n, m)`` in km between unit vectors."""
    chord = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return 2 * EARTH * torch.asin((0.5 * chord).clamp(max=1))


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """How far ``(n,)`` in km the nearest of ``y`` is from each of ``x``."""
    return torch.cat([ground(part, y).amin(1) for part in x.split(CHUNK)])


def unit_vectors(degrees: Tensor) -> Tensor:
    """Latitudes and longitudes ``(..., 2)`` in degrees as unit vectors ``(..., 3)``; the last axis points north."""
    lat, lon = torch.deg2rad(degrees).unbind(-1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)


def to_degrees(x: Tensor) -> Tensor:
    """The inverse of :func:`unit_vectors`."""
    lat = torch.atan2(x[..., 2], x[..., :2].norm(dim=-1))
    lon = torch.atan2(x[..., 1], x[..., 0])
    return torch.rad2deg(torch.stack([lat, lon], -1))


def events(x: Tensor) -> list[Event]:
    """Unit vectors ``(n, 3)`` as events."""
    return [Event(*place) for place in to_degrees(x.detach().cpu().double()).tolist()]


def vectors(found: Iterable[Event]) -> Tensor:
    """Events as unit vectors ``(n, 3)`` in double precision."""
    return unit_vectors(torch.tensor(list(found), dtype=torch.float64).reshape(-1, 2))


def write_summary(sets: Sets, folder: Path) -> list[Path]:
    """What was read, printed and written as ``events.txt``; rows that were left out as ``left_out.txt``."""
    print(sets.describe(), flush=True)
    files = [folder / "events.txt"]
    files[0].write_text(sets.describe() + "\n", encoding="utf-8")
    if sets.table.skipped:
        files.append(folder / "left_out.txt")
        files[1].write_text("\n".join(sets.table.skipped) + "\n", encoding="utf-8")
    return files
