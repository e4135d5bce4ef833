"""A bound on the probability of classes, which have no density to integrate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_science.priors import cast
from fm_science.seeds import seeded
from fm_science.state import Context, State, batch_size, leaves

LAST = 1 - 1e-6  #: at t = 1 the rate of jumps is infinite


def elbo_rate(path: Any, raw: Tensor, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The rate at which the bound of :func:`elbo` pays at (x, t) for not knowing ``x1``, in nats a unit of time,
    ``(B,)``: k'/(1 - k) sum_i (1[x = x1] - p(x) - 1[x != x1] log p(x1)), p the predicted probabilities.

    Raises TypeError on smooth spaces.
    """
    if path.space.smooth:
        raise TypeError(f"{path!r} has a density; the bound is for classes. Use Flow.log_prob.")
    p = path.endpoint(raw, x, t)
    same = (x * x1).sum(-1)
    surprise = torch.where(
        same > 0, 0.0, -torch.where(x1 > 0, p, 1.0).clamp_min(torch.finfo(p.dtype).tiny).log().sum(-1)
    )
    cost = torch.where(path.space.counted_mask, same - (p * x).sum(-1) + surprise, 0.0)
    return path.relative_rate(t) * cost.reshape(len(cost), -1).sum(1)


def elbo(flow: Any, x1: State, context: Context, draws: int = 64, seed: int | None = None) -> Tensor:
    """An estimate of a lower bound on the log-probability of classes in nats, ``(B,)`` (Campbell et al. 2022; Shi et
    al. 2024; Gat et al. 2024), for noise that is independent of the data. Equal to the log-probability in the mean for
    masked noise and the true posterior.

    Args:
        flow: a flow on classes, or on a product of classes.
        x1: data.
        context: their context.
        draws: times, one in each of as many equal intervals; all data share them.
        seed: of times and noise.
    """
    parts = getattr(flow.path, "parts", {"": flow.path})
    with seeded(seed, context.mask.device):
        path = flow.path.bind(context, flow.prior)
        like = leaves(x1)[0]
        total = like.new_zeros(batch_size(x1))
        for k in range(draws):
            t = ((k + torch.rand(len(total))).to(like) / draws).clamp_max(LAST)
            x0 = cast(path.space, flow.prior.sample(path.space, context), like)
            x = path.sample(x0, x1, t)
            raw = flow.network(x, t, context)
            for name in parts:
                part, values = (path.parts[name], [v[name] for v in (raw, x, x1)]) if name else (path, [raw, x, x1])
                total = total - elbo_rate(part, values[0], values[1], values[2], t) / draws
    return total
