"""Flow maps: learn where a point will be, not only how fast it moves.

A velocity tells where a point goes in the next instant, so sampling takes many small steps. The flow map X_{s,t} of the
same flow carries a point from time s to time t at once. A two-time network tells the mean velocity v_{s,t}(x) of that
jump, X_{s,t}(x) = exp_x((t - s) v_{s,t}(x)). On the diagonal s = t it is the velocity, which flow matching teaches as
ever. Off the diagonal nothing has to be simulated: a map of a flow obeys a law that ties long jumps to short ones
(:mod:`~fm_science.objectives.laws`), and the network is its own teacher (Boffi, Albergo & Vanden-Eijnden 2025).

All this is said with ``exp`` and tangents, so it is the same on flat and on curved spaces and on products of them.
Classes have no map, since they jump at random. Beside smooth parts they learn their posterior as in flow matching, and
the smooth parts learn the map of the flow whose classes stay what they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.flow import Flow
from fm_science.objectives.base import Objective
from fm_science.objectives.flow_matching import FlowMatching, Pairs
from fm_science.objectives.laws import FlowMapLoss, Lagrangian, Map
from fm_science.objectives.times import UniformTime
from fm_science.paths import Path
from fm_science.predictions import mean_square
from fm_science.solvers.flow_map import require_flow_map
from fm_science.state import Context, State, leaves, take, zip_leaves


@dataclass(frozen=True)
class TimePairs:
    """Starts and ends of jumps, ``n -> (s, t)``: two times of one law in order, and with probability ``whole`` the
    whole way from 0 to 1.

    Args:
        times: a law of times, ``n -> (n,)``.
        whole: the share of jumps that go all the way.
    """

    times: Callable[[int], Tensor] = UniformTime()
    whole: float = 0.0

    def __call__(self, n: int) -> tuple[Tensor, Tensor]:
        a, b = self.times(n), self.times(n)
        whole = torch.rand(n) < self.whole
        return torch.where(whole, 0.0, torch.minimum(a, b)), torch.where(whole, 1.0, torch.maximum(a, b))


@dataclass(frozen=True)
class FlowMapMatching(Objective):
    """Flow matching on the diagonal, and a law of flow maps off it, for a network with ``two_times = True``.

    The losses of flow matching keep their names. Those of the law are called ``map``, or ``map_NAME`` for the smooth
    part NAME of a product. Sample with the solver ``FlowMap()``.

    Args:
        matching: how the velocity is taught: coupling, times, weights, conditions that are dropped.
        law: what ties long jumps to short ones: ``Lagrangian()``, ``MeanFlow()`` or ``Semigroup()``.
        spans: starts and ends of the jumps, ``n -> (s, t)``, each ``(n,)``.
        weight: of the law beside flow matching.
        share: the part of a batch on which the law is taught. It costs two to four evaluations a sample, flow matching
            one; the loss of the others is zero, and that of these is divided by the share.

    Raises:
        TypeError: when called, for a network that knows one time only or reads its last endpoint, for a state without
            smooth parts, and for predictions and schedules whose velocity is undefined at t = 1.
    """

    matching: FlowMatching = FlowMatching()
    law: FlowMapLoss = Lagrangian()
    spans: Callable[[int], tuple[Tensor, Tensor]] = TimePairs()
    weight: float = 1.0
    share: float = 1.0

    @property
    def coupling(self) -> Coupling:
        """Which noise meets which datum."""
        return self.matching.coupling

    def within(self, low: float, high: float) -> FlowMapMatching:
        return replace(self, matching=self.matching.within(low, high))

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)`` of a batch of data; ``x0`` is noise that came along with it."""
        self._check(flow)
        pairs = self.matching.pairs(flow, x1, context, x0)
        return self.matching.losses(flow, pairs) | self._map(flow, pairs)

    def _map(self, flow: Flow, pairs: Pairs) -> dict[str, Tensor]:
        """The losses of the law by part, zero for samples that do not take part."""
        size = pairs.context.size
        count = max(1, math.ceil(self.share * size))
        if count == size:
            return self._taught(flow, pairs)
        rows = torch.randperm(size, device=pairs.context.mask.device)[:count]  # batches may come in an order
        context = pairs.context.take(rows)
        path = flow.path.bind(context, flow.prior)
        taught = self._taught(flow, Pairs(path, take(pairs.x0, rows), take(pairs.x1, rows), context))
        return {k: v.new_zeros(size).index_copy(0, rows, size / count * v) for k, v in taught.items()}

    def _taught(self, flow: Flow, pairs: Pairs) -> dict[str, Tensor]:
        """The losses of the law on all samples, by part."""
        s, t = (time.to(leaves(pairs.x1)[0]) for time in self.spans(pairs.context.size))
        seen = Map.of(flow, pairs.path, pairs.context, pairs.x0, pairs.x1, s)
        losses = _squares(seen.path, *self.law(seen, s, t))
        weight = self.weight * pairs.context.cond.get("weight", 1.0)
        return {f"map_{k}" if k else "map": weight * self.matching.parts.get(k, 1.0) * v for k, v in losses.items()}

    def _check(self, flow: Flow) -> None:
        """Raises TypeError where there is no map to learn."""
        network = flow.network
        if not network.two_times:
            raise TypeError(
                f"a flow map takes a network that reads context.t_end and says so by `two_times = True`; "
                f"{type(network).__name__} does not. EGNN(two_times=True) and TimeEmbedding(..., two_times=True) do."
            )
        if self.matching.self_condition or network.self_conditioned:
            raise TypeError("a flow map has no previous endpoint: train it with self_condition=0.")
        if not any(space.smooth for (space,) in zip_leaves(flow.path.space)):
            raise TypeError("classes have no flow map, since they jump at random: use FlowMatching() and Euler().")
        require_flow_map(flow.path)


def _squares(path: Path, x: State, residual: State) -> dict[str, Tensor]:
    """The squared length of a tangent a degree of freedom, by part."""
    if not path.parts:
        return {"": mean_square(path.space, x, residual)}
    return {k: mean_square(part.space, x[k], residual[k]) for k, part in path.parts.items()}
