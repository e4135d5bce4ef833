"""Averages of numbers that are measured chain by chain. What is not defined is NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .geometry import measure
from .structure import Backbone


def column(backbones: Sequence[Backbone], name: str) -> Tensor:
    """The finite values of one measured number."""
    values = torch.tensor([measure(b)[name] for b in backbones], dtype=torch.float64)
    return values[values.isfinite()]


def mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def means(backbones: Sequence[Backbone], *names: str) -> dict[str, float]:
    return {name: mean(column(backbones, name)) for name in names}


def table(rows: Sequence[dict[str, float]], *names: str) -> Tensor:
    """(n, len(names)) of the rows without NaN."""
    found = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64).reshape(-1, len(names))
    return found[found.isfinite().all(1)]


def mean_of(values: Tensor, weights: Tensor) -> float:
    return ((values * weights).sum() / weights.sum()).item() if weights.sum() > 0 else math.nan


def known(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The means of all numbers of the rows that have them."""
    found = {name: mean(table(rows, name)) for name in (rows[0] if rows else ())}
    return {name: value for name, value in found.items() if math.isfinite(value)}
