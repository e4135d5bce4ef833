"""Cells as snapshots: those of each time, in scaled coordinates, cut into a part to learn from and one held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fm_science import Snapshots, UserError, option

from .files import Cell, Columns, Table, read_table

FEWEST = 10  # cells of a time
WIDEST = 100  # coordinates, at most


@dataclass(frozen=True)
class Data:
    """Which cells to learn from."""

    file: str | None = option(None, "your cells: .csv, .tsv, .txt or .h5ad, each with a time and coordinates")
    time: str | None = option(None, "name of the column of times; none: it is guessed")
    group: str | None = option(None, "name of the column of cell types or clusters, for fates; none: it is guessed")
    columns: str | None = option(None, "names of the coordinates, with commas; none: all columns of numbers")
    embedding: str | None = option(None, "array of coordinates of an .h5ad file; none: X_pca")
    components: int = option(0, "use so many principal components of the coordinates; 0: the coordinates", low=0)
    scale: str = option("each", "what is made one: the spread of each coordinate, or of all", choices=("each", "all"))
    leave_out: float | None = option(None, "an inner time that is left out of training, to be judged there")
    held_out: float = option(0.2, "share of the cells of each time that are held out", low=0.05, high=0.5)
    skip: bool = option(False, "leave rows out that give no cell, in place of an error")
    split: int = option(0, "seed of the random split", low=0)
    batch: int = option(256, "cells a batch", low=2)


@dataclass(frozen=True)
class Scale:
    """From the coordinates of a file to those of the flow: (x - centre) axes / spread.

    Attributes:
        centre: ``(d,)``.
        axes: ``(d, k)`` with orthonormal columns.
        spread: ``(k,)``.
        columns: the names of the ``k`` coordinates that samples have.
    """

    centre: Tensor
    axes: Tensor
    spread: Tensor
    columns: tuple[str, ...]

    def enter(self, x: Tensor) -> Tensor:
        """Coordinates of a file ``(n, d)`` as those of the flow ``(n, k)``."""
        return (x - self.centre) @ self.axes / self.spread

    def leave(self, z: Tensor) -> Tensor:
        """Coordinates of the flow in the unit of the file, or as principal components in that unit."""
        x = z * self.spread
        return x if self.reduced else x + self.centre

    def again(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`leave`."""
        return x / self.spread if self.reduced else (x - self.centre) / self.spread

    @property
    def reduced(self) -> bool:
        """Whether the coordinates are principal components."""
        return self.columns[0].startswith("component")


@dataclass(frozen=True)
class Shot:
    """The cells of one time.

    Attributes:
        time: in the unit of the file.
        x: ``(n, d)`` in the coordinates of the flow.
        rows: ``(n,)`` which rows of the file they are, without those that were left out.
        groups: the group of each; empty where the file has none.
    """

    time: float
    x: Tensor
    rows: Tensor
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Sets:
    """All that was read.

    Attributes:
        train, held_out: the snapshots to learn from, and the cells of the same times that are held out.
        left: the snapshot that was left out, if any.
        scale: of the coordinates.
        table: what was read.
    """

    train: tuple[Shot, ...]
    held_out: tuple[Shot, ...]
    left: Shot | None
    scale: Scale
    table: Table

    @property
    def times(self) -> list[float]:
        """Those of the snapshots that are learned from."""
        return [shot.time for shot in self.train]

    def describe(self) -> str:
        """What was read, in a few lines."""
        lines = [self.table.about]
        for shot, held in zip(self.train, self.held_out, strict=True):
            lines.append(f"time {shot.time:g}: {len(shot.x):,} cells to learn from, {len(held.x):,} held out")
        if self.left is not None:
            lines.append(f"time {self.left.time:g}: {len(self.left.x):,} cells, left out")
        if self.table.skipped:
            lines.append(f"left out: {len(self.table.skipped):,} rows; first {self.table.skipped[0]}")
        return "\n".join(lines)


class Cells(Dataset):
    """Cells of the snapshots after the first: items are states ``(1, d)`` with the "time" of their snapshot on the
    clock of the flow."""

    def __init__(self, shots: Sequence[Shot], clock: Sequence[float]) -> None:
        later = list(zip(shots, clock, strict=True))[1:]
        self.x = torch.cat([shot.x for shot, _ in later]).float()[:, None]
        self.time = torch.cat([torch.full((len(shot.x),), time) for shot, time in later])
        self.sizes = torch.ones(len(self.x), dtype=torch.long)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.x[index], {"time": self.time[index]}


