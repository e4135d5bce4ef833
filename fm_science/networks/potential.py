"""Potentials: networks that know a scalar, whose gradient is the velocity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fm_science.networks.base import Network
from fm_science.spaces.base import Space
from fm_science.state import Context, State


class Potential(Network):
    """The velocity field grad s of a scalar function s(x, t), in the metric of the space: a network for paths that
    predict Velocity(). It costs one backward pass an evaluation, and is what ActionMatching trains.

    Args:
        network: s, ``(x, t, context) -> (B,)``; it must not read padded sites. Where it is trained it needs second
            derivatives: no fused attention, and smooth activations (SiLU, not ReLU).
        space: not bound; smooth.
    """

    def __init__(self, network: Callable[..., Tensor], space: Space) -> None:
        super().__init__()
        if not space.smooth:
            raise TypeError(f"{space!r} has no gradients: a potential needs a smooth space.")
        self.network, self.space = network, space

    def potential(self, x: State, t: Tensor, context: Context) -> Tensor:
        """s ``(B,)``. Raises ValueError when the network gives anything else than one number a sample."""
        s = self.network(x, t, context)
        if s.shape != t.shape:
            raise ValueError(
                f"a potential is one number a sample, {tuple(t.shape)}; the network gave {tuple(s.shape)}."
            )
        return s

    def rates(self, x: State, t: Tensor, context: Context) -> tuple[State, Tensor]:
        """The velocity grad s, and ds/dt ``(B,)``."""
        total = lambda y, r: self.potential(y, r, context).sum()  # noqa: E731
        slope, rate = torch.func.grad(total, argnums=(0, 1))(x, t)
        return self._velocity(x, slope, context), rate

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        slope = torch.func.grad(lambda y: self.potential(y, t, context).sum())(x)
        return self._velocity(x, slope, context)

    def _velocity(self, x: State, slope: State, context: Context) -> State:
        """The gradient in the metric of the space, in the precision of ``x`` also where the network runs in half."""
        with torch.autocast(context.mask.device.type, enabled=False):
            return self.space.bind(context).gradient(x, slope)
