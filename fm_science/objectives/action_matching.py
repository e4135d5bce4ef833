"""Action matching: learn a scalar whose gradient moves the samples, from snapshots alone.

Flow matching regresses on the velocities of paths. Action matching asks only where the samples are at each time: among
all fields that make the same snapshots it finds the one that is a gradient, which moves them with the least kinetic
energy. The path is used for its samples, never for its velocity, so snapshots that were measured serve as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.couplings import Coupling, Independent
from fm_science.flow import Flow
from fm_science.likelihood import Divergence, Hutchinson, divergence
from fm_science.networks import Potential
from fm_science.objectives.base import Objective
from fm_science.objectives.flow_matching import FlowMatching
from fm_science.objectives.times import UniformTime
from fm_science.paths import Bridge
from fm_science.paths.base import value_and_rate
from fm_science.predictions import Velocity
from fm_science.spaces import Space
from fm_science.state import Context, State, batch_size, leaves, tree_map, zip_leaves


@dataclass(frozen=True)
class ActionMatching(Objective):
    """E s(x_0, 0) - E s(x_1, 1) + int E[|grad s|² / 2 + ds/dt + sigma² / 2 laplace s] dt, a degree of freedom
    (Neklyudov, Brekelmans, Severo & Makhzani 2023, eq. 5; with sigma > 0 entropic action matching, eq. 12). The loss
    has no lower bound at zero: it falls towards minus the kinetic energy.

    The network of the flow must be a :class:`~fm_science.networks.Potential`. With ``sigma`` the snapshots are those of
    dx = grad s dt + sigma dW: sample with ``EulerMaruyama(sigma)``. The learned field is not the mean of a bridge, so
    the flow has no score.

    Args:
        coupling: which noise meets which datum; it changes the snapshots between the ends.
        times: a uniform law of times on [0, 1]: UniformTime() or Stratified().
        weight: how much each time counts, ``t -> (B,)``, differentiable; ``None``: equally.
        sigma: noise of the dynamics, a unit of root time.
        divergence: how the laplacian is found where sigma > 0.

    Raises:
        TypeError: when called, for networks without a potential, spaces that are not smooth, and paths that predict
            anything else than Velocity().
    """

    coupling: Coupling = Independent()
    times: Callable[[int], Tensor] = UniformTime()
    weight: Callable[[Tensor], Tensor] | None = None
    sigma: float = 0.0
    divergence: Divergence = Hutchinson()
    independent = False
    independent_parts = ()

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """One named loss, ``action`` ``(B,)``."""
        network = require_potential(flow)
        pairs = FlowMatching(self.coupling).pairs(flow, x1, context, x0)
        path, x0, x1, context = pairs.path, pairs.x0, pairs.x1, pairs.context
        self.record_training(flow)
        t = self.times(batch_size(x1)).to(leaves(x1)[0])
        start, end = torch.zeros_like(t), torch.ones_like(t)
        x, first, last = (tree_map(Tensor.detach, path.sample(x0, x1, r)) for r in (t, start, end))

        def s(y: State, r: Tensor) -> Tensor:
            return network.potential(y, r, context)

        loss = self._share(start) * s(first, start) - self._share(end) * s(last, end)
        loss = loss + self._share(t) * self._rate(network, path.space, x, t, context)
        if self.weight is not None:
            loss = loss + value_and_rate(self.weight, t)[1] * s(x, t)
        size = path.space.dimension.clamp_min(1)
        return {"action": context.cond.get("weight", 1.0) * loss / size}

    def within(self, low: float, high: float) -> ActionMatching:
        """Itself: between the ends the loss of a stretch of time means nothing."""
        return self

    def _share(self, t: Tensor) -> Tensor:
        return torch.ones_like(t) if self.weight is None else self.weight(t)

    def _rate(self, network: Potential, space: Space, x: State, t: Tensor, context: Context) -> Tensor:
        """|grad s|² / 2 + ds/dt + sigma² / 2 laplace s, ``(B,)``."""
        u, rate = network.rates(x, t, context)
        out = 0.5 * space.inner(x, u, u) + rate
        if self.sigma:
            trace = divergence(space, lambda y: network(y, t, context), x, self.divergence)[1]
            out = out + 0.5 * self.sigma**2 * trace
        return out


def require_potential(flow: Flow) -> Potential:
    """The network of a flow. Raises TypeError where it is no potential of a velocity."""
    if not isinstance(flow.network, Potential):
        raise TypeError("this objective trains a scalar: wrap the network as Potential(network, space).")
    for (part,) in zip_leaves(flow.path):
        if not (part.space.smooth and isinstance(part, Bridge) and isinstance(part.predicts, Velocity)):
            raise TypeError(f"a potential gives a velocity, and {part!r} predicts something else: use Velocity().")
    return flow.network
