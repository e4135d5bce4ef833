"""Curved spaces with closed-form geodesics: tori, spheres and hyperbolic spaces.

Each formula starts from the difference of two points, which is exact for close points in floating point, instead of
from their inner product, which is not: so distances are accurate from the rounding unit to the cut locus. At the cut
locus, where many shortest geodesics lead to a point, ``log`` picks one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.base import Leaf
from fm_science.spaces.numerics import dot, even_norm, even_root, log_sinhc, safe_norm, sinc, sinhc, windings


def wrap(angle: Tensor) -> Tensor:
    """Angles in radians to [-pi, pi); angles that are already there are unchanged."""
    turns = torch.round(angle.detach() / (2 * math.pi))
    angle = angle - 2 * math.pi * turns
    return torch.where(angle >= math.pi, angle - 2 * math.pi, angle)


@dataclass(frozen=True)
class Torus(Leaf):
    """The flat torus: ``dim`` angles in radians in [-pi, pi), with the metric of the plane; volume (2 pi)^dim.

    Args:
        dim: angles on one site.
        on: where the sites are: "nodes", "edges" or "graph".
    """

    dim: int
    on: str = "nodes"
    injectivity = math.pi
    isometric = True

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.dim,)

    @derived
    def dimension(self) -> int:
        return self.dim

    @derived
    def volume(self) -> float:
        return (2 * math.pi) ** self.dim

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return wrap(x + u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return wrap(y - x)

    def project(self, x: Tensor) -> Tensor:
        return wrap(x)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        return slope

    def off(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), dtype=x.dtype, device=x.device)  # angles count modulo 2 pi

    def all_geodesics(self, u: Tensor, turns: int = 3) -> tuple[Tensor, Tensor]:
        square = windings(u, turns).square()
        return square, torch.zeros_like(square)

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        return math.pi * (2 * torch.rand(*sites, *self.event, dtype=like.dtype, device=like.device) - 1)


class Quadric(Leaf):
    """The common part of spheres and hyperbolic spaces: unit vectors of R^(dim+1) in a quadratic form, with the first
    axis as the origin."""

    dim: int
    isometric = True

    @derived
    def event(self) -> tuple[int, ...]:
        return (self.dim + 1,)

    @derived
    def dimension(self) -> int:
        return self.dim

    def origin(self, like: Tensor) -> Tensor:
        return torch.eye(1, self.dim + 1, dtype=like.dtype, device=like.device)[0]


@dataclass(frozen=True)
class Sphere(Quadric):
    """Unit vectors of R^(dim+1) with the great-circle distance in radians; geodesics are shortest up to the antipode,
    at pi.

    Args:
        dim: dimension of the sphere: 1 a circle, 2 the ordinary sphere, on which rotations act.
        on: where the sites are: "nodes", "edges" or "graph".
    """

    dim: int = 2
    on: str = "nodes"
    injectivity = math.pi
    point = "unit vectors: x / x.norm(dim=-1, keepdim=True)"

    @derived
    def volume(self) -> float:
        half = 0.5 * (self.dim + 1)
        return 2 * math.pi**half / math.gamma(half)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        n = even_norm(u)
        return self._unit(n.cos() * x + sinc(n) * u)

    def geodesic_flow(self, x: Tensor, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        n = even_norm(u)
        angle = s * n
        cosine, sine = angle.cos(), angle.sin()
        return self._unit(torch.addcmul(cosine * x, sine / n, u)), torch.addcmul(cosine * u, n * sine, x, value=-1)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        cosine = dot(x, y)
        side = cosine.sign()
        difference = torch.addcmul(y, side, x, value=-1)  # exact near x and its antipode; x drops out of the tangent
        u = self.tangent(x, difference)
        sine = even_norm(u)
        lost = (side < 0) & (sine <= 8 * torch.finfo(x.dtype).eps)
        size = torch.where(lost, 0.0, torch.atan2(sine, cosine) / sine)
        return torch.addcmul(self._half_turn(x.detach(), lost), size, u)

    def _half_turn(self, x: Tensor, lost: Tensor) -> Tensor:
        """If ``lost``, a tangent of length pi at ``x``, else zero: the second axis, reflected by the mirror that maps
        the first axis to x or its antipode."""
        lean, size = x[..., :1], math.pi * lost.to(x.dtype)
        share = size * x[..., 1:2] / (1 + lean.abs())
        turn = -share * x
        turn[..., :1] -= torch.copysign(share, lean * share)
        turn[..., 1:2] += size
        return turn

    def _unit(self, x: Tensor) -> Tensor:
        """``x``, nearly of length one, normalised."""
        return x * dot(x, x).rsqrt()

    def project(self, x: Tensor) -> Tensor:
        norm = safe_norm(x)
        return torch.where(norm > 0, x / torch.where(norm > 0, norm, 1.0), self.origin(x))

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.addcmul(u, dot(x, u), x, value=-1)

    def gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        return self.tangent(x, slope)

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Parallel along the shortest geodesic: u - <y, u> (x + y) / (1 + <x, y>)."""
        middle = x + y
        square = dot(middle, middle).clamp_min(64 * torch.finfo(x.dtype).eps ** 2)
        return self.tangent(y, u - 2 * dot(middle, u) / square * middle)

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        r = safe_norm(u).squeeze(-1)
        return (self.dim - 1) * sinc(r).abs().clamp_min(torch.finfo(r.dtype).tiny).log()

    def all_geodesics(self, u: Tensor, turns: int = 3) -> tuple[Tensor, Tensor]:
        r = windings(safe_norm(u), turns)
        return r.square(), (self.dim - 1) * sinc(r).abs().clamp_min(torch.finfo(r.dtype).tiny).log()

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        return self.project(torch.randn(*sites, *self.event, dtype=like.dtype, device=like.device))

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        if self.dim != 2:
            return x
        return (x.reshape(len(x), -1, 3) @ rotation.mT).reshape(x.shape)


