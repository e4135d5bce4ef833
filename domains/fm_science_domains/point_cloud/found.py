"""Clouds as they were found in files or in a prepared file, before they are split and learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import Dropped
from fm_science.prepared import Prepared

from .files import read
from .stored import SINGLE, StoredPoints, moments


@dataclass(frozen=True, eq=False)
class Found:
    """Clouds that were read.

    Attributes:
        points: of each, ``(N, D)``.
        labels: the class of each, or "".
        dims: the numbers of coordinates that occur.
        moments: ``(n, 2)`` of each, see :func:`~.stored.moments`.
        dropped: what was left out.
        digest: of the prepared file that they lie in.
    """

    points: Sequence[Tensor]
    labels: list[str]
    dims: set[int]
    moments: Tensor
    dropped: Sequence[Dropped]
    digest: str = ""

    @staticmethod
    def of_files(source: str) -> Found:
        """The clouds of files. Raises UserError where there are none of two points or more."""
        dropped: list[Dropped] = []
        clouds = read([source], dropped)
        dropped += [Dropped(source, c.name, SINGLE) for c in clouds if len(c) < 2]
        clouds = [c for c in clouds if len(c) > 1]
        if not clouds:
            raise UserError(f"{source} holds clouds of one point alone; a cloud has two points or more")
        sums = torch.stack([moments(c.points) for c in clouds])
        labels, dims = [c.label for c in clouds], {c.points.shape[1] for c in clouds}
        return Found([c.points for c in clouds], labels, dims, sums, dropped)

    @staticmethod
    def of_prepared(kept: Prepared) -> Found:
        """The clouds of a prepared file."""
        sums = torch.from_numpy(np.array(kept.flat("moments"))).reshape(-1, 2)
        dims = {int(dim) for dim in np.unique(kept.flat("dim"))}
        points = StoredPoints(kept, np.arange(len(kept)))
        return Found(points, kept.texts("label"), dims, sums, kept.dropped, kept.digest)

    def spread(self, chosen: Tensor, count: int) -> float:
        """The standard deviation of the ``count`` coordinates of some clouds, from their sums and sums of squares."""
        total, square = self.moments[chosen].sum(0).tolist()
        return float(max(square - total**2 / count, 0.0) / max(1, count - 1)) ** 0.5
