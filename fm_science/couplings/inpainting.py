"""Partial observation: learn what is missing from what is given.

In some batches a part of each sample is given: a motif, a fragment, the cells of a row that were filled in. The given
sites are frozen at their values, noise meets data on the others, and a network that sees which sites are frozen learns
the conditional law of the rest. A domain says only how the given part is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fm_science.couplings.base import Coupling, Independent
from fm_science.declarations import derived
from fm_science.priors import Prior, cast
from fm_science.state import Context, State, leaves

#: ``(x1, context) -> (x1, context)``: the data, moved to another frame or disturbed where the domain wants that, and
#: the context with ``free`` and ``known``
Choose = Callable[[Any, Context], tuple[Any, Context]]


@dataclass(frozen=True)
class Inpainting(Coupling):
    """A share of the batches is given in part; the others are paired as ever.

    Args:
        choose: freezes the given part of a batch of data.
        coupling: pairs noise with whole data.
        partial: pairs noise with the free part of data that are given in part. It must not exchange noise between
            samples: what is given differs between them, and the noise of a sample must not depend on it.
        fraction: share of the batches that are given in part. One draw decides for a batch, since spaces bound to
            frozen sites may differ from free ones (a centred space is not centred around a motif).
        prior: of the noise, which is then drawn anew on the space that knows the frozen sites; ``None``: the noise
            that was drawn keeps its free sites.

    Raises ValueError for a fraction outside [0, 1].
    """

    choose: Choose
    coupling: Coupling = Independent()
    partial: Coupling = Independent()
    fraction: float = 1.0
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"Inpainting(fraction={self.fraction}): expected a share of the batches, from 0 to 1.")

    @derived
    def independent(self) -> bool:
        used = ([self.coupling] if self.fraction < 1 else []) + ([self.partial] if self.fraction > 0 else [])
        return all(coupling.independent for coupling in used)

    @derived
    def independent_parts(self) -> tuple[str, ...]:
        return self.coupling.independent_parts

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if float(torch.rand(())) >= self.fraction:
            return self.coupling.pair(space, x0, x1, context)
        x1, context = self.choose(x1, context)
        space = space.bind(context)
        noise = x0 if self.prior is None else cast(space, self.prior.sample(space, context), leaves(x1)[0])
        return self.partial.pair(space, space.project(noise), x1, context)
