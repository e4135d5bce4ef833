"""Products of named spaces, whose points are dicts with one state per part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.space import Space
from fm_science.state import Context, State


class Product(Space):
    """The product of named spaces: a point is a dict with one state per part."""

    def __init__(self, **parts: Space) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return f"Product({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    @derived
    def smooth(self) -> bool:
        return all(s.smooth for s in self.parts.values())

    @derived
    def linear(self) -> bool:
        return all(s.linear for s in self.parts.values())

    @derived
    def geodesic(self) -> bool:
        return all(s.geodesic for s in self.parts.values())

    @derived
    def isometric(self) -> bool:
        return all(s.isometric for s in self.parts.values())

    @derived
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``."""
        return _sum(s.dimension for s in self.parts.values())

    @derived
    def measure(self) -> Tensor:
        """The squared length of a tangent of ones, ``(B,)``; see :class:`~fm_science.spaces.base.BoundLeaf`."""
        return _sum(s.measure for s in self.parts.values())

    def bind(self, context: Context) -> Product:
        return Product(**{k: s.bind(context.part(k)) for k, s in self.parts.items()})

    def exp(self, x: State, u: State) -> State:
        return {k: s.exp(x[k], u[k]) for k, s in self.parts.items()}

    def log(self, x: State, y: State) -> State:
        return {k: s.log(x[k], y[k]) for k, s in self.parts.items()}

    def project(self, x: State) -> State:
        return {k: s.project(x[k]) for k, s in self.parts.items()}

    def tangent(self, x: State, u: State) -> State:
        return {k: s.tangent(x[k], u[k]) for k, s in self.parts.items()}

    def inner(self, x: State, u: State, v: State) -> Tensor:
        return _sum(s.inner(x[k], u[k], v[k]) for k, s in self.parts.items())

    def gradient(self, x: State, ambient_grad: State) -> State:
        return {k: s.gradient(x[k], ambient_grad[k]) for k, s in self.parts.items()}

    def gaussian(self, x: State) -> State:
        return {k: s.gaussian(x[k]) for k, s in self.parts.items()}

    def transport(self, x: State, y: State, u: State) -> State:
        return {k: s.transport(x[k], y[k], u[k]) for k, s in self.parts.items()}

    def rotate(self, x: State, rotation: Tensor) -> State:
        return {k: s.rotate(x[k], rotation) for k, s in self.parts.items()}

    def permute(self, x: State, order: Tensor) -> State:
        return {k: s.permute(x[k], order) for k, s in self.parts.items()}

    def symmetrise(self, x: State) -> State:
        return {k: s.symmetrise(x[k]) for k, s in self.parts.items()}

    def pad_batch(self, points: Sequence[State]) -> State:
        return {k: s.pad_batch([p[k] for p in points]) for k, s in self.parts.items()}

    def num_sites(self, point: State) -> int:
        return max(s.num_sites(point[k]) for k, s in self.parts.items())


def _sum(values: Iterable[Tensor]) -> Tensor:
    """The sum of one number per sample over all parts, ``(B,)``."""
    return reduce(torch.add, values)
