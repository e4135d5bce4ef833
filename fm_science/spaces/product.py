"""Products: named spaces side by side, whose points are dicts with one state a part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fm_science.spaces.space import Space
from fm_science.state import Context, State


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
    def geodesic(self) -> bool:  # type: ignore[override]
        return all(s.geodesic for s in self.parts.values())

    @property
    def isometric(self) -> bool:  # type: ignore[override]
        return all(s.isometric for s in self.parts.values())

    @property
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``."""
        return sum(s.dimension for s in self.parts.values())  # type: ignore

    @property
    def measure(self) -> Tensor:
        """The squared length of a tangent of ones, ``(B,)``; see :class:`~fm_science.spaces.base.BoundLeaf`."""
        return sum(s.measure for s in self.parts.values())  # type: ignore

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

    def gradient(self, x: State, ambient_grad: State) -> State:
        return self._over("gradient", x, ambient_grad)

    def gaussian(self, x: State) -> State:
        return self._over("gaussian", x)

    def transport(self, x: State, y: State, u: State) -> State:
        return self._over("transport", x, y, u)

    def rotate(self, x: State, rotation: Tensor) -> State:
        return {k: s.rotate(x[k], rotation) for k, s in self.parts.items()}  # type: ignore

    def permute(self, x: State, order: Tensor) -> State:
        return {k: s.permute(x[k], order) for k, s in self.parts.items()}  # type: ignore

    def symmetrise(self, x: State) -> State:
        return self._over("symmetrise", x)

    def pad_batch(self, points: Sequence[State]) -> State:
        return {k: s.pad_batch([p[k] for p in points]) for k, s in self.parts.items()}  # type: ignore

    def num_sites(self, point: State) -> int:
        return max(s.num_sites(point[k]) for k, s in self.parts.items())  # type: ignore
