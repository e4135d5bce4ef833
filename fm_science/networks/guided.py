"""Guidance without a classifier: push away from what the network says when it does not know the condition.

A network that was trained with conditions dropped now and then knows both the conditional and the unconditional field.
Walking along off + scale (on - off) sharpens the condition (Ho & Salimans 2022; Zheng et al. 2023 for flows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.networks.base import NetworkFunction, WrappedNetwork
from fm_science.state import Context, State, expand_like, map_leaves, tree_map

if TYPE_CHECKING:
    from fm_science.paths import Path


def drop_condition(context: Context, name: str, rows: Tensor | None = None) -> Context:
    """The context without the condition ``name``: whole numbers become -1 and floats NaN, on all samples or on those
    where ``rows`` ``(B,)`` is true. Networks embed both as "not known".

    Raises:
        ValueError: when the batch has no such condition, or its dtype has no -1 (bool, uint8).
    """
    if name not in context.cond:
        raise ValueError(f"cannot drop the condition {name!r}: the batch has {sorted(context.cond) or 'none'}.")
    value = context.cond[name]
    if not value.dtype.is_signed:
        raise ValueError(
            f"cannot drop the condition {name!r}: {value.dtype} has no -1 for 'not known'. Give it as int64."
        )
    gone = torch.full_like(value, torch.nan if value.is_floating_point() else -1)
    rows = torch.ones(context.size, dtype=torch.bool, device=value.device) if rows is None else rows
    return replace(context, cond={**context.cond, name: torch.where(expand_like(rows, value), gone, value)})


class Guided(WrappedNetwork):
    """off + scale (on - off): the raw output with the conditions, pushed away from that without them.

    On velocities, noise and flat endpoints that combines velocities; on logits it gives the renormalised product
    on^scale off^(1 - scale). Endpoints on curved spaces cannot be added: give the ``path``, and the tangents towards
    both endpoints are combined at x, as velocities are.

    Args:
        network: trained with the conditions dropped at times (``FlowMatching(condition_dropout={"label": 0.1})``).
        scale: strength; 1 is the plain conditional network (one evaluation), 0 the unconditional one, or a function of
            time ``t -> (B,)``, for guidance in an interval.
        keys: the conditions that are guided, dropped together.
        path: of the flow, where endpoints on curved spaces are predicted.
    """

    two_times = False  # the jumps of flow maps do not add up

    def __init__(
        self, network: NetworkFunction, scale: float | Callable[[Tensor], Tensor], keys: Iterable[str] = ("label",),
        path: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(network)
        self.scale, self.path = scale, path
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        if not callable(self.scale) and self.scale == 1:
            return self.network(x, t, context)
        unknown = context
        for name in self.keys:
            unknown = drop_condition(unknown, name)
        off = self.network(x, t, unknown)
        if not callable(self.scale) and self.scale == 0:
            return off
        on, scale = self.network(x, t, context), self.scale(t) if callable(self.scale) else self.scale

        def pushed(a: Tensor, b: Tensor) -> Tensor:
            return _pushed(a, b, scale)

        def combined(path: Path, x: Tensor, off: State, on: State) -> State:
            space = path.space
            if not (space.smooth and not space.linear and path.predicts_endpoint):
                return tree_map(pushed, off, on)
            away, towards = (space.log(x, path.endpoint(raw, x, t)) for raw in (off, on))
            return space.exp(x, pushed(away, towards))

        if self.path is None:
            return tree_map(pushed, off, on)
        return map_leaves(combined, self.path.bind(context), x, off, on)


def _pushed(off: Tensor, on: Tensor, scale: float | Tensor) -> Tensor:
    """off + scale (on - off); a logit of -inf stays, since the difference of two has no value."""
    pushed = off + expand_like(scale, on) * (on - off)
    return torch.where(on.isfinite() & off.isfinite(), pushed, torch.minimum(on, off))
