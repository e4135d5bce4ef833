"""Constraints while sampling: a network whose predicted endpoint is moved onto what the data obey.

Bonds have lengths, densities are positive, patients have ages: a learned endpoint misses such constraints by a little.
Moved onto them in each step, the walk heads for a point that obeys them, instead of being mended once at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_science.networks.base import NetworkFunction, WrappedNetwork
from fm_science.state import Context, State, expand_like, tree_map

Projection = Callable[[State, Context], State]  #: ``(endpoint, context) -> endpoint`` that obeys the constraints


class ProjectedEndpoint(WrappedNetwork):
    """A network that predicts endpoints, projected from a time on.

    Before that time an endpoint is a mean over many data, which obeys no constraint of a single one. The law of the
    samples changes: this is a constraint that is imposed, not one that was learned.

    Args:
        network: predicts the endpoint of every part of the state (:class:`~fm_science.Endpoint`).
        project: moves endpoints onto the constraints; it gets the context too.
        start: the time from which endpoints are projected.
    """

    def __init__(self, network: NetworkFunction, project: Projection, start: float = 0.5) -> None:
        super().__init__(network)
        self.project, self.start = project, start

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        raw = self.network(x, t, context)
        late = t >= self.start
        return tree_map(lambda a, b: torch.where(expand_like(late, a), b, a), raw, self.project(raw, context))
