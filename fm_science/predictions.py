"""Predictions: what the raw output of a network means.

A network may tell the velocity, the endpoint (the datum that this point is on its way to), or the noise. Each meaning
knows how to become the others along a given path, and which loss teaches it; the path itself never asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fm_science.state import scale


class Prediction(ABC):
    """The meaning of a network's raw output on one leaf space. ``path`` is a bound bridge, ``t`` is ``(B,)``."""

    singular: bool = True  #: whether the velocity of this prediction is undefined at t = 1

    @abstractmethod
    def endpoint(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        """The predicted datum."""

    @abstractmethod
    def loss(self, path: Any, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        """What a training step minimises, ``(B,)``, averaged over the degrees of freedom of each sample."""

    def velocity(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        """The predicted velocity at ``x``."""
        return path.drift(x, self.endpoint(path, raw, x, t), t)

    def step(self, path: Any, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        """From time t to s with the prediction held fixed."""
        return path.advance(x, self.endpoint(path, raw, x, t), t, s)


def mean_square(space: Any, x: Any, residual: Any) -> Tensor:
    """The squared Riemannian length of a tangent a degree of freedom, ``(B,)``."""
    return space.inner(x, residual, residual) / space.dimension.clamp_min(1)


@dataclass(frozen=True)
class Velocity(Prediction):
    """The network outputs the velocity; its shape is the tangent's."""

    singular = False

    def velocity(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        return path.space.tangent(x, raw)

    def endpoint(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        return path.landing(x, path.space.tangent(x, raw), t)

    def loss(self, path: Any, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        return mean_square(path.space, x, path.space.tangent(x, raw) - path.drift(x, x1, t))

    def step(self, path: Any, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        # landing first could leave the injectivity radius of a curved space
        return path.space.exp(x, scale(s - t, path.space.tangent(x, raw)))


@dataclass(frozen=True)
class Endpoint(Prediction):
    """The network outputs the datum, as an ambient point that is projected onto the space; its shape is the state's.

    The loss is the squared difference of the logarithms at x_t, whose optimum is exp_x E[log_x x1].
    """

    def endpoint(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        return path.space.project(raw)

    def loss(self, path: Any, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        space = path.space
        return mean_square(space, x, space.log(x, space.project(raw)) - space.log(x, x1))


@dataclass(frozen=True)
class Noise(Prediction):
    """The network outputs the noise x0 (Ho et al. 2020). Defined on linear spaces, where the path carries noise."""

    def endpoint(self, path: Any, raw: Any, x: Any, t: Tensor) -> Any:
        return path.denoised(x, path.space.tangent(x, raw), t)

    def loss(self, path: Any, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        return mean_square(path.space, x, path.space.tangent(x, raw) - path.space.tangent(x, x0))
