"""What every objective is: a call from a flow and a batch of data to named losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.flow import Flow
from fm_science.state import Context, State, leaves, tree_map


class Objective(ABC):
    """What a training step minimises: the mean over the batch of the sum of the named losses."""

    @abstractmethod
    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)`` of a batch of data ``x1``; ``x0`` is noise that came along with it."""


def paired(
    coupling: Coupling, flow: Flow, x1: State, context: Context, x0: State | None = None
) -> tuple[Any, State, State, Context]:
    """Noise for a batch of data, drawn from the prior where it did not come along and paired by a coupling; the flow
    notes whether the two are independent.

    Returns:
        The bound path, noise, data and context, as the coupling left them.
    """
    flow.independent = coupling.independent
    path = flow.path.bind(context, flow.prior)
    like = leaves(x1)[0]
    early = x0 is not None and coupling.early
    x0 = flow.prior.sample(path.space, context) if x0 is None else x0
    x0 = tree_map(lambda leaf: leaf.to(like), x0)
    if early:
        return path, x0, x1, context
    before = context
    x0, x1, context = coupling.pair(path.space, x0, x1, context)
    if context is not before:  # a coupling may bring its own
        path = flow.path.bind(context, flow.prior)
    return path, x0, x1, context
