"""Spaces: where points live, and how they may move.

A space answers five questions: where do I get when I move along a tangent (``exp``), which tangent leads there
(``log``), what is the nearest point (``project``), which part of a vector is tangent (``tangent``), and how long are
tangents (``inner``). It knows no time, no data, no noise and no network.

A mathematician writes a :class:`Leaf`: the five methods for a single site, with any number of leading axes. Binding a
leaf to a batch gives :class:`Sites`, the product of its real sites: padded sites hold the origin and have no tangent,
frozen sites keep their known value. So padding is geometry, and no mask travels anywhere else. :class:`Product` puts
named spaces side by side; its points are dicts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.state import Context, State, pin


def root(square: Tensor) -> Tensor:
    """The square root with a zero gradient, instead of an infinite one, at zero."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


class Space(ABC):
    """Where points live. ``x`` and ``y`` are points, ``u`` and ``v`` tangents at ``x``; all are states."""

    smooth: bool = True  #: tangents form a vector space and motion is deterministic
    linear: bool = False  #: the space is a vector space: exp(x, u) = x + u

    @abstractmethod
    def exp(self, x: Any, u: Any) -> Any:
        """The point reached from ``x`` along ``u`` in unit time."""

    @abstractmethod
    def log(self, x: Any, y: Any) -> Any:
        """The shortest tangent at ``x`` that leads to ``y``."""

    @abstractmethod
    def project(self, x: Any) -> Any:
        """The nearest point of the space to an ambient ``x``."""

    @abstractmethod
    def tangent(self, x: Any, u: Any) -> Any:
        """The tangential part at ``x`` of an ambient vector ``u``."""

    @abstractmethod
    def inner(self, x: Any, u: Any, v: Any) -> Tensor:
        """The Riemannian inner product of two tangents at ``x``, ``(B,)``."""

    @abstractmethod
    def bind(self, context: Context) -> Space:
        """A frozen copy that knows the batch's real and frozen sites."""

    @abstractmethod
    def gaussian(self, x: Any) -> Any:
        """A standard normal tangent at ``x``."""

    @abstractmethod
    def stack(self, points: Sequence[Any]) -> Any:
        """A batch from points of different sizes, padded with the origin."""

    @abstractmethod
    def count(self, point: Any) -> int:
        """How many sites an unbatched point has."""

    def transport(self, x: Any, y: Any, u: Any) -> Any:
        """Carry the tangent ``u`` from ``x`` to ``y``."""
        return self.tangent(y, u)

    def distance(self, x: Any, y: Any) -> Tensor:
        """The geodesic distance, ``(B,)``; its gradient is zero, not infinite, at ``x = y``."""
        u = self.log(x, y)
        return root(self.inner(x, u, u))

    def rotate(self, x: Any, rotation: Tensor) -> Any:
        """Turn a point by one rotation a sample, ``(B, 3, 3)``; points that carry no direction stay."""
        return x

    def permute(self, x: Any, order: Tensor) -> Any:
        """Reorder the sites of each sample by ``order`` ``(B, N)``: site i of the result is site order[i]."""
        return x


class Leaf(Space):
    """A space whose points are one tensor ``(B, *sites, *event)``: the mathematics of one site.

    A subclass writes ``exp``, ``log``, ``project``, ``tangent`` (and ``inner`` where the metric is not the ambient
    dot product) for any number of leading axes, and names ``event`` and ``dimension``.
    """

    on: str = "nodes"  #: where the sites lie: "nodes", "edges" or "graph"
    event: tuple[int, ...] = ()  #: shape of a point on one site
    dimension: int = 0  #: intrinsic dimension of one site
    volume: float = math.inf  #: Riemannian volume of one site

    @property
    def tangent_event(self) -> tuple[int, ...]:
        """Shape of a tangent on one site."""
        return self.event

    def origin(self, like: Tensor) -> Tensor:
        """The point that padded sites hold, ``(*event)``, in the dtype and on the device of ``like``."""
        return like.new_zeros(self.event)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).flatten(1).sum(1)

    def gaussian(self, x: Tensor) -> Tensor:
        sites = x.shape[: x.ndim - len(self.event)]
        return self.tangent(x, torch.randn(sites + self.tangent_event, dtype=x.dtype, device=x.device))

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        """Independent uniform points ``(*sites, *event)``. Raises TypeError where the volume is infinite."""
        raise TypeError(
            f"{self!r} has no uniform law: its volume is infinite. Use Normal() on linear spaces, Wrapped(std) else."
        )

    def bind(self, context: Context) -> Sites:
        return Sites(self, context.sites(self.on), context.frozen(self.on), context.known)

    def stack(self, points: Sequence[Tensor]) -> Tensor:
        axes = {"graph": 0, "nodes": 1, "edges": 2}[self.on]
        size = max(p.shape[0] for p in points) if axes else 0
        out = self.origin(points[0]).expand(len(points), *[size] * axes, *self.event).clone()
        for row, p in zip(out, points, strict=True):
            row[tuple(slice(n) for n in p.shape[:axes])] = p
        return out

    def count(self, point: Tensor) -> int:
        return 1 if self.on == "graph" else point.shape[0]

    def permute(self, x: Tensor, order: Tensor) -> Tensor:
        if self.on == "graph":
            return x
        rows = torch.arange(len(order), device=x.device)[:, None]
        if self.on == "nodes":
            return x[rows, order]
        return x[rows[..., None], order[:, :, None], order[:, None, :]]