def load(o: Data, scale: Scale | None = None) -> Sets:
    """The cells of a file as snapshots; in the coordinates of ``scale`` where there is one. Raises UserError where no
    file is named, or it cannot be used."""
    if o.file is None:
        raise UserError("data.file names no cells: name a table with times and coordinates: data.file=cells.csv")
    columns = tuple(name.strip() for name in o.columns.split(",")) if o.columns is not None else None
    table = read_table(o.file, Columns(o.time, o.group, columns, o.embedding), o.skip)
    times = torch.from_numpy(table.times).unique().tolist()
    _check(o, table, times)
    x = torch.from_numpy(table.values)
    learned = torch.from_numpy(table.times != o.leave_out) if o.leave_out is not None else torch.ones(len(x)).bool()
    scale = scale or fitted(x[learned], table.columns, o)
    generator = torch.Generator().manual_seed(o.split)
    shots = [_shot(table, scale.enter(x), time, generator) for time in times]
    cut = [max(1, round(o.held_out * len(shot.x))) for shot in shots]
    kept = [k for k, time in enumerate(times) if time != o.leave_out]
    left = next((shots[k] for k in range(len(times)) if k not in kept), None)
    train = tuple(part(shots[k], cut[k], None) for k in kept)
    return Sets(train, tuple(part(shots[k], 0, cut[k]) for k in kept), left, scale, table)


def _check(o: Data, table: Table, times: Sequence[float]) -> None:
    """Raises UserError for snapshots that a flow cannot go through."""
    listed = ", ".join(f"{time:g}" for time in times[:20])
    if len(times) < 2:
        raise UserError(f"{o.file} has cells of one time ({listed}) only: expected two times or more")
    for time in times:
        count = int((table.times == time).sum())
        if count < FEWEST:
            raise UserError(f"{o.file} has {count} cells at time {time:g}: expected {FEWEST} at least; is data.time "
                            f"the right column ({len(times)} different times)?")  # fmt: skip
    if o.leave_out is not None and o.leave_out not in times[1:-1]:
        inner = ", ".join(f"{time:g}" for time in times[1:-1]) or "none"
        raise UserError(f"data.leave_out={o.leave_out:g}: expected one of the inner times: {inner}")
    wide, most = o.components or len(table.columns), min(WIDEST, len(table.columns))
    if wide > most:
        raise UserError(f"{o.file}: {len(table.columns)} coordinates, and {wide} are to be used: expected at most "
                        f"{most}; data.components=30 takes principal components")  # fmt: skip


def fitted(x: Tensor, columns: Sequence[str], o: Data) -> Scale:
    """The scale of these cells ``(n, d)``. Raises UserError for a coordinate that is the same in all of them."""
    axes = torch.eye(x.shape[1], dtype=x.dtype)
    centre = x.mean(0)
    if o.components:
        axes = torch.linalg.svd(x - centre, full_matrices=False).Vh[: o.components].T
        columns = [f"component{k + 1}" for k in range(o.components)]
    spread = ((x - centre) @ axes).std(0)
    if not bool((spread > 0).all()):
        raise UserError(f"{o.file}: {columns[int(spread.argmin())]!r} is the same in all cells: leave it out, by "
                        "data.columns=A,B,C")  # fmt: skip
    spread = spread if o.scale == "each" else spread.square().mean().sqrt().expand_as(spread)
    return Scale(centre, axes, spread, tuple(columns))


def _shot(table: Table, x: Tensor, time: float, generator: torch.Generator) -> Shot:
    """The cells of one time, in random order."""
    rows = torch.from_numpy(table.times == time).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator)]
    return Shot(time, x[rows], rows, tuple(table.groups[k] for k in rows.tolist()) if table.groups else ())


def part(shot: Shot, begin: int, end: int | None) -> Shot:
    """Some of the cells of a snapshot."""
    chosen = slice(begin, end)
    return Shot(shot.time, shot.x[chosen], shot.rows[chosen], shot.groups[chosen])


def snapshots(cells: Tensor, counts: Sequence[int], times: Sequence[float]) -> Snapshots:
    """The engine's snapshots of cells ``(n, 1, d)``, so many of each time."""
    return Snapshots(cells.split(list(counts)), times)


def cells(x: Tensor, scale: Scale, time: float) -> list[Cell]:
    """Cells of one time, ``(n, d)`` in the coordinates of the flow, in those of the file."""
    return [Cell(time, tuple(row)) for row in scale.leave(x.detach().cpu().double()).tolist()]


def points(found: Sequence[Cell], scale: Scale) -> Tensor:
    """The inverse of :func:`cells`, ``(n, d)``."""
    return scale.again(torch.tensor([cell.values for cell in found], dtype=torch.float64))


def write_summary(sets: Sets, folder: Path) -> list[Path]:
    """What was read, printed and written as ``cells.txt``."""
    print(sets.describe(), flush=True)
    file = folder / "cells.txt"
    file.write_text("\n".join([sets.describe(), *sets.table.skipped]) + "\n", encoding="utf-8")
    return [file]


def kept_scale(statistics: Mapping[str, Any]) -> Scale:
    """The scale that a run keeps."""
    return Scale(statistics["centre"], statistics["axes"], statistics["spread"], tuple(statistics["columns"]))