@dataclass(frozen=True)
class Hyperbolic(Quadric):
    """Hyperbolic space of curvature -1 as the upper sheet of <x, x> = -1 in R^(dim+1), <x, y> = -x0 y0 + x1 y1 + ...
    (Nickel & Kiela 2018). Tangents are ambient vectors with <x, u> = 0; lengths are Lorentzian. Floating point loses
    a factor exp(2 r) of accuracy at distance r from the origin.

    Args:
        dim: dimension of the space.
        on: where the sites are: "nodes", "edges" or "graph".
    """

    dim: int = 2
    on: str = "nodes"
    point = "points of the upper sheet, x0² = 1 + x1² + ...; project(x) finds x0"

    def _form(self, u: Tensor, v: Tensor) -> Tensor:
        """The Lorentz product ``(..., 1)``."""
        return (u[..., 1:] * v[..., 1:]).sum(-1, keepdim=True) - u[..., :1] * v[..., :1]

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._form(u, v).squeeze(-1)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        n = even_root(self._form(u, u))
        return self.project(n.cosh() * x + sinhc(n) * u)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        difference = y - x
        half = 0.5 * even_root(self._form(difference, difference))  # sinh of half the distance
        size = torch.asinh(half) / half / (1 + half * half).sqrt()  # distance / sinh(distance)
        return size * self.tangent(x, self.tangent(x, difference))

    def project(self, x: Tensor) -> Tensor:
        space = x[..., 1:]
        return torch.cat([(1 + (space * space).sum(-1, keepdim=True)).sqrt(), space], -1)

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return u + self._form(x, u) * x

    def gradient(self, x: Tensor, slope: Tensor) -> Tensor:
        return self.tangent(x, torch.cat([-slope[..., :1], slope[..., 1:]], -1))

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Parallel along the geodesic: u + <y, u> (x + y) / (1 - <x, y>)."""
        return self.tangent(y, u + self._form(y, u) / (1 - self._form(x, y)) * (x + y))

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        return (self.dim - 1) * log_sinhc(even_root(self._form(u, u)).squeeze(-1))

    def gaussian(self, x: Tensor) -> Tensor:
        normal = torch.randn(*x.shape[:-1], self.dim, dtype=x.dtype, device=x.device)
        origin = self.origin(x).expand_as(x)
        return self.transport(origin, x, torch.nn.functional.pad(normal, (1, 0)))
