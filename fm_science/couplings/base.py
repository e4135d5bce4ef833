"""Couplings: which noise meets which datum.

Any joint law of noise and data with the right marginals trains a valid flow. The independent coupling needs nothing;
others straighten the paths. A coupling declares whether noise and datum stay independent, since only then does the
endpoint prediction also give the score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fm_science.declarations import derived
from fm_science.priors import Prior
from fm_science.spaces import Space
from fm_science.state import Context, State
from fm_science.symmetries import Symmetry


class Coupling(ABC):
    """A rule that pairs a batch of noise with a batch of data."""

    independent: bool = False  #: whether noise and datum are independent after pairing
    independent_parts: tuple[str, ...] = ()  #: parts whose noise stays independent of the data although others do not
    gather: Callable[..., Any] | None = None  #: the batches of all processes, to pair over all of them
    pre_paired: bool = False  #: whether noise that comes along with a batch has been paired already

    def preparation(
        self, space: Space, prior: Prior, augmentations: tuple[Symmetry, ...] = ()
    ) -> Callable[..., Any] | None:
        """What the processes that load data do to each batch, where pairs are made there."""
        return None

    @abstractmethod
    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        """Paired noise, data and their context, on a bound space; weights of the pairs ride in
        ``context.cond["weight"]`` ``(B,)``."""


@dataclass(frozen=True)
class Independent(Coupling):
    """Noise and data as they were drawn."""

    independent = True

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return x0, x1, context


@dataclass(frozen=True)
class PartCoupling(Coupling):
    """A coupling of one part of the state; the noise of the other parts stays where it was drawn, independent of the
    data. Legal where that noise is alike on all sites of a sample (masks, equal class probabilities), so that the order
    of the sites says nothing about it.

    Args:
        part: name of the part.
        coupling: pairs that part, and leaves the data as they are.
        others: names of the other parts.
    """

    part: str
    coupling: Coupling
    others: tuple[str, ...] = ()

    @derived
    def independent(self) -> bool:
        return self.coupling.independent

    @derived
    def independent_parts(self) -> tuple[str, ...]:
        return self.others

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if context.free is None:
            moved, _, context = self.coupling.pair(space.parts[self.part], x0[self.part], x1[self.part], context)
        else:
            inner = context.part(self.part)
            moved, _, after = self.coupling.pair(space.parts[self.part], x0[self.part], x1[self.part], inner)
            context = context if after is inner else replace(context, cond=after.cond)
        return {**x0, self.part: moved}, x1, context


@dataclass(frozen=True)
class Paired(Coupling):
    """The noise came with the batch, as one end of a pair of data."""

    pre_paired = True

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return x0, x1, context
