"""A network on another clock: the exact change of schedule of Gaussian paths after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.networks.base import NetworkFunction, WrappedNetwork
from fm_science.predictions import Endpoint, Noise, Score, Velocity
from fm_science.schedules import Schedule
from fm_science.state import Context, expand_like

if TYPE_CHECKING:
    from fm_science.paths import Bridge


class Rescheduled(WrappedNetwork):
    """A network trained on x = alpha x1 + sigma x0 with one schedule, as it would be on another.

    Both paths pass through the same points up to a factor: at the time where the old schedule has the same ratio of
    signal to noise, with the point rescaled to the old noise, the network sees what it knows (Karras et al. 2022;
    Pokle et al. 2024). The law of the samples stays the same for any coupling; what changes is where the steps go.

    Args:
        network: the trained network, on a single linear space.
        old, new: schedules, or the Gaussian paths that hold them.
        velocity: whether the network predicts the velocity (else the endpoint or the noise, which need no change);
            read from ``old`` where that is a path.
    """

    two_times = False  # a jump between two times has no counterpart on another clock

    def __init__(
        self, network: NetworkFunction, old: Schedule | Bridge, new: Schedule | Bridge, velocity: bool = True
    ) -> None:  # fmt: skip
        super().__init__(network)
        predicts = (Velocity() if velocity else Endpoint()) if isinstance(old, Schedule) else old.predicts
        if not isinstance(predicts, (Velocity, Endpoint, Noise)) or isinstance(predicts, Score):
            raise TypeError(f"Rescheduled cannot change the schedule of a network that predicts {predicts!r}.")
        self.velocity = isinstance(predicts, Velocity)
        self.old: Schedule = old if isinstance(old, Schedule) else old.schedule
        self.new: Schedule = new if isinstance(new, Schedule) else new.schedule

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """What the network says at ``x`` ``(B, ...)`` and the new time ``t`` ``(B,)``."""
        alpha, sigma = self.new(t)
        tau = self.old.time(alpha, sigma)
        before = self.old(tau)
        # either ratio is the factor; the larger weight has the smaller relative error
        more = alpha > sigma
        factor = torch.where(more, before[0], before[1]) / torch.where(more, alpha, sigma)
        y = expand_like(factor, x) * x
        raw = self.network(y, tau, context)
        return self._velocity(raw, y, tau, t) if self.velocity else raw

    def _velocity(self, u: Tensor, y: Tensor, tau: Tensor, t: Tensor) -> Tensor:
        alpha, sigma, dalpha, dsigma = (expand_like(value, y) for value in self.old.rates(tau))
        _, _, signal, noise = (expand_like(value, y) for value in self.new.rates(t))
        gain = dalpha * sigma - alpha * dsigma
        return signal * (sigma * u - dsigma * y) / gain + noise * (dalpha * y - alpha * u) / gain
