"""What was read, and the small part of it that sampling needs, which is kept in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.errors import UserError
from fm_science.files import Dropped

from .families import Family
from .frame import Frame
from .gathered import Fields

MOST = 1 << 18  # total sensors of the layouts that new functions may have


@dataclass(frozen=True)
class Sets:
    """What a source gives: training and held-out functions, the frame they share, the family, where there is one, what
    was left out, and the digest of a prepared file."""

    train: Fields
    held_out: Fields
    frame: Frame
    family: Family | None = None
    dropped: tuple[Dropped, ...] = ()
    digest: str = ""

    @property
    def dim(self) -> int:
        """Coordinates of a sensor."""
        return len(self.frame.periodic)

    @property
    def channels(self) -> int:
        """Values at a sensor."""
        return len(self.frame.shift)


@dataclass(frozen=True, eq=False)
class Summary:
    """What sampling needs to know about the training functions.

    Attributes:
        frame: the units of the source.
        shared: whether all functions have the same sensors.
        gridded: whether all are on regular grids.
        conditions: of each layout of sensors that new functions may have: ``coords (N, d)``, ``weights (N,)`` and,
            if there are grids, ``grid (d,)``. One if sensors are shared, else those of random functions.
    """

    frame: Frame
    shared: bool
    gridded: bool
    conditions: Sequence[Mapping[str, Tensor]]

    @property
    def dim(self) -> int:
        """Coordinates of a sensor."""
        return len(self.frame.periodic)

    @property
    def channels(self) -> int:
        """Values at a sensor."""
        return len(self.frame.shift)

    @staticmethod
    def of(sets: Sets) -> Summary:
        """From the training functions of some sets."""
        train = sets.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        kept = order[train.sizes[order].cumsum(0) <= MOST].sort().values if not train.shared else order[:0]
        chosen = [train[i][1] for i in (kept.tolist() or [0])]
        return Summary(sets.frame, train.shared, train.gridded, chosen)

    def packed(self) -> dict[str, Any]:
        """Plain values and tensors, for the statistics of a run: all layouts one after the other."""
        frame = {**vars(self.frame), "periodic": list(self.frame.periodic)}
        layouts = {name: torch.cat([c[name] for c in self.conditions]) for name in self.conditions[0] if name != "grid"}
        if self.gridded:
            layouts["grid"] = torch.stack([c["grid"] for c in self.conditions])
        sizes = torch.tensor([len(c["coords"]) for c in self.conditions])
        return {"frame": frame, "shared": self.shared, "gridded": self.gridded, "sizes": sizes, "layouts": layouts}

    @staticmethod
    def unpacked(kept: Mapping[str, Any]) -> Summary:
        """The inverse of :meth:`packed`."""
        frame = Frame(**{**kept["frame"], "periodic": tuple(kept["frame"]["periodic"])})
        sizes = kept["sizes"].tolist()
        parts = {name: v.split(sizes) if name != "grid" else v.unbind() for name, v in kept["layouts"].items()}
        rows = [{name: v[i] for name, v in parts.items()} for i in range(len(sizes))]
        return Summary(frame, kept["shared"], kept["gridded"], rows)

    def draw(self, n: int) -> list[Mapping[str, Tensor]]:
        """The sensors of ``n`` functions: the common ones, or those of random training functions."""
        chosen = [0] * n if self.shared else torch.randint(len(self.conditions), (n,)).tolist()
        return [self.conditions[i] for i in chosen]

    def check(self, sets: Sets) -> None:
        """Raise UserError if functions are of another kind than the training functions."""
        have, wanted = ((s.channels, s.dim, s.frame.periodic) for s in (sets, self))
        if have != wanted or (self.gridded and not sets.train.gridded):
            grids = ["" if on else " and no grid" for on in (sets.train.gridded, self.gridded)]
            raise UserError(
                f"these functions have (values, coordinates, periods) {have}{grids[0]}; what was trained has "
                f"{wanted}{grids[1]}"
            )
