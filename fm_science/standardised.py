"""Data in their own units: a flow behind an affine change of the coordinates of its flat parts.

Networks, noise and steps want numbers of mean zero and spread one; data come in kelvin, pascal and metres. So the flow
runs on y = (x - mean) / std, and what goes in and comes out is x. The density of x has the factor 1 / std of each
coordinate (the change of variables; Papamakarios, Nalisnick, Rezende, Mohamed & Lakshminarayanan 2021, eq. 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.flow import Flow
from fm_science.spaces import Space
from fm_science.state import Context, State, leaves, map_leaves, zip_leaves

Losses = Callable[..., Mapping[str, Tensor]]  #: an objective, or a function in its place


class Standardised(nn.Module):
    """A flow whose data are in units of their own. Parts that are not flat stay as they are.

    Args:
        flow: of the standardised data.
        mean, std: one tensor for each leaf of the space, in its order, that broadcasts against a point of one site
            ``(*event)``; saved with the weights. :meth:`fitted` finds them from data. Centred clouds and vectors that
            turn with rotations take the mean 0 and one number as std.

    Raises ValueError for a std that is not positive.
    """

    def __init__(self, flow: Flow, mean: list[Tensor], std: list[Tensor]) -> None:
        super().__init__()
        if not all(bool((s > 0).all()) for s in std):
            raise ValueError(f"Standardised(std={std}): a standard deviation is positive.")
        self.flow = flow
        for k, (m, s) in enumerate(zip(mean, std, strict=True)):
            self.register_buffer(f"mean_{k}", torch.as_tensor(m))
            self.register_buffer(f"std_{k}", torch.as_tensor(s))

    @classmethod
    def fitted(cls, flow: Flow, x: State, context: Context) -> Standardised:
        """With the mean and the standard deviation of each coordinate over the real sites of a batch of data. A
        coordinate that never changes keeps its scale."""
        moments = [_moments(space, v) for space, v in zip_leaves(flow.path.space.bind(context), x)]
        return cls(flow, [m for m, _ in moments], [s for _, s in moments])

    def encode(self, x: State, context: Context) -> State:
        """Data ``x`` as the flow knows them; padded and frozen sites are held."""
        space = self.flow.path.space.bind(self.encoded(context))
        return space.project(self._each(x, lambda v, m, s: (v - m) / s))

    def decode(self, y: State, context: Context) -> State:
        """What the flow made, in the units of the data."""
        return self.flow.path.space.bind(context).project(self._each(y, lambda v, m, s: m + s * v))

    def encoded(self, context: Context) -> Context:
        """The context as the flow knows it: the values of frozen sites are standardised."""
        if context.known is None:
            return context
        return replace(context, known=self._each(context.known, lambda v, m, s: (v - m) / s))

    def log_det(self, context: Context) -> Tensor:
        """The sum of log std over the free coordinates of each sample, ``(B,)``: the log-determinant of ``decode``."""
        spaces = [space for (space,) in zip_leaves(self.flow.path.space.bind(context))]
        scales = [self._buffer("std", k).double().expand(space.leaf.event) for k, space in enumerate(spaces)]
        # every free site has all coordinates of its event, so a mean counts as often as there are dimensions
        return torch.stack([space.dimension * s.log().mean() for space, s in zip(spaces, scales, strict=True)]).sum(0)

    def losses(self, objective: Losses, x1: State, context: Context, x0: State | None = None) -> Mapping[str, Tensor]:
        """The named losses ``(B,)`` of an objective on data ``x1``, and with noise ``x0`` that came along, both in the
        units of the data."""
        noise = None if x0 is None else self.encode(x0, context)
        return objective(self.flow, self.encode(x1, context), self.encoded(context), noise)

    def sample(self, context: Context, **options: Any) -> State:
        """New data in their own units; ``options`` as of :meth:`fm_science.Flow.sample`."""
        return self.decode(self.flow.sample(self.encoded(context), **options), context)

    def log_prob(self, x: State, context: Context, **options: Any) -> Tensor:
        """Log-density ``(B,)`` in nats, with respect to the volume of the data's own units; ``options`` as of
        :meth:`fm_science.Flow.log_prob`."""
        found = self.flow.log_prob(self.encode(x, context), self.encoded(context), **options)
        return found - self.log_det(context).to(found)

    def sample_with_log_prob(self, context: Context, **options: Any) -> tuple[State, Tensor]:
        """New data and their log-density; ``options`` as of :meth:`fm_science.Flow.sample_with_log_prob`."""
        y, logp = self.flow.sample_with_log_prob(self.encoded(context), **options)
        return self.decode(y, context), logp - self.log_det(context).to(logp)

    def _buffer(self, name: str, k: int) -> Tensor:
        return self.get_buffer(f"{name}_{k}")

    def _each(self, x: State, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> State:
        count = iter(range(len(leaves(x))))

        def changed(space: Space, v: Tensor) -> Tensor:
            k = next(count)
            if not space.linear:
                return v
            return change(v, self._buffer("mean", k).to(v), self._buffer("std", k).to(v))

        return map_leaves(changed, self.flow.path.space, x)


def _moments(space: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of a bound leaf's coordinates over real sites, ``(*event)``."""
    if not space.linear:
        return torch.zeros(()), torch.ones(())
    real = x[space.mask].double()
    if space.centred or space.leaf.directed:  # directions are alike: one scale, and no shift
        mean, std = torch.zeros((), dtype=torch.float64), real.square().mean().sqrt()
    else:
        mean, std = real.mean(0), real.std(0, correction=0)
    return mean.to(x), torch.where(std > 0, std, 1.0).to(x)
