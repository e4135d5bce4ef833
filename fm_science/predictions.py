"""Predictions: what the raw output of a network means.

A network may predict the velocity, the endpoint (the data point at which the path through this point ends), the noise,
the score, or for classes the probabilities of the endpoint. Each prediction can be converted to the others along a
given path, and defines its loss; the path itself does not depend on it. Where a conversion does not exist an error is
raised; nothing is clamped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Space, total
from fm_science.state import State, scale

if TYPE_CHECKING:
    from fm_science.paths.affine import AffinePath
    from fm_science.paths.bridge import Bridge


class Prediction(ABC):
    """The meaning of a network's raw output on one leaf space. ``path`` is a bound bridge, ``t`` is ``(B,)``."""

    singular: bool = True  #: whether the velocity of this prediction is undefined where no noise is left
    defined_at_zero_signal: bool = True  #: whether it is defined where there is no signal yet (alpha = 0)
    schedule_free: bool = False  #: whether its meaning is the same on every schedule
    is_endpoint: bool = False  #: whether the raw output is the endpoint itself, or logits of it
    smooth: bool = True  #: whether it is for smooth spaces; else for classes

    def shape(self, space: BoundLeaf) -> tuple[int, ...] | None:
        """The shape of the raw output on a bound leaf space; ``None``: any."""
        return None

    def check(self, space: Space) -> None:
        """Raises TypeError or ValueError if this prediction is not defined on ``space``."""
        if self.smooth != space.smooth:
            right = "Velocity() or Endpoint()" if space.smooth else "Posterior()"
            raise TypeError(f"{self!r} means nothing on {space!r}: use predicts={right}.")

    @abstractmethod
    def endpoint(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        """The predicted data point."""

    @abstractmethod
    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        """What a training step minimises, ``(B,)``, averaged over the degrees of freedom of each sample."""

    def velocity(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        """The predicted velocity at ``x``."""
        return path.endpoint_to_velocity(x, self.endpoint(path, raw, x, t), t)

    def noise(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        """The predicted noise; needs a linear space and sigma > 0."""
        return path.endpoint_to_noise(x, self.endpoint(path, raw, x, t), t)

    def endpoint_gain(self, path: AffinePath, t: Tensor) -> Tensor:
        """The derivative of the predicted endpoint with respect to the raw output, ``(B,)``."""
        raise TypeError(f"{self!r}: its endpoint is no affine function of the raw output.")

    def step(self, path: Bridge, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        """From time t to s with the prediction fixed."""
        return path.step_to_endpoint(x, self.endpoint(path, raw, x, t), t, s)


def mean_square(space: Space, x: State, residual: State) -> Tensor:
    """The squared Riemannian length of a tangent per degree of freedom, ``(B,)``; zero if there are no degrees of
    freedom."""
    measure = space.measure
    return space.inner(x, residual, residual) / torch.where(measure > 0, measure, 1)


@dataclass(frozen=True)
class Velocity(Prediction):
    """The network outputs the velocity; its shape is the tangent's."""

    singular = False

    def shape(self, space: BoundLeaf) -> tuple[int, ...]:
        return (*space.mask.shape, *space.leaf.tangent_event)

    def velocity(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.space.tangent(x, raw)

    def endpoint(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.velocity_to_endpoint(x, path.space.tangent(x, raw), t)

    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        return mean_square(path.space, x, path.space.tangent(x, raw) - path.target_velocity(x0, x1, x, t))

    def endpoint_gain(self, path: AffinePath, t: Tensor) -> Tensor:
        return path.velocity_gain(t)

    def step(self, path: Bridge, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return path.step_along_velocity(x, path.space.tangent(x, raw), t, s)


@dataclass(frozen=True)
class Endpoint(Prediction):
    """The network outputs the data point, as an ambient point that is projected onto the space; its shape is the
    state's.

    The loss is the squared difference of the logarithms at x_t, whose optimum is exp_x E[log_x x1].
    """

    schedule_free = True
    is_endpoint = True

    def shape(self, space: BoundLeaf) -> tuple[int, ...]:
        return tuple(space.shape)

    def endpoint(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.space.project(raw)

    def endpoint_gain(self, path: AffinePath, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        space = path.space
        return mean_square(space, x, space.log(x, space.project(raw)) - space.log(x, x1))


@dataclass(frozen=True)
class Noise(Prediction):
    """The network outputs the noise x0 (Ho et al. 2020). Defined on linear spaces, and only where alpha > 0: where
    there is no signal the noise does not depend on the data point."""

    singular = False
    defined_at_zero_signal = False

    def shape(self, space: BoundLeaf) -> tuple[int, ...]:
        return (*space.mask.shape, *space.leaf.tangent_event)

    def noise(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.space.tangent(x, raw)

    def endpoint(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.noise_to_endpoint(x, self.noise(path, raw, x, t), t)

    def velocity(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return path.noise_to_velocity(x, self.noise(path, raw, x, t), t)

    def endpoint_gain(self, path: AffinePath, t: Tensor) -> Tensor:
        alpha, sigma = path.weights(t)
        return -sigma / alpha

    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        return mean_square(path.space, x, path.space.tangent(x, raw) - path.space.tangent(x, x0))

    def step(self, path: Bridge, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return path.step_from_noise(x, self.noise(path, raw, x, t), t, s)


@dataclass(frozen=True)
class Score(Noise):
    """The network outputs the score, the gradient of the log-density of x_t (Song et al. 2021): -E[x0 | x_t] divided by
    sigma std², for a Normal prior of that std that is independent of the data. The loss is denoising score matching in
    units of the noise, the mean of |sigma std s + x0 / std|² (Vincent 2011)."""

    def noise(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return scale(-path.sigma(t) * path.std**2, path.space.tangent(x, raw))

    def endpoint_gain(self, path: AffinePath, t: Tensor) -> Tensor:
        return -path.sigma(t) * path.std**2 * super().endpoint_gain(path, t)

    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        residual = self.noise(path, raw, x, t) - path.space.tangent(x, x0)
        return mean_square(path.space, x, residual) / path.std**2


@dataclass(frozen=True)
class Posterior(Prediction):
    """The network outputs logits of the endpoint's class, ``(B, *sites, classes)``; logits on edges are symmetrised.

    A class that the prior never draws cannot come from noise: a site with such a class is at its endpoint, and its
    posterior is the class itself (carry-over; Sahoo et al. 2024). The loss is the cross-entropy averaged over the other
    sites, each pair of an edge state counted once.

    Args:
        mask: number of the mask class, if there is one: data never have it, so its logit is -inf; the noise is all
            mask, unless the prior is different.
    """

    mask: int | None = None
    schedule_free = True
    is_endpoint = True
    smooth = False

    def shape(self, space: BoundLeaf) -> tuple[int, ...]:
        return tuple(space.shape)

    def check(self, space: Space) -> None:
        super().check(space)
        classes = space.leaf.event[-1]
        if self.mask is not None and not 0 <= self.mask < classes:
            raise ValueError(f"{self!r}: the mask class is one of 0 to {classes - 1}, the classes of {space!r}.")

    def logits(self, path: Bridge, raw: Tensor) -> Tensor:
        """Log-probabilities of the endpoint's class, before carry-over."""
        raw = path.space.symmetrise(raw)
        if self.mask is not None:
            forbidden = torch.arange(raw.shape[-1], device=raw.device) == self.mask
            raw = torch.where(forbidden, -torch.inf, raw)
        return raw.log_softmax(-1)

    def is_fixed(self, path: Bridge, x: Tensor) -> Tensor:
        """Which sites have a class that cannot come from noise, ``(B, *sites)`` bool."""
        possible = path.class_probabilities
        if possible is None and self.mask is not None:
            possible = torch.nn.functional.one_hot(torch.tensor(self.mask), x.shape[-1])
        if possible is None:
            return torch.zeros_like(x[..., 0], dtype=torch.bool)
        return (x * (possible.to(x) > 0)).sum(-1) == 0

    def endpoint(self, path: Bridge, raw: State, x: State, t: Tensor) -> State:
        return torch.where(self.is_fixed(path, x)[..., None], x, self.logits(path, raw).exp())

    def loss(self, path: Bridge, raw: State, x0: State, x1: State, x: State, t: Tensor) -> Tensor:
        logits = self.logits(path, raw)
        # where() keeps 0 * -inf out of the sum, backwards too
        entropy = -torch.where(x1 > 0, logits, 0.0).sum(-1)
        counted = path.space.counted_mask & ~self.is_fixed(path, x)
        return total(torch.where(counted, entropy, 0.0)) / total(counted).clamp_min(1)
