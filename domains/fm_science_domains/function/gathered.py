"""Many functions, with what is known of all of them together: in memory here, or in a prepared file (``stored``).

Training, statistics and metrics see a sequence of functions and these few numbers of each, so that they need not know
where the values lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .frame import Frame
from .sensors import Sampled

Item = tuple[Tensor, dict[str, Tensor]]


class Gathered(Sequence[Sampled]):
    """Functions in memory.

    Attributes:
        sizes: ``(n,)`` int64, sensors of each.
        kinds: the (channels, coordinates) that occur.
        gridded: ``(n,)`` bool, which are on regular grids.
        layouts: the numbers of functions whose sensors together are all that occur.
    """

    def __init__(self, functions: Sequence[Sampled]) -> None:
        self._functions = list(functions)

    @cached_property
    def sizes(self) -> Tensor:
        return torch.tensor([len(f) for f in self], dtype=torch.long)

    @cached_property
    def kinds(self) -> set[tuple[int, int]]:
        return {(f.values.shape[1], f.coords.shape[1]) for f in self}

    @cached_property
    def gridded(self) -> Tensor:
        return torch.tensor([f.grid is not None for f in self], dtype=torch.bool)

    @cached_property
    def layouts(self) -> Tensor:
        return torch.tensor([*{id(f.coords): i for i, f in enumerate(self)}.values()], dtype=torch.long)

    def take(self, index: Tensor) -> Gathered:
        """The functions ``index``, in that order."""
        return Gathered([self[i] for i in index.tolist()])

    def __len__(self) -> int:
        return len(self._functions)

    def __iter__(self) -> Iterator[Sampled]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Sampled: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sampled]: ...
    def __getitem__(self, index: int | slice) -> Sampled | list[Sampled]:
        return self._functions[index]


class Fields(Dataset):
    """Functions as items ``(values (N, C), {"coords" (N, d), "weights" (N,)[, "grid" (d,)]})``, inside units, each made
    when it is asked for.

    Attributes:
        functions: in the units of their source.
        sizes: ``(len,)`` int64, sensors of each.
    """

    def __init__(self, functions: Sequence[Sampled], frame: Frame) -> None:
        self.functions = functions if isinstance(functions, Gathered) else Gathered(functions)
        self.frame, self.sizes = frame, self.functions.sizes
        self.gridded = bool(self.functions.gridded.all())
        first = functions[0].coords
        self.shared = all(torch.equal(functions[i].coords, first) for i in self.functions.layouts.tolist())
        self._unit = first, frame.unit(first).float()  # of the sensors that came last

    def __len__(self) -> int:
        return len(self.functions)

    def __getitem__(self, index: int) -> Item:
        f = self.functions[index]
        if self._unit[0] is not f.coords:
            self._unit = f.coords, self.frame.unit(f.coords).float()
        cond = {"coords": self._unit[1], "weights": f.weights.float()}
        if self.gridded and f.grid is not None:
            cond["grid"] = torch.tensor(f.grid)
        return self.frame.inside(f.values), cond
