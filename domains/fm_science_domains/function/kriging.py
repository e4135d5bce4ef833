"""Regression from observations with the distribution of the noise, before anything is learned.

Noise is a Gaussian process with the covariance of the data, so its posterior given observations, which is in closed
form (Matheron's rule; Rasmussen & Williams 2006, section 2.2), is a first estimate of the function. A network for
completion starts from samples of that posterior (Kollovieh et al. 2025) and is given its mean: it has to learn only how
data differ from a Gaussian process. Any distribution of noise that depends on the observations only is valid, since the
flow is learned for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.priors import Prior
from fm_science.spaces.base import Space
from fm_science.state import Context, State

from .conditional import GUESS, observed


@dataclass(frozen=True)
class Regression:
    """Regression from the observed sensors of a context.

    Args:
        law: a Gaussian process with a ``kernel``, and with ``functions`` if some functions have their own weights.
        noise: standard deviation of the observations, inside units.
    """

    law: Any
    noise: float

    def mean(self, context: Context) -> Tensor | None:
        """The posterior mean ``(B, N, C)``; ``None`` if nothing was observed in the whole batch."""
        seen = observed(context)
        return None if seen is None else self.moved(torch.zeros_like(seen[1]), context, 0.0)

    def moved(self, x: Tensor, context: Context, noise: float) -> Tensor:
        """A sample ``x`` ``(B, N, C)`` of the prior turned into one of the posterior: the gain is applied to the
        observations, with new noise, minus the values of the sample there."""
        seen = observed(context)
        most = 0 if seen is None else int(seen[0].sum(1).max())
        if seen is None or not most:
            return x
        mask, known_values = seen
        real, at = mask.float().topk(most, dim=1)
        real, channels = real > 0.5, x.shape[2]
        pick = at[..., None].expand(-1, -1, channels)
        gap = known_values.to(x).gather(1, pick) - x.gather(1, pick)
        gap = (gap + noise * torch.randn_like(gap)) * real[..., None]
        coords = context.cond["coords"].double()
        where = coords.gather(1, at[..., None].expand(-1, -1, coords.shape[2]))
        live = real[..., None].expand_as(gap).flatten(1)
        inner = torch.where(live[:, :, None] & live[:, None], self.between(where, where, channels), 0.0)
        inner = inner + torch.diag_embed(torch.where(live, max(self.noise, 1e-3) ** 2, 1.0).to(inner))
        weight = torch.linalg.solve(inner, gap.flatten(1)[..., None].to(inner)) * live[..., None]
        alike = bool((coords == coords[:1]).all())
        cross = self.between(coords[:1] if alike else coords, where, channels)
        return x + (cross @ weight).view_as(x).to(x)

    def between(self, x: Tensor, y: Tensor, channels: int) -> Tensor:
        """The covariance of values at positions ``x`` ``(B or 1, N, d)`` and ``y`` ``(B, M, d)``: ``(B, N C, M C)``."""
        kernel = self.law.kernel
        if x.shape[2] > 1 and kernel.period == 2.0:  # twice the box, used only for fast transforms
            kernel = replace(kernel, period=None)
        one = kernel.covariance(x[:, :, None] - y[:, None])
        both = torch.einsum("bnm,cd->bncmd", one, torch.eye(channels).to(one))
        functions = getattr(self.law, "functions", None)
        if functions is not None:
            both = both + torch.einsum("bnkc,bmkd->bncmd", functions(x).expand(len(y), -1, -1, -1), functions(y))
        return both.flatten(3).flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Conditioned(Prior):
    """A Gaussian process, and its posterior for samples with observations. Densities are those of samples without
    observations."""

    regression: Regression

    def sample(self, space: Space, context: Context) -> State:
        x: State = self.regression.law.sample(space, context)
        return space.bind(context).project(self.regression.moved(x, context, self.regression.noise))

    def log_prob(self, space: Space, x: State) -> Tensor:
        return self.regression.law.log_prob(space, x)


class ConditionedNetwork(nn.Module):
    """A network that gets the posterior mean of the noise, as the condition ``guess``, if there are observations."""

    def __init__(self, network: nn.Module, regression: Regression) -> None:
        super().__init__()
        self.network, self.regression = network, regression
        self.reads: Any = network.reads
        self._last: tuple[Tensor, Tensor] | None = None  # the observations, and the estimate from them

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """As the network."""
        seen = observed(context)
        if seen is None:
            return self.network(x, t, context)
        if self._last is None or self._last[0] is not seen[1]:
            guess = self.regression.mean(context)
            assert guess is not None
            self._last = seen[1], guess
        cond = {**context.cond, GUESS: self._last[1].to(x)}
        return self.network(x, t, replace(context, cond=cond))
