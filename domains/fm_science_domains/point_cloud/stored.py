"""Clouds that ``fm-science prepare`` has read: kept in one file, and mapped into memory from there.

Points are kept as the reader gives them, in single precision, and in double precision where they lie so far from the
origin that it would round them. Beside them stand the sums that the spread of a set is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import Dropped, reason_of
from fm_science.prepared import TEXT, Column, Plan, Preparation, Prepared, Record, text

from .files import Cloud, classified, read_file
from .upright import turned


class CloudPreparation(Preparation[tuple[Path, str]]):
    """Files of clouds as records, one a cloud. A thing is a file and the class that its folder gives."""

    domain = "point_cloud"
    columns: Mapping[str, Column] = {
        "near": Column("float32"), "far": Column("float64"), "dim": Column("int8"), "moments": Column("float64"),
        "label": TEXT,
    }  # fmt: skip

    def plan(self, inputs: Sequence[Path]) -> Plan[tuple[Path, str]]:
        classes = classified(inputs)
        return Plan(list(classes), list(classes.items()), len(classes))

    def convert(self, thing: tuple[Path, str]) -> list[Record | Dropped]:
        file, label = thing
        try:
            clouds = read_file(file, label)
        except UserError as error:
            return [Dropped(str(file), "", reason_of(error, file))]
        return [_record(c) if len(c) > 1 else Dropped(str(file), c.name, SINGLE) for c in clouds]


SINGLE = "a cloud of one point"


def centred(points: Tensor) -> Tensor:
    """A cloud ``(N, D)`` about its mean, in single precision; far clouds keep their digits."""
    return (points.double() - points.double().mean(0)).float()


def moments(points: Tensor) -> Tensor:
    """The sum and the sum of squares of the coordinates of a cloud about its mean, ``(2,)`` in double precision."""
    x = centred(points).double()
    return torch.stack([x.sum(), x.square().sum()])


def _record(cloud: Cloud) -> Record:
    flat = cloud.points.flatten().numpy()
    single = flat.dtype == np.float32
    return {
        "near": flat if single else np.zeros(0, np.float32), "far": np.zeros(0) if single else flat,
        "dim": np.array([cloud.points.shape[1]], np.int8), "moments": moments(cloud.points).numpy(),
        "label": text(cloud.label),
    }  # fmt: skip


class StoredPoints(Sequence[Tensor]):
    """Clouds of a prepared file about their means, ``(N, D)`` float each, made when they are asked for.

    Args:
        prepared: the file.
        chosen: ``(n,)`` the numbers of its records that are meant.
        upright: whether they are turned onto their principal axes.
    """

    def __init__(self, prepared: Prepared, chosen: np.ndarray, upright: bool = False) -> None:
        self.prepared, self.chosen, self.upright = prepared, chosen, upright

    @property
    def sizes(self) -> Tensor:
        """``(n,)`` int64: points of each."""
        kept = self.prepared
        return torch.from_numpy(((kept.lengths("near") + kept.lengths("far")) // kept.flat("dim"))[self.chosen])

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return list(StoredPoints(self.prepared, self.chosen[index], self.upright))
        i = int(self.chosen[index])
        near, far = (self.prepared.get(name, i) for name in ("near", "far"))
        points = torch.from_numpy(near if len(near) else far).reshape(-1, int(self.prepared.flat("dim")[i]))
        return turned([centred(points)])[0] if self.upright else centred(points)
