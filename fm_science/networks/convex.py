"""Convex potentials: networks that are convex in their input, and the transport map that is their gradient.

By Brenier's theorem the map that carries one law to another at least squared distance is the gradient of a convex
function. An input convex neural network (Amos, Xu & Kolter 2017) can be no other: weights between hidden layers are not
negative, activations are convex and rising, and the input enters each layer by any weights.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fm_science.networks.maps import TransportMap

NEWTON, HALVINGS = 60, 12  # steps of an inverse, and how often one of them is shortened
FLAT = 0.1  # the least curvature of a potential


class ICNN(nn.Module):
    """A convex function of vectors ``(B, D)`` to ``(B,)``: |A x|² / 2 + 0.05 |x|² + c . x + a rising stack of softplus
    layers (Amos et al. 2017, eq. 2; the quadratic part after Huang et al. 2021). It begins near |x|² / 2, whose
    gradient is the identity.

    Args:
        features: D.
        width: hidden features; 0 leaves the quadratic part alone, which makes every affine map of Gaussians.
        layers: hidden layers.
    """

    def __init__(self, features: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.root = nn.Parameter(math.sqrt(1 - FLAT) * torch.eye(features))
        self.slope = nn.Parameter(torch.zeros(features))
        layers = layers if width else 0
        self.enter = nn.ModuleList(nn.Linear(features, width) for _ in range(layers))
        self.rising = nn.ParameterList(torch.randn(width, width) - 1 for _ in range(layers - 1))
        self.leave = nn.Parameter(torch.full((width,), -3.0)) if layers else None

    def forward(self, x: Tensor) -> Tensor:
        """The convex function at ``x`` (B, D): (B,)."""
        value = 0.5 * (x @ self.root.T).square().sum(1) + 0.5 * FLAT * x.square().sum(1) + x @ self.slope
        h = x
        for k, enter in enumerate(self.enter):
            before = enter(x)
            if k:
                weights = cast(Tensor, self.rising[k - 1])
                before = before + h @ softplus(weights).T / len(weights)
            h = softplus(before)
        return value if self.leave is None else value + h @ softplus(self.leave) / math.sqrt(len(self.leave))


class ConvexMap(TransportMap):
    """T = grad g from noise to data, for a convex g, and a second convex f on the data, whose gradient becomes the
    inverse of T in training (Makkuva, Taghvaei, Oh & Lee 2020). The inverse that densities use is exact, the root of
    grad g(z) = x by Newton's method, begun at grad f(x); determinants are those of the Hessian of g.

    Args:
        features: coordinates of a state in all, D.
        width, layers: of both networks; see :class:`ICNN`.
    """

    seen: Tensor

    def __init__(self, features: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.f, self.g = ICNN(features, width, layers), ICNN(features, width, layers)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # training steps so far

    def carry(self, z: Tensor) -> Tensor:
        return torch.func.grad(lambda y: self.g(y).sum())(z)

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.carry(z), torch.linalg.slogdet(self._hessian(z))[1]

    def pull(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            z = self._root(x.detach())
        hessian = self._hessian(z)
        # one more step of Newton carries the gradient
        z = z - torch.linalg.solve(hessian.detach(), self.carry(z) - x)
        return z, -torch.linalg.slogdet(hessian)[1]

    def dual_value(self, z: Tensor, x: Tensor) -> Tensor:
        """The dual value of the squared Wasserstein-2 distance of noise ``(n, D)`` and data ``(m, D)``, ``()``: E|z|² +
        E|x|² - 2 E f(x) - 2 E[z . grad g(z) - f(grad g(z))] (Makkuva et al. 2020, theorem 3.3). It is the distance
        where f and g are optimal."""
        there = self.carry(z)
        value = z.square().sum(1).mean() + x.square().sum(1).mean() - 2 * self.f(x).mean()
        return value - 2 * ((z * there).sum(1) - self.f(there)).mean()

    def _hessian(self, z: Tensor) -> Tensor:
        """The second derivatives of g, ``(B, D, D)``."""
        return torch.func.vmap(torch.func.hessian(lambda y: self.g(y[None])[0]))(z)

    def _root(self, x: Tensor) -> Tensor:
        """The z with grad g(z) = x: the least of g(z) - z . x, which is strongly convex."""
        z, close = torch.func.grad(lambda y: self.f(y).sum())(x), 100 * torch.finfo(x.dtype).eps
        for _ in range(NEWTON):
            slope = self.carry(z) - x
            if bool((slope.abs() <= close * (1 + x.abs())).all()):
                break
            move = torch.linalg.solve(self._hessian(z), slope)
            z = z - self._length(z, x, move, (slope * move).sum(1))[:, None] * move
        return z

    def _length(self, z: Tensor, x: Tensor, move: Tensor, fall: Tensor) -> Tensor:
        """How far to go ``(B,)``: the whole step, or half as often as it takes until the function falls enough."""
        value = lambda y: self.g(y) - (y * x).sum(1)  # noqa: E731
        length, before = torch.ones_like(fall), value(z)
        slack = 10 * torch.finfo(x.dtype).eps * (1 + before.abs())
        for _ in range(HALVINGS):
            rising = value(z - length[:, None] * move) > before - 1e-4 * length * fall + slack
            if not bool(rising.any()):
                break
            length = torch.where(rising, 0.5 * length, length)
        return length
