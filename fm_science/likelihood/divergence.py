"""The divergence of a velocity field.

It is the trace of the derivative of the velocity along tangents, sum_i (D_{P e_i} u)_i, P the projection on the tangent
space. The component is the plain ambient one: on the hyperbolic sheet the Lorentz product would flip the sign of the
time axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fm_science.spaces.base import Space, total
from fm_science.state import State, leaves, rows, scale, tree_map

VelocityField = Callable[[Any], Any]


class Divergence(ABC):
    """A rule for the trace of the derivative of a velocity field."""

    @property
    def chunk(self) -> int | None:
        """How many directions are computed at once; ``None``: all."""
        return None

    @abstractmethod
    def draw(self, like: Tensor) -> Tensor:
        """Ambient directions that are fixed along a trajectory, ``(P, B, D)``; ``like`` is a flat tangent (B, D)."""

    @abstractmethod
    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        """The trace ``(B,)`` of a linear map of ambient vectors ``(P, B, D)``."""


class Derivative:
    """The map v -> D_{Pv} u at a point, on flat ambient vectors, and the velocity itself.

    Args:
        space: a bound space.
        field: the velocity at a fixed time, a function of the point alone.
        x: the point.
        chunk: directions that are computed at once; 1 runs without ``vmap``, for networks that do not support it.
    """

    def __init__(self, space: Space, field: VelocityField, x: State, chunk: int | None = None) -> None:
        self.space, self.field, self.chunk = space, field, chunk
        self.x = tree_map(torch.Tensor.contiguous, x)  # dual numbers need their own memory
        self.template = space.log(x, x)
        self.velocity: Any = None

    def __call__(self, directions: Tensor) -> Tensor:
        """``(P, B, D)`` to ``(P, B, D)``."""
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
            if self.chunk == 1:
                pairs = [self._along(v) for v in directions]
                self.velocity = pairs[0][0]
                return torch.stack([d for _, d in pairs])
            vmapped = torch.func.vmap(self._along, randomness="same", chunk_size=self.chunk)
            velocity, derivative = vmapped(directions)
            self.velocity = tree_map(lambda u: u[0], velocity)
            return derivative

    def diagonal(self, directions: Tensor) -> Tensor:
        """v . D_{Pv} u for each of ``directions`` ``(P, B, D)``, ``(P, B)``. The field is evaluated once, and each
        direction is propagated back through it: this computes only the products that are needed."""
        if self.chunk == 1:
            return (directions * self(directions)).sum(2)

        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            self.velocity, back = torch.func.vjp(self.field, self.x)[:2]

            def along(v: Tensor) -> Tensor:
                (row,) = back(unflatten(v, self.template))
                return (flatten(row) * flatten(self._motion(v))).sum(1)

            return torch.func.vmap(along, randomness="same", chunk_size=self.chunk)(directions)

    def _motion(self, v: Tensor) -> Any:
        """How the coordinates of the point change along the tangential part of an ambient vector."""
        motion = self.space.tangent(self.x, unflatten(v, self.template))
        return motion if self.space.linear else self._point_motion(motion)

    def _along(self, v: Tensor) -> tuple[Any, Tensor]:
        motion = self._motion(v)
        # the point has no direction here, so that vmap evaluates the field itself only once
        velocity, derivative = torch.func.jvp(self.field, (self.x,), (motion,))[:2]
        return velocity, flatten(derivative)

    def _point_motion(self, tangent: State) -> Any:
        """How the coordinates of the point change along a tangent (on rotations these are different)."""
        zero = leaves(self.x)[0].new_zeros(())
        along = lambda s: self.space.exp(self.x, scale(s, tangent))  # noqa: E731
        return torch.func.jvp(along, (zero,), (torch.ones_like(zero),))[1]


def divergence(space: Space, field: VelocityField, x: State, rule: Divergence, probes: Tensor | None = None) -> Any:
    """The velocity at ``x``, and its divergence ``(B,)`` by a rule; ``probes`` are drawn if they are not given."""
    derivative = Derivative(space, field, x, rule.chunk)
    probes = rule.draw(flatten(derivative.template)) if probes is None else probes
    trace = rule(derivative, probes)
    return derivative.velocity, trace + log_volume_rate(space, derivative.x, derivative.velocity, trace)


def log_volume_rate(space: Space, x: State, u: State, like: Tensor) -> Tensor:
    """How fast the logarithm of the volume of a unit of coordinates grows along ``u``, ``(B,)``: the part that the
    plain trace misses on spaces whose metric is not that of the coordinates (they are ``stretched``)."""
    if space.parts:
        return sum((log_volume_rate(part, x[k], u[k], like) for k, part in space.parts.items()), torch.zeros_like(like))
    if not space.leaf.stretched:
        return torch.zeros_like(like)
    volume = lambda y: total(torch.where(space.free_mask, space.leaf.log_scale(y), 0.0))  # noqa: E731
    return torch.func.jvp(volume, (x,), (u,))[1]


@dataclass(frozen=True)
class ExactTrace(Divergence):
    """The trace, over all ambient directions, many at once.

    Args:
        chunk: how many directions are computed at once; ``None``: all. 1 runs without ``torch.func.vmap``, for networks
            with control flow that depends on data.
    """

    chunk: int | None = None

    def draw(self, like: Tensor) -> Tensor:
        n = like.shape[1]
        return torch.eye(n, dtype=like.dtype, device=like.device)[:, None].expand(n, *like.shape)

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        return derivative.diagonal(probes).sum(0)


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """The mean of v . D_{Pv} u over random signs v: unbiased (Hutchinson 1990; Grathwohl et al. 2019).

    Args:
        probes: number of vectors; the variance is inversely proportional to it.
    """

    probes: int = 1
    chunk: int | None = None

    def draw(self, like: Tensor) -> Tensor:
        return torch.randint(0, 2, (self.probes, *like.shape), device=like.device).to(like.dtype) * 2 - 1

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        return derivative.diagonal(probes).mean(0)


@dataclass(frozen=True)
class HutchPP(Divergence):
    """Exact on the range of a random sketch, Hutchinson's estimate on the rest: unbiased, and with much less variance
    if the spectrum decays (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    Args:
        probes: total products with the derivative; a third each for the sketch, its trace and the rest.
    """

    probes: int = 6
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.probes < 3:
            raise ValueError(f"HutchPP({self.probes}) needs at least three products. Use Hutchinson({self.probes}).")

    def draw(self, like: Tensor) -> Tensor:
        return Hutchinson(2 * (self.probes // 3)).draw(like)

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        sketch, rest = probes.chunk(2)
        basis = torch.linalg.qr(derivative(sketch).permute(1, 2, 0).detach())[0].permute(2, 0, 1)  # (P, B, D)
        rest = rest - torch.einsum("pbd,qbd,qbe->pbe", rest, basis, basis)
        both = torch.cat([basis, rest])
        along = (both * derivative(both)).sum(2)
        return along[: len(basis)].sum(0) + along[len(basis) :].mean(0)


def flatten(u: State) -> Tensor:
    """The coordinates of a tangent, ``(B, D)``."""
    return torch.cat([rows(leaf) for leaf in leaves(u)], 1)


def unflatten(flat: Tensor, like: State) -> State:
    """The inverse of :func:`flatten` for tangents of the shape of ``like``."""
    sizes = [leaf.shape[1:].numel() for leaf in leaves(like)]
    pieces = iter(flat.split(sizes, 1))
    return tree_map(lambda leaf: next(pieces).reshape(leaf.shape), like)
