"""Rows as points of a product of spaces, and back.

The columns with a real coordinate are the sites of one Euclidean part, ``numbers``; every periodic column is a circle
and every class column a choice, parts of their own. So each cell is a site: a missing one can be frozen, a given one
held. Classes start from a mask class, which also stands for "not there".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_science.paths import Geodesic, Path, ProductPath
from fm_science.predictions import Posterior
from fm_science.priors import Classes, Normal, Prior, ProductPrior, Uniform
from fm_science.spaces import Categorical, Euclidean, Torus
from fm_science.state import Context

from .columns import Column
from .files import Numbers

NUMBERS = "numbers"  #: the part of columns with a real coordinate
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Encoding:
    """How the values of rows become a state.

    Args:
        columns: all columns of the table in order.
        condition: name of the column that is given to the network as a condition in place of being learned, if any.
    """

    columns: tuple[Column, ...]
    condition: str | None = None

    @staticmethod
    def of(statistics: Mapping[str, Any]) -> Encoding:
        """The encoding of a run from its statistics."""
        return Encoding(tuple(Column.from_dict(c) for c in statistics["columns"]), statistics["condition"])

    @cached_property
    def learned(self) -> tuple[int, ...]:
        """Numbers of the columns that make the state."""
        return tuple(k for k, c in enumerate(self.columns) if c.learned and c.name != self.condition)

    @cached_property
    def condition_index(self) -> int | None:
        """Number of the column that is the condition."""
        return next((k for k, c in enumerate(self.columns) if c.name == self.condition), None)

    @cached_property
    def linear(self) -> tuple[int, ...]:
        """Numbers of the columns of the part ``numbers``."""
        return tuple(k for k in self.learned if self.columns[k].linear)

    @cached_property
    def others(self) -> dict[str, int]:
        """Number of the column of every other part, by name."""
        found: dict[str, int] = {}
        for k in self.learned:
            c = self.columns[k]
            if not c.linear:
                plain = re.sub(r"\W+", "_", c.name).strip("_")
                name = f"{'class' if c.kind == 'class' else 'angle'}_{plain or k}"
                found[name if name not in found else f"{name}_{k}"] = k
        return found

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Numbers of the learned columns as the network sees them: the linear ones, then the other parts."""
        return (*self.linear, *self.others.values())

    @property
    def continuous(self) -> bool:
        """Whether every learned column has a density."""
        return all(self.columns[k].kind != "class" for k in self.learned)

    def path(self) -> ProductPath:
        """Straight lines of numbers, shortest arcs of angles, and masks that fall from classes."""
        parts: dict[str, Path] = {NUMBERS: Geodesic(Euclidean(1))} if self.linear else {}
        for name, k in self.others.items():
            count = len(self.columns[k].classes)
            parts[name] = (
                Geodesic(Categorical(count + 1, on="graph"), predicts=Posterior(mask=count))
                if count
                else Geodesic(Torus(1, on="graph"))
            )
        return ProductPath(**parts)

    def prior(self) -> ProductPrior:
        """Standard normal numbers, even angles, masked classes."""
        parts: dict[str, Prior] = {NUMBERS: Normal()} if self.linear else {}
        for name, k in self.others.items():
            count = len(self.columns[k].classes)
            parts[name] = Classes([0.0] * count + [1.0]) if count else Uniform()
        return ProductPrior(**parts)

    @property
    def sites(self) -> int:
        """Sites of a row as the engine counts them."""
        return max(1, len(self.linear))

    def encode(self, values: Numbers, dither: Numbers | float = 0.0) -> tuple[Parts, Tensor]:
        """Values ``(n, C)`` to a state in float64, and which cells are there, ``(n, L)`` bool in the order of
        :attr:`order`. Missing cells hold zero, and the mask class.

        Args:
            values: in the user's units, numbers of classes for class columns; NaN where missing.
            dither: ``(n, C)`` in [-1/2, 1/2), added to integers.
        """
        noise = np.broadcast_to(dither, values.shape)
        there = torch.from_numpy(~np.isnan(values))
        z = {k: self.columns[k].coordinate(values[:, k], noise[:, k]) for k in self.learned}
        state: Parts = {}
        if self.linear:
            flat = np.stack([np.where(np.isnan(z[k]), 0.0, z[k]) for k in self.linear], 1)
            state[NUMBERS] = torch.from_numpy(flat)[..., None]
        for name, k in self.others.items():
            count = len(self.columns[k].classes)
            filled = torch.from_numpy(np.where(np.isnan(z[k]), float(count), z[k]))
            state[name] = torch.nn.functional.one_hot(filled.long(), count + 1).double() if count else filled[:, None]
        return state, there[:, list(self.order)]

    def decode(self, state: Parts, condition: Tensor | None = None) -> Numbers:
        """A state to values ``(n, C)`` in the user's units, with the values of the condition where they are given.
        Columns that are not learned are NaN."""
        n = len(next(iter(state.values())))
        values = np.full((n, len(self.columns)), np.nan)
        for i, k in enumerate(self.linear):
            values[:, k] = self.columns[k].value(state[NUMBERS][:, i, 0].detach().cpu().double().numpy())
        for name, k in self.others.items():
            x = state[name].detach().cpu().double()
            count = len(self.columns[k].classes)
            if count:
                chosen = x.argmax(-1).double().numpy()
                values[:, k] = np.where(chosen == count, np.nan, chosen)
            else:
                values[:, k] = self.columns[k].value(x[:, 0].numpy())
        if condition is not None and self.condition_index is not None:
            values[:, self.condition_index] = self.condition_values(condition)
        return values

    def condition_codes(self, values: Numbers) -> Tensor:
        """The condition of rows ``(n, C)`` as the network reads it: numbers of classes (-1: not known), or coordinates
        (NaN)."""
        assert self.condition_index is not None
        column = self.columns[self.condition_index]
        v = values[:, self.condition_index]
        if column.kind == "class":
            return torch.from_numpy(np.where(np.isnan(v), -1, v)).long()
        return torch.from_numpy(column.coordinate(v)).float()

    def condition_values(self, codes: Tensor) -> Numbers:
        """The inverse of :meth:`condition_codes`, ``(n,)``."""
        assert self.condition_index is not None
        column, v = self.columns[self.condition_index], codes.detach().cpu().double().numpy()
        return np.where(v < 0, np.nan, v) if column.kind == "class" else column.value(v)

    def by_part(self, flags: Tensor) -> Parts:
        """Flags of cells ``(B, L)`` by part: ``(B, R)`` for numbers, ``(B,)`` for the others."""
        r = len(self.linear)
        found = {NUMBERS: flags[:, :r]} if self.linear else {}
        return found | {name: flags[:, r + i] for i, name in enumerate(self.others)}

    def free(self, context: Context) -> Tensor:
        """Which cells may move, ``(B, L)`` bool."""
        if context.free is None:
            return torch.ones(context.size, len(self.order), dtype=torch.bool, device=context.mask.device)
        r = len(self.linear)
        parts = ([context.free[NUMBERS][:, :r]] if self.linear else []) + [
            context.free[k][:, None] for k in self.others
        ]
        return torch.cat(parts, 1)

    def log_slope(self, values: Numbers, dither: Numbers | float = 0.0) -> Tensor:
        """log |det| of the map from values ``(n, C)`` to coordinates, over the cells that are there, ``(n,)``."""
        noise = np.broadcast_to(dither, values.shape)
        slopes = [self.columns[k].log_slope(values[:, k], noise[:, k]) for k in self.learned]
        return torch.from_numpy(np.nansum(np.stack(slopes, 1), 1))

    def dithered(self, numbers: Tensor) -> Tensor:
        """Coordinates ``(B, R, 1)`` of whole numbers as those of real ones: an even dither in [-1/2, 1/2) is added in
        the user's units. Other columns stay."""
        at = [i for i, k in enumerate(self.linear) if self.columns[k].kind == "integer"]
        if not at:
            return numbers
        out = numbers.clone()
        for i in at:
            c, noise = self.columns[self.linear[i]], torch.rand_like(numbers[:, i]) - 0.5
            y = c.mean + c.std * numbers[:, i]
            y = (y.exp() + noise).clamp_min(0.25).log() if c.log else y + noise
            out[:, i] = (y - c.mean) / c.std
        return out

    def features(self, values: Numbers) -> Numbers:
        """Rows ``(n, C)`` as vectors ``(n, D)`` between which distances mean something: standardised numbers, angles as
        points of a circle of radius one, classes as corners at distance one. Missing cells are the middle: zero."""
        found: list[Numbers] = []
        for k, c in enumerate(self.columns):
            if not c.learned:
                continue
            z = c.coordinate(values[:, k])
            if c.kind == "period":
                found += [np.cos(z)[:, None], np.sin(z)[:, None]]
            elif c.kind == "class":
                found.append((z[:, None] == np.arange(len(c.classes))) / math.sqrt(2))
            else:
                found.append(z[:, None])
        return np.nan_to_num(np.concatenate(found, 1), nan=0.0, posinf=1e6, neginf=-1e6)

    def indices(self, names: Sequence[str]) -> tuple[int, ...]:
        """Numbers of columns by name."""
        known = [c.name for c in self.columns]
        return tuple(known.index(name) for name in names)
