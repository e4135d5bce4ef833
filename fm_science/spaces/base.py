"""Leaves: spaces whose points are one tensor, and their form in a batch.

A mathematician writes a :class:`Leaf`: the five methods for a single site, with any number of leading axes. Binding a
leaf to a batch gives :class:`BoundLeaf`, the product of its real sites: padded sites are at the origin and have no
tangent, frozen sites keep their known value. So padding is part of the geometry, and masks occur nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.spaces.coordinates import frame, raise_index, whitened
from fm_science.spaces.numerics import safe_sqrt as safe_sqrt
from fm_science.spaces.product import Product as Product
from fm_science.spaces.space import Space as Space
from fm_science.state import Context, expand_like, masked_where, rows


def total(x: Tensor) -> Tensor:
    """The sum over the sites of each sample: ``(B, *sites)`` to ``(B,)``."""
    return rows(x).sum(1)


class Leaf(Space):
    """A space whose points are one tensor ``(B, *sites, *event)``: the mathematics of one site.

    A subclass writes ``exp``, ``log``, ``project``, ``tangent`` for any number of leading axes, and names ``event`` and
    ``dimension``. Where the metric is not the ambient dot product it also writes ``inner``, or ``dot``, which is
    ``inner`` before the sum over sites.
    """

    on: str = "nodes"  #: where the sites are: "nodes", "edges" or "graph"
    event: tuple[int, ...] = ()  #: shape of a point on one site
    dimension: int = 0  #: intrinsic dimension of one site
    volume: float = math.inf  #: Riemannian volume of one site
    injectivity: float = math.inf  #: how far geodesics from a site remain shortest
    vector: bool = False  #: whether rotations act on the last axis of a point, which is a vector

    @derived
    def leaf(self) -> Leaf:
        """The leaf itself, as for a bound one."""
        return self

    @property
    def directed(self) -> bool:
        """Whether points have a direction, which rotations change."""
        return type(self).rotate is not Space.rotate
    point: str = "points of the space; project(x) makes them so"  #: description of a point

    @property
    def tangent_event(self) -> tuple[int, ...]:
        """Shape of a tangent on one site."""
        return self.event

    def origin(self, like: Tensor) -> Tensor:
        """The point of padded sites, ``(*event)``, in the dtype and on the device of ``like``."""
        return like.new_zeros(self.event)

    def off(self, x: Tensor) -> Tensor:
        """How far ambient points ``(P, *event)`` are from the space, ``(P,)``, relative to their size but at least
        one."""
        gap = (self.project(x) - x).flatten(1).abs()
        return gap.amax(1) / x.flatten(1).abs().amax(1).clamp_min(1.0)

    def dot(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The inner product of two tangents on each site, ``(..., *tangent_event)`` to ``(...)``."""
        if type(self).inner is Leaf.inner:
            return (u * v).sum(tuple(range(-len(self.tangent_event), 0)))
        sites = u.shape[: u.ndim - len(self.tangent_event)]  # the metric was given as inner: one site per sample
        x = x.expand(*sites, *self.event).reshape(-1, 1, *self.event)
        u, v = (w.expand(*sites, *self.tangent_event).reshape(-1, 1, *self.tangent_event) for w in (u, v))
        return self.inner(x, u, v).reshape(sites)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return total(self.dot(x, u, v))

    @property
    def own_metric(self) -> bool:
        """Whether ``dot`` or ``inner`` differs from the ambient dot product."""
        return type(self).dot is not Leaf.dot or type(self).inner is not Leaf.inner

    @property
    def stretched(self) -> bool:
        """Whether the volume of a unit of the coordinates varies from place to place, so that divergences need
        ``log_scale``: if that is defined, and if there is a separate metric on coordinates that are free in all
        directions."""
        whole = math.prod(self.event) == math.prod(self.tangent_event) == self.dimension
        return type(self).log_scale is not Leaf.log_scale or (self.own_metric and whole)

    def log_scale(self, x: Tensor) -> Tensor:
        """Log of the Riemannian volume of a unit of the coordinates at ``x``, ``(...)``: half the log-determinant of
        the metric in these coordinates, up to a constant. Used if the space is ``stretched``; a space on a curved
        surface in its coordinates that needs one defines it."""
        sites = x.shape[: x.ndim - len(self.event)]
        gram = frame(self, x, sites)[1]
        return torch.linalg.cholesky_ex(gram)[0].diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def gradient(self, x: Tensor, ambient_grad: Tensor) -> Tensor:
        zero = x.new_zeros(x.shape[: x.ndim - len(self.event)] + self.tangent_event)
        (rate,) = torch.func.vjp(lambda u: self.exp(x, u), zero)[1](ambient_grad)
        return raise_index(self, x, rate) if self.own_metric else self.tangent(x, rate)

    def gaussian(self, x: Tensor) -> Tensor:
        sites = x.shape[: x.ndim - len(self.event)]
        normal = torch.randn(sites + self.tangent_event, dtype=x.dtype, device=x.device)
        return whitened(self, x, normal) if self.own_metric else self.tangent(x, normal)

    def geodesic_flow(self, x: Tensor, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`Space.geodesic_flow`, with ``s`` of as many axes as ``u``."""
        y = self.exp(x, s * u)
        return y, self.transport(x, y, u)

    def log_volume(self, x: Tensor, u: Tensor) -> Tensor:
        """Log of the factor by which ``exp`` at ``x`` stretches volume at the tangent ``u``, ``(...)``: the volume
        density of normal coordinates."""
        return torch.zeros_like(self.dot(x, u, u))

    def all_geodesics(self, u: Tensor, turns: int = 3) -> tuple[Tensor, Tensor]:
        """All geodesics from the origin to the point reached by the tangent ``u`` at the origin.

        Returns:
            Their squared lengths, and the log of the factor by which ``exp`` stretches volume at their ends, each
            ``(K, ..., F)``: K geodesics, with at most ``turns`` turns around the space, in each of the F independent
            factors of a site.
        """
        origin = self.origin(u).expand(*u.shape[: u.ndim - len(self.tangent_event)], *self.event)
        return self.dot(origin, u, u)[None, ..., None], self.log_volume(origin, u)[None, ..., None]

    def uniform(self, sites: Sequence[int], like: Tensor) -> Tensor:
        """Independent uniform points ``(*sites, *event)``. Raises TypeError if the volume is infinite."""
        raise TypeError(
            f"{self!r} has no uniform points: its volume is infinite. Use Normal() on linear spaces, Wrapped(std) else."
        )

    def bind(self, context: Context) -> BoundLeaf:
        return BoundLeaf(self, context.sites(self.on), context.frozen(self.on), context.known)

    def pad_batch(self, points: Sequence[Tensor]) -> Tensor:
        if len({p.shape for p in points}) == 1:
            return torch.stack(list(points))
        axes = {"graph": 0, "nodes": 1, "edges": 2}[self.on]
        size = max(p.shape[0] for p in points) if axes else 0
        out = self.origin(points[0]).expand(len(points), *[size] * axes, *self.event).clone()
        for row, p in zip(out, points, strict=True):
            row[tuple(slice(n) for n in p.shape[:axes])] = p
        return out

    def num_sites(self, point: Tensor) -> int:
        return 1 if self.on == "graph" else point.shape[0]

    def permute(self, x: Tensor, order: Tensor) -> Tensor:
        if self.on == "graph":
            return x
        sample = torch.arange(len(order), device=x.device)[:, None]
        if self.on == "nodes":
            return x[sample, order]
        return x[sample[..., None], order[:, :, None], order[:, None, :]]


@dataclass(frozen=True, eq=False, repr=False)
class BoundLeaf(Space):
    """A leaf bound to a batch: the product of its real sites, with frozen ones fixed.

    Attributes:
        leaf: the mathematics of one site.
        mask: ``(B, *sites)`` bool, real sites.
        frozen: ``(B, *sites)`` bool, sites that keep ``known``; ``None`` if all are free.
        known: ``(B, *sites, *event)``, read at frozen sites only.
    """

    leaf: Leaf
    mask: Tensor
    frozen: Tensor | None = None
    known: Tensor | None = None

    def __repr__(self) -> str:  # a batch of masks and known values would fill a page
        return repr(self.leaf)

    @derived
    def smooth(self) -> bool:
        return self.leaf.smooth

    @derived
    def linear(self) -> bool:
        return self.leaf.linear

    @derived
    def geodesic(self) -> bool:
        return self.leaf.geodesic

    @derived
    def isometric(self) -> bool:
        return self.leaf.isometric

    @cached_property
    def is_unmasked(self) -> bool:
        """Whether all sites are known to be real and free, so that none need be reset. This is tested on the CPU only:
        on an accelerator the test would synchronise, so there it is False."""
        return self.frozen is None and self.mask.device.type == "cpu" and bool(self.mask.all())

    @derived
    def free_mask(self) -> Tensor:
        """``(B, *sites)`` bool: sites that are real and free."""
        return self.mask if self.frozen is None else self.mask & ~self.frozen

    @derived
    def counted_mask(self) -> Tensor:
        """``(B, *sites)`` bool: the real and free sites that are independent. On edges each pair counts once."""
        return self.free_mask

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a point, ``(B, *sites, *event)``."""
        return tuple(self.mask.shape) + self.leaf.event

    @derived
    def dimension(self) -> Tensor:
        """Degrees of freedom of each sample, ``(B,)``: real free sites times the dimension of one."""
        return total(self.counted_mask) * self.leaf.dimension

    @derived
    def measure(self) -> Tensor:
        """What a squared length is divided by to give a mean square, ``(B,)``: the squared length of a tangent whose
        every degree of freedom is one. The dimension, except where sites have weights."""
        return self.dimension

    @property
    def shares_weights(self) -> bool:
        """Whether distances are those of the vectors :meth:`whitened`, by weights that all samples share."""
        return False

    def whitened(self, x: Tensor) -> Tensor:
        """Points of a flat space as vectors whose plain dot product is the inner product."""
        return self.mask_tangent(x)

    def apply_constraints(self, x: Tensor) -> Tensor:
        """Sets padded sites to the origin, and frozen sites to their known value."""
        if self.is_unmasked:
            return x
        x = masked_where(self.mask, x, self.leaf.origin(x))
        if self.frozen is None or self.known is None:
            return x
        return masked_where(~(self.frozen & self.mask), x, self.known.to(x))

    def mask_tangent(self, u: Tensor) -> Tensor:
        """Sets tangents of padded and frozen sites to zero."""
        return u if self.is_unmasked else masked_where(self.free_mask, u, 0.0)

    def exp(self, x: Tensor, u: Tensor) -> Tensor:
        return self.apply_constraints(self.leaf.exp(x, self.mask_tangent(u)))

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        return self.mask_tangent(self.leaf.log(x, y))

    def project(self, x: Tensor) -> Tensor:
        return self.apply_constraints(self.leaf.project(self.apply_constraints(x)))

    def tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self.leaf.tangent(x, self.mask_tangent(u))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.leaf.inner(x, u, v)

    def gradient(self, x: Tensor, ambient_grad: Tensor) -> Tensor:
        return self.tangent(x, self.mask_tangent(self.leaf.gradient(x, ambient_grad)))

    def symmetrise(self, x: Tensor) -> Tensor:
        return self.leaf.symmetrise(x)

    def gaussian(self, x: Tensor) -> Tensor:
        return self.tangent(x, self.leaf.gaussian(x))

    def transport(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        return self.mask_tangent(self.leaf.transport(x, y, u))

    def geodesic_flow(self, x: Tensor, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        y, v = self.leaf.geodesic_flow(x, self.mask_tangent(u), expand_like(s, u))
        return self.apply_constraints(y), self.mask_tangent(v)

    def rotate(self, x: Tensor, rotation: Tensor) -> Tensor:
        return self.apply_constraints(self.leaf.rotate(x, rotation))

    def permute(self, x: Tensor, order: Tensor) -> Tensor:
        return self.leaf.permute(x, order)

    def bind(self, context: Context) -> BoundLeaf:
        return self.leaf.bind(context)

    def pad_batch(self, points: Sequence[Tensor]) -> Tensor:
        return self.leaf.pad_batch(points)

    def num_sites(self, point: Tensor) -> int:
        return self.leaf.num_sites(point)
