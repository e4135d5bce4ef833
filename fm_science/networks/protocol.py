"""What the engine asks of a network: one call, from state, time and context to raw output."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from fm_science.state import Context


class Network(Protocol):
    """Anything callable as ``network(x, t, context) -> raw``: a module, or a closed-form function.

    ``x`` is a state, ``t`` is ``(B,)``, and ``raw`` is a state whose meaning the path's prediction fixes. A module with
    the attribute ``self_conditioned = True`` reads ``context.previous``, the endpoint predicted one step earlier.

    A module with the attribute ``two_times = True`` is a flow map: it reads ``context.t_end`` ``(B,)``, the time to
    land at, and tells the mean velocity v of the jump exp(x, (until - t) v). Where ``t_end`` is ``None`` it is the same
    as ``t``, and the network tells the velocity, so that all that walks a velocity field walks its own.
    """

    def __call__(self, x: Any, t: Tensor, context: Context) -> Any:
        """The raw output at ``x`` and time ``t``."""
