"""What a network knows of each site before it looks around: the time, and the conditions of the batch.

Floats may be unknown (NaN) and labels too (-1), as conditions are that guidance drops; both have features of their own.
Frozen sites have arrived already, so their clock stands at one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.networks.time import TimeEmbedding
from fm_science.state import Context

TIMES = 32  # features of the time, and of each label


class NodeEmbedding(nn.Module):
    """Time, floats and labels as features of each site.

    Args:
        width: features of a site.
        conditions: names of floats ``(B,)`` or ``(B, N)``; NaN: not known.
        classes: how many values each label ``(B,)`` or ``(B, N)`` has, by name; -1: not known.
        two_times: whether the time to land at, ``context.t_end``, is told too, to flow maps.
    """

    def __init__(
        self, width: int, conditions: Sequence[str] = (), classes: Mapping[str, int] | None = None,
        two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conditions, self.classes = tuple(conditions), dict(classes or {})
        self.time = TimeEmbedding(TIMES, highest=100.0, two_times=two_times)
        self.labels = nn.ModuleDict({k: nn.Embedding(count + 1, TIMES) for k, count in self.classes.items()})
        seen = self.time.features + TIMES * len(self.classes) + 2 * len(self.conditions)
        self.mix = nn.Sequential(nn.Linear(seen, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor, context: Context) -> Tensor:
        """Times ``(B,)`` to features ``(B, N, width)``.

        Raises:
            ValueError: when the batch carries none of a condition that the network was built for.
        """
        shape = context.mask.shape
        seen = [self.time(*(_clock(s, context) for s in (t, context.t_end))).expand(*shape, -1)]
        for name in self.conditions:
            value = _spread(context, name, shape)[..., None].to(t)
            known = value.isfinite()
            seen += [torch.where(known, value, 0.0), known.to(t)]
        seen += [table(_spread(context, name, shape).long() + 1) for name, table in self.labels.items()]
        return self.mix(torch.cat(seen, -1))


def _clock(t: Tensor | None, context: Context) -> Any:
    """Times ``(B,)`` as each site reads them, ``(B, 1)`` or ``(B, N)``."""
    if t is None or context.free is None:
        return t if t is None else t[:, None]
    return torch.where(context.free, t[:, None], 1.0)


def _spread(context: Context, name: str, shape: torch.Size) -> Tensor:
    """A condition on each site, ``(B, N)``."""
    if name not in context.cond:
        raise ValueError(f"the network reads the condition {name!r}; the batch has {sorted(context.cond) or 'none'}.")
    value = context.cond[name]
    return value if value.ndim > 1 else value[:, None].expand(shape)


def remove_mean(u: Tensor, context: Context) -> Tensor:
    """A velocity ``(B, N, D)`` that is zero at padding and has no mean over real sites. Where sites are frozen they fix
    the place of the cloud, and the mean stays."""
    real = context.mask[..., None].to(u.dtype)
    u = u * real
    if context.free is not None:
        return u
    return u - real * u.sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)
