"""Flow matching: regress a network on the motion of paths whose both ends are known.

Draw noise, pair it with data, pick a time, stand on the path, and ask the network for what the path predicts. The
minimiser of this regression is the marginal velocity field (Lipman et al. 2023, theorem 2), on any space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.contract import admit_training, check_output
from fm_science.couplings import Coupling, Independent
from fm_science.declarations import renamed_keywords
from fm_science.flow import Flow
from fm_science.networks import drop_condition
from fm_science.objectives.base import Objective
from fm_science.objectives.times import UniformTime
from fm_science.paths import Path
from fm_science.priors import cast
from fm_science.state import Context, State, batch_size, leaves


@dataclass(frozen=True)
class Pairs:
    """Noise and data that belong together, their context, and a path that is bound to it."""

    path: Path
    x0: State
    x1: State
    context: Context


@renamed_keywords(drop="condition_dropout", extras="auxiliary_losses")
@dataclass(frozen=True)
class FlowMatching(Objective):
    """The regression loss of flow matching, by part of the state.

    Args:
        coupling: which noise meets which datum.
        times: a law of times, ``n -> (n,)``.
        weight: how much each time counts, ``t -> (B,)``, or one such law for each part by name; ``None``: equally.
        parts: weights of the parts of a product, by name (1 where absent). The loss of a part within a part has a name
            such as "bonds/velocity"; what is said of a part holds for all within it.
        auxiliary_losses: losses on the predicted endpoint, ``(x1hat, x1, t, context) -> (B,)``, by name. They bias the
            field, so use them where realism counts more than the exact law.
        condition_dropout: probability that a sample does not see a condition, by name: whole numbers become -1, floats
            NaN. What is dropped at times can be guided (:class:`~fm_science.networks.Guided`); pairs are made before.
        self_condition: probability that a step first predicts without gradient and shows the network its own endpoint
            (Chen et al. 2023).
    """

    coupling: Coupling = Independent()
    times: Callable[[int], Tensor] = UniformTime()
    weight: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    auxiliary_losses: Mapping[str, Callable[[State, State, Tensor, Context], Tensor]] = field(default_factory=dict)
    condition_dropout: Mapping[str, float] = field(default_factory=dict)
    self_condition: float = 0.0

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)`` of a batch of data; ``x0`` is drawn from the prior where it did not come along.

        Raises:
            ValueError: when ``condition_dropout`` names a condition that the batch does not carry.
        """
        return self.losses(flow, self.pairs(flow, x1, context, x0))

    def pairs(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> Pairs:
        """Noise drawn and paired with a batch of data, with the context as the network is to see it."""
        self.record_training(flow)
        x1, x0 = admit_training(flow, x1, context, x0)
        path = flow.path.bind(context, flow.prior)
        paired = x0 is not None and self.coupling.pre_paired
        x0 = flow.prior.sample(path.space, context) if x0 is None else x0
        x0 = cast(path.space, x0, leaves(x1)[0])
        if not paired:
            before = context
            x0, x1, context = self.coupling.pair(path.space, x0, x1, context)
            if context is not before:  # a coupling may bring its own
                path = flow.path.bind(context, flow.prior)
        return Pairs(path, x0, x1, self._forgetful(context))

    def losses(self, flow: Flow, pairs: Pairs) -> dict[str, Tensor]:
        """Named losses ``(B,)`` of paired noise and data."""
        path, x0, x1, context = pairs.path, pairs.x0, pairs.x1, pairs.context
        t = path.place_times(self.times(batch_size(x1)).to(leaves(x1)[0]))
        x = path.sample(x0, x1, t)
        context = self._with_previous(flow, path, x, t, context)
        raw = flow(x, t, context)
        check_output(path, raw)
        losses = self.weighted(path.loss(raw, x0, x1, x, t), t, context)
        if self.auxiliary_losses:
            x1hat = path.endpoint(raw, x, t)
            losses |= {name: extra(x1hat, x1, t, context) for name, extra in self.auxiliary_losses.items()}
        return losses

    def _forgetful(self, context: Context) -> Context:
        """The context with each condition dropped on its share of samples."""
        for name, probability in self.condition_dropout.items():
            rows = torch.rand(context.size, device=context.mask.device) < probability
            context = drop_condition(context, name, rows)
        return context

    def _with_previous(self, flow: Flow, path: Path, x: State, t: Tensor, context: Context) -> Context:
        if float(torch.rand(())) >= self.self_condition:
            return context
        with torch.no_grad():
            previous = path.endpoint(flow(x, t, context), x, t)
        return replace(context, previous=previous)

    def weighted(self, loss: State, t: Tensor, context: Context) -> dict[str, Tensor]:
        """Losses by part with all weights applied: of times, of parts and of pairs."""
        pairs = context.cond.get("weight", 1.0)
        named = _named(loss) if isinstance(loss, Mapping) else {"loss": loss}
        return {name: pairs * self._weight(name, t) * v for name, v in named.items()}

    def _weight(self, name: str, t: Tensor) -> float | Tensor:
        """What the loss of a name counts at times ``t``: its own weights, times those of the parts it lies in."""
        words = name.split("/")
        around = ["/".join(words[: k + 1]) for k in range(len(words))]
        laws = [self.weight.get(k) for k in around] if isinstance(self.weight, Mapping) else [self.weight]
        return math.prod([self.parts.get(k, 1.0) for k in around] + [law(t) for law in laws if law is not None])


def _named(losses: Mapping[str, Any]) -> dict[str, Tensor]:
    """Losses by part, those of a part within a part by "part/name"."""
    named: dict[str, Tensor] = {}
    for name, loss in losses.items():
        inner = {f"{name}/{k}": v for k, v in _named(loss).items()} if isinstance(loss, Mapping) else {name: loss}
        named |= inner
    return named
