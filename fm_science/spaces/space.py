"""The questions every space answers.

Where does a tangent lead (``exp``), which tangent leads to a point (``log``), what is the nearest point
(``project``), which part of a vector is tangent (``tangent``), and how long are tangents (``inner``). A space does not
depend on time, no data, no noise and no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fm_science.spaces.numerics import safe_sqrt
from fm_science.state import Context, State, scale


class Space(ABC):
    """A space of points. ``x`` and ``y`` are points, ``u`` and ``v`` tangents at ``x``; all are states."""

    parts: Mapping[str, Space] = MappingProxyType({})  #: the spaces of a product by name; empty for a leaf
    leaf: Any  #: the mathematics of one site, for a leaf and a bound leaf
    mask: Tensor  #: which sites are real ``(B, *sites)``, on a bound leaf
    free_mask: Tensor  #: which sites are real and free ``(B, *sites)``, on a bound leaf
    counted_mask: Tensor  #: which free sites are independent ``(B, *sites)``, on a bound leaf
    dimension: Any  #: degrees of freedom: a number for one site, ``(B,)`` on a bound space
    measure: Any  #: the squared length of a tangent of ones on a bound space, ``(B,)``
    smooth: bool = True  #: tangents form a vector space and flows are deterministic
    linear: bool = False  #: the space is a vector space: exp(x, u) = x + u
    geodesic: bool = True  #: any two points are joined by a known geodesic: ``log`` exists
    centred: bool = False  #: points have their mean over the sites at the origin
    isometric: bool = False  #: transport keeps inner products, and maps the velocity of a geodesic to its velocity

    @abstractmethod
    def exp(self, x: State, u: State) -> State:
        """The point reached from ``x`` along ``u`` in unit time."""

    @abstractmethod
    def log(self, x: State, y: State) -> State:
        """The shortest tangent at ``x`` that leads to ``y``."""

    @abstractmethod
    def project(self, x: State) -> State:
        """The nearest point of the space to an ambient ``x``."""

    @abstractmethod
    def tangent(self, x: State, u: State) -> State:
        """The tangential part at ``x`` of an ambient vector ``u``."""

    @abstractmethod
    def inner(self, x: State, u: State, v: State) -> Tensor:
        """The Riemannian inner product of two tangents at ``x``, ``(B,)``."""

    @abstractmethod
    def gradient(self, x: State, ambient_grad: State) -> State:
        """The gradient at ``x`` of a function whose ambient derivative there is ``slope``, of the shape of ``x``: the
        tangent whose inner product with every tangent is the rate of change along it."""

    @abstractmethod
    def bind(self, context: Context) -> Space:
        """A copy for a batch, with its real and frozen sites."""

    @abstractmethod
    def gaussian(self, x: State) -> State:
        """A standard normal tangent at ``x``."""

    @abstractmethod
    def pad_batch(self, points: Sequence[State]) -> State:
        """A batch from points of different sizes, padded with the origin."""

    @abstractmethod
    def num_sites(self, point: State) -> int:
        """The number of sites of an unbatched point."""

    def transport(self, x: State, y: State, u: State) -> State:
        """Transport the tangent ``u`` from ``x`` to ``y``."""
        return self.tangent(y, u)

    def geodesic_flow(self, x: State, u: State, s: Tensor) -> tuple[State, State]:
        """The point and the velocity, after a time ``s`` ``(B,)``, of the geodesic that starts at ``x`` with velocity
        ``u``, on isometric spaces."""
        y = self.exp(x, scale(s, u))
        return y, self.transport(x, y, u)

    def distance(self, x: State, y: State) -> Tensor:
        """The geodesic distance, ``(B,)``; its gradient is zero, not infinite, at ``x = y``."""
        u = self.log(x, y)
        return safe_sqrt(self.inner(x, u, u))

    def symmetrise(self, x: State) -> State:
        """Make an ambient value, such as logits, equal where two entries represent one site: both ends of an edge."""
        return x

    def rotate(self, x: State, rotation: Tensor) -> State:
        """Rotate a point by one rotation per sample, ``(B, 3, 3)``; points without a direction are unchanged."""
        return x

    def permute(self, x: State, order: Tensor) -> State:
        """Reorder the sites of each sample by ``order`` ``(B, N)``: site i of the result is site order[i]."""
        return x
