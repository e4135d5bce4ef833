"""A bound on the probability of classes, which have no density to integrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.contract import admit
from fm_science.priors import cast
from fm_science.seeds import seeded
from fm_science.spaces.base import total
from fm_science.state import Context, State, batch_size, leaves, zip_leaves

if TYPE_CHECKING:
    from fm_science.flow import Flow
    from fm_science.paths import Bridge, Path

FIRST = 1e-3  #: the smallest v: at t = 1 - v² = 1 the rate of jumps is infinite


@dataclass(frozen=True)
class Estimate:
    """An estimate for each sample.

    Attributes:
        value: ``(B,)``.
        error: its standard error, ``(B,)``.
    """

    value: Tensor
    error: Tensor


def elbo_rate(path: Bridge, raw: Tensor, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The rate of cost in the bound of :func:`elbo` at (x, t) for not knowing ``x1``, in nats per unit of time,
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
    return path.relative_rate(t) * total(cost)


def elbo(flow: Flow, x1: State, context: Context, draws: int = 64, seed: int | None = None) -> Tensor:
    """An estimate of a lower bound on the log-probability of classes in nats, ``(B,)`` (Campbell et al. 2022; Shi et
    al. 2024; Gat et al. 2024), for noise that is independent of the data. Its expectation equals the log-probability
    for masked noise and the true posterior. :func:`elbo_estimate` gives its standard error too.

    Args:
        flow: a flow on classes, or on a product of classes.
        x1: data.
        context: their context.
        draws: evaluations of the network; the error falls like one over its square root, or faster.
        seed: of times and noise.
    """
    return -_costs(flow, x1, context, draws, seed).mean(0)


def elbo_estimate(flow: Flow, x1: State, context: Context, draws: int = 64, seed: int | None = None) -> Estimate:
    """:func:`elbo` with its standard error.

    The rate of jumps is infinite at t = 1, where a site differs from the data point with a probability of order 1 - t.
    So the cost at a uniform time has infinite variance. With t = 1 - v² and uniform v, times near 1 are more frequent
    and have less weight, which minimises the variance there; one v is in each of ``draws`` equal intervals. The
    standard error is that of the differences between neighbouring intervals, slightly too large where the cost changes
    along the path.

    Args:
        flow: a flow on classes, or on a product of classes.
        x1: data.
        context: their context.
        draws: evaluations of the network, at least two.
        seed: of times and noise.

    Raises:
        ValueError: for fewer than two draws.
        TypeError: on smooth spaces.
    """
    if draws < 2:
        raise ValueError(f"draws={draws}: an estimate with its error takes at least two.")
    costs = _costs(flow, x1, context, draws, seed)
    variance = costs.diff(dim=0).square().mean(0) / (2 * draws)
    return Estimate(-costs.mean(0), variance.sqrt())


def _costs(flow: Flow, x1: State, context: Context, draws: int, seed: int | None) -> Tensor:
    """Costs whose mean is the bound, ``(draws, B)``, one time in each interval of v."""
    x1 = admit(flow, x1, context)
    with seeded(seed, context.mask.device):
        path = flow.path.bind(context, flow.prior)
        costs = []
        for k in range(draws):
            v = ((k + torch.rand(batch_size(x1))).to(leaves(x1)[0]) / draws).clamp_min(FIRST)
            costs.append(2 * v * _cost(flow, path, x1, context, 1 - v * v))
    return torch.stack(costs)


def _cost(flow: Flow, path: Path, x1: State, context: Context, t: Tensor) -> Tensor:
    """The rate of cost in the bound at time ``t``, from one sample of noise, ``(B,)``."""
    x0 = cast(path.space, flow.prior.sample(path.space, context), leaves(x1)[0])
    x = path.sample(x0, x1, t)
    raw = flow(x, t, context)
    return torch.stack([elbo_rate(p, r, y, y1, t) for p, r, y, y1 in zip_leaves(path, raw, x, x1)]).sum(0)
