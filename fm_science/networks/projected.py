"""Constraints while sampling: a network whose predicted endpoint is moved onto what the data obey.

Bonds have lengths, densities are positive, patients have ages: a learned endpoint misses such constraints by a little.
Moved onto them in each step, the walk heads for a point that obeys them, instead of being mended once at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.state import Context, State, expand_like, tree_map

Projection = Callable[[Any, Context], Any]  #: ``(endpoint, context) -> endpoint`` that obeys the constraints


class ProjectedEndpoint(nn.Module):
    """A network that predicts endpoints, projected from a time on.

    Before that time an endpoint is a mean over many data, which obeys no constraint of a single one. The law of the
    samples changes: this is a constraint that is imposed, not one that was learned.

    Args:
        network: predicts the endpoint of every part of the state (:class:`~fm_science.Endpoint`).
        project: moves endpoints onto the constraints; it gets the context too.
        start: the time from which endpoints are projected.
    """

    def __init__(self, network: Callable[..., Any], project: Projection, start: float = 0.5) -> None:
        super().__init__()
        self.network, self.project, self.start = network, project, start
        self.self_conditioned: bool = getattr(network, "self_conditioned", False)
        self.two_times: bool = getattr(network, "two_times", False)

    def forward(self, x: Any, t: Tensor, context: Context) -> State:
        raw = self.network(x, t, context)
        late = t >= self.start
        return tree_map(lambda a, b: torch.where(expand_like(late, a), b, a), raw, self.project(raw, context))
