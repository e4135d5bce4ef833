"""Couplings: which noise meets which datum.

Any joint law of noise and data with the right marginals trains a valid flow. The independent coupling needs nothing;
others straighten the paths. A coupling declares whether noise and datum stay independent, since only then does the
endpoint prediction also give the score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from fm_science.state import Context, State


class Coupling(ABC):
    """A rule that pairs a batch of noise with a batch of data."""

    independent: bool = False  #: whether noise and datum are independent after pairing
    early: bool = False  #: whether noise that comes along with a batch has been paired already

    @abstractmethod
    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        """Paired noise, data and their context, on a bound space; weights of the pairs ride in
        ``context.cond["weight"]`` ``(B,)``."""


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise and data as they were drawn."""

    independent = True

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return x0, x1, context


@dataclass(frozen=True)
class Paired(Coupling):
    """The noise came with the batch, as one end of a pair of data."""

    early = True

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return x0, x1, context
