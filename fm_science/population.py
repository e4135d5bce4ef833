"""Weighted samples: how many they are worth, how they are drawn anew by their weight, and what they say on average.

For each sample of a batch there are K particles with log-weights ``(B, K)``, whose exponentials add up to one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fm_science.seeds import seeded
from fm_science.state import State, leaves, take


@dataclass(frozen=True)
class Population:
    """Particles of each sample of a batch, with their weights.

    Attributes:
        particles: a state of B K rows, those of a sample one after the other.
        log_weights: ``(B, K)``, normalised.
        log_evidence: the logarithm of an unbiased estimate of E[L(x1)] under the flow, ``(B,)``, in nats.
        effective_sizes: effective sample sizes after each step, before particles were drawn anew, ``(T, B)``.
    """

    particles: State = field(repr=False)
    log_weights: Tensor = field(repr=False)
    log_evidence: Tensor
    effective_sizes: Tensor = field(repr=False)

    @property
    def weights(self) -> Tensor:
        """The weights ``(B, K)``, which add up to one."""
        return self.log_weights.exp()

    @property
    def effective_size(self) -> Tensor:
        """How many independent particles the weights are worth at the end, ``(B,)``."""
        return effective_size(self.log_weights)

    def draw(self, seed: int | None = None) -> State:
        """One particle of each sample, with the probability of its weight: a state of B rows."""
        with seeded(seed, self.log_weights.device):
            chosen = torch.multinomial(self.weights, 1).squeeze(1)
        return take(self.particles, self._first + chosen)

    def resampled(self, seed: int | None = None) -> State:
        """As many particles of equal weight, some of them several times: a state of B K rows."""
        with seeded(seed, self.log_weights.device):
            index = systematic(self.log_weights)
        return take(self.particles, (self._first[:, None] + index).flatten())

    def mean(self, function: Callable[[State], Tensor] | None = None) -> Tensor:
        """The weighted mean of ``function(particles)`` ``(B K, ...)``, of the points themselves by default: ``(B,
        ...)``."""
        values = leaves(self.particles)[0] if function is None else function(self.particles)
        each = values.reshape(*self.log_weights.shape, *values.shape[1:])
        return torch.einsum("bk,bk...->b...", self.weights.to(each), each)

    @property
    def _first(self) -> Tensor:
        size, count = self.log_weights.shape
        return count * torch.arange(size, device=self.log_weights.device)


def normalised(log_weights: Tensor) -> Tensor:
    """Log-weights ``(B, K)`` whose exponentials add up to one; even where none of them is finite."""
    total = torch.logsumexp(log_weights, 1, keepdim=True)
    even = torch.zeros_like(log_weights).log_softmax(1)
    return torch.where(total.isfinite(), log_weights - total, even)


def effective_size(log_weights: Tensor) -> Tensor:
    """1 / sum w² ``(B,)``, for weights that add up to one: K where they are even, 1 where one has all (Kong, Liu & Wong
    1994)."""
    return torch.exp(-torch.logsumexp(2 * log_weights, 1))


def systematic(log_weights: Tensor) -> Tensor:
    """Numbers of particles ``(B, K)``, each as often as its share of K, rounded up or down at random: K equal steps
    from one random start (Carpenter, Clifford & Fearnhead 1999). Randomness comes from torch's generator."""
    size, count = log_weights.shape
    start = torch.rand(size, 1, dtype=log_weights.dtype, device=log_weights.device)
    places = (start + torch.arange(count, device=log_weights.device)) / count
    ends = log_weights.exp().cumsum(1)
    ends = ends / ends[:, -1:]
    return torch.searchsorted(ends, places.contiguous(), right=True).clamp_max(count - 1)