@dataclass(frozen=True, eq=False)
class Sites(Space):
    """A leaf bound to a batch: the product of its real sites, with frozen ones held.

    Attributes:
        leaf: the mathematics of one site.
        mask: ``(B, *sites)`` bool, real sites.
        frozen: ``(B, *sites)`` bool, sites that keep ``known``; ``None`` where all are free.
        known: ``(B, *sites, *event)``, read at frozen sites only.
    """

    leaf: Leaf
    mask: Tensor
    frozen: Tensor | None = None
    known: Tensor | None = None

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return self.leaf.smooth

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.leaf.linear

    @property
    def live(self) -> Tensor:
        """``(B, *sites)`` bool: sites that are real and free."""
        return self.mask if self.frozen is None else self.mask & ~self.frozen

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a point, ``(B, *sites, *event)``."""
        return tuple(self.mask.shape) + self.leaf.event

    @property
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``: real free sites times the dimension of one."""
        return self.live.reshape(len(self.mask), -1).sum(1) * self.leaf.dimension

    def hold(self, x: Tensor) -> Tensor:
        """Padded sites to the origin, frozen sites to their known value."""
        x = pin(self.mask, x, self.leaf.origin(x))
        return x if self.frozen is None else pin(~(self.frozen & self.mask), x, self.known.to(x))  # type: ignore

    def blank(self, u: Tensor) -> Tensor:
        """No tangent on padded and frozen sites."""
        return pin(self.live, u, 0.0)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.hold(self.leaf.exp(x, self.blank(u)))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.blank(self.leaf.log(x, y))

    def project(self, x: Tensor) -> Tensor:
        return self.hold(self.leaf.project(self.hold(x)))

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self.leaf.tangent(x, self.blank(u))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.leaf.inner(x, u, v)

    def gaussian(self, x: Tensor) -> Tensor:
        return self.tangent(x, self.leaf.gaussian(x))

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.blank(self.leaf.transport(x, y, u))

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        return self.hold(self.leaf.rotate(x, rotation))

    def permute(self, x: Tensor, order: Tensor) -> Tensor:
        return self.leaf.permute(x, order)

    def bind(self, context: Context) -> Sites:
        return self.leaf.bind(context)

    def stack(self, points: Sequence[Tensor]) -> Tensor:
        return self.leaf.stack(points)

    def count(self, point: Tensor) -> int:
        return self.leaf.count(point)


class Product(Space):
    """Named spaces side by side: a point is a dict with one state a part."""

    def __init__(self, **parts: Space) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    def _over(self, method: str, *states: State) -> dict[str, Any]:
        return {k: getattr(s, method)(*(x[k] for x in states)) for k, s in self.parts.items()}  # type: ignore

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return all(s.smooth for s in self.parts.values())

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return all(s.linear for s in self.parts.values())

    @property
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``."""
        return sum(s.dimension for s in self.parts.values())  # type: ignore

    def bind(self, context: Context) -> Product:
        return Product(**{k: s.bind(context.part(k)) for k, s in self.parts.items()})

    def exp(self, x: State, u: State) -> State:
        return self._over("exp", x, u)

    def log(self, x: State, y: State) -> State:
        return self._over("log", x, y)

    def project(self, x: State) -> State:
        return self._over("project", x)

    def tangent(self, x: State, u: State) -> State:
        return self._over("tangent", x, u)

    def inner(self, x: State, u: State, v: State) -> Tensor:
        return sum(self._over("inner", x, u, v).values())  # type: ignore

    def gaussian(self, x: State) -> State:
        return self._over("gaussian", x)

    def transport(self, x: State, y: State, u: State) -> State:
        return self._over("transport", x, y, u)

    def rotate(self, x: State, rotation: Tensor) -> State:
        return {k: s.rotate(x[k], rotation) for k, s in self.parts.items()}  # type: ignore

    def permute(self, x: State, order: Tensor) -> State:
        return {k: s.permute(x[k], order) for k, s in self.parts.items()}  # type: ignore

    def stack(self, points: Sequence[State]) -> State:
        return {k: s.stack([p[k] for p in points]) for k, s in self.parts.items()}  # type: ignore

    def count(self, point: State) -> int:
        return max(s.count(point[k]) for k, s in self.parts.items())  # type: ignore
