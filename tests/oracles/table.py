"""The table itself: a row is a name, a tolerance and a function that returns an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Oracle:
    """One row of the table: ``run()`` gives the error, which must not exceed ``tolerance``."""

    name: str
    tolerance: float
    run: Callable[[], float]
    slow: bool = False


ORACLES: list[Oracle] = []


def oracle(name: str, tolerance: float, slow: bool = False) -> Callable[[Callable[[], float]], Callable[[], float]]:
    """Adds a function that returns an error to the table."""

    def add(run: Callable[[], float]) -> Callable[[], float]:
        ORACLES.append(Oracle(name, tolerance, run, slow))
        return run

    return add


def largest(difference: Tensor) -> float:
    """The largest absolute entry."""
    return float(difference.abs().max())


def measured(row: Oracle) -> float:
    """The error of a row, in float64 and from a fixed seed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return float(row.run())
    finally:
        torch.set_default_dtype(before)
