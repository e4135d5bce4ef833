"""Costs: what it would take to carry each noise of a batch to each datum.

The cost of a pair is the squared distance of its space, whatever the space is. On flat parts, and wherever distances
are those of vectors, the whole table is one product of matrices; elsewhere all pairs go through the space's ``log`` as
one long batch, in chunks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fm_science.spaces.base import Space
from fm_science.state import Context, State, batch_size, leaves, rows, take
from fm_science.symmetries import Symmetry
from fm_science.symmetries.base import bound_leaves, flat, square

CHUNK = 2**24  #: most numbers that one tensor of a chunk of pairs holds

Cost = Callable[[Space, State, State], Tensor]


@runtime_checkable
class VectorCost(Protocol):
    """A cost that is the squared distance of vectors."""

    def vectors(self, space: Space, x: State) -> Tensor:
        """The vectors ``(B, D)`` of points."""

    def __call__(self, space: Space, x0: State, x1: State) -> Tensor:
        """The squared distances ``(B,)``."""


def groups(context: Context, within: Iterable[str] = ()) -> Tensor:
    """Samples numbered so that those of equal number may exchange their noise, ``(B,)``: the same sites are real, the
    same ones are frozen, and the conditions named in ``within`` are equal.

    Raises:
        ValueError: for a condition that the batch does not carry.
    """
    missing = [name for name in within if name not in context.cond]
    if missing:
        raise ValueError(f"within={tuple(within)}: the batch carries no {missing}; it has {sorted(context.cond)}.")
    keys = [context.mask, *leaves(context.free if context.free is not None else {})]
    keys += [context.cond[name] for name in within]
    each = torch.cat([rows(k).double() for k in keys], 1)
    if bool((each == each[:1]).all()):  # the common case, without the price of sorting rows
        return each.new_zeros(len(each), dtype=torch.long)
    return each.unique(dim=0, return_inverse=True)[1]


def table(
    space: Space, x0: State, x1: State, context: Context, group: Tensor, symmetries: tuple[Symmetry, ...] = (),
    cost: Cost | None = None,
) -> Tensor:  # fmt: skip
    """The cost of each pair, ``(B, B)``: row i is noise, column j a datum. Only pairs within a group are priced, and
    the others are infinite. In double precision where the table is a product of matrices.

    Args:
        space: bound to ``context``.
        x0, x1: noise and data.
        group: ``(B,)``, from :func:`groups`.
        symmetries: bound to the batch; the noise of each pair is first moved along them, in this order.
        cost: ``(space, x0, x1) -> (B,)`` of paired points; ``None``: the squared distance. One that is the squared
            distance of vectors may say so by a method ``vectors(space, x) -> (B, D)``.
    """
    allowed = group[:, None] == group[None, :]
    if isinstance(cost, VectorCost) and not symmetries:
        return _gram(cost.vectors(space, x0), cost.vectors(space, x1)).masked_fill(~allowed, torch.inf)
    if symmetries or cost is not None:
        price = _aligned(symmetries, cost or square)
        return _by_pairs(space, x0, x1, context, allowed, price)
    total = torch.zeros(allowed.shape, dtype=torch.float64, device=allowed.device)
    for k, (part, a, b) in enumerate(bound_leaves(space, x0, x1)):
        if flat(part) or part.shares_weights:
            total = total + _gram(part.whitened(a), part.whitened(b))
        else:
            total = total + _by_pairs(space, x0, x1, context, allowed, _piece(k))
    return total.masked_fill(~allowed, torch.inf)


def cross(space: Space, x: State, y: State, context: Context) -> Tensor:
    """The squared distance of each of m points ``x`` to each of n points ``y``, ``(m, n)``, where all have the same
    sites. ``space`` is bound to ``context``, that of ``y``."""
    allowed = torch.ones(batch_size(x), batch_size(y), dtype=torch.bool, device=leaves(y)[0].device)
    found = enumerate(bound_leaves(space, x, y))
    tables = [_gram(a, b) if flat(s) else _by_pairs(space, x, y, context, allowed, _piece(k)) for k, (s, a, b) in found]
    return torch.stack(tables).sum(0)


def _gram(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of vectors, ``(m, n)``, in double precision. Both sides lose their own mean before the product,
    so that nothing large cancels in it, however far apart the means are."""
    x, y = x.flatten(1), y.flatten(1)
    centres = [z.double().mean(0) for z in (x, y)]
    x, y = ((z - c).to(z) for z, c in zip((x, y), centres, strict=True))
    gap, product = centres[0] - centres[1], (x @ y.T).double()
    lines, columns = (z.double().square().sum(1) + 2 * sign * (z.double() @ gap) for z, sign in ((x, 1), (y, -1)))
    return (lines[:, None] + columns[None, :] - 2 * product + gap @ gap).clamp_min(0)


def _piece(k: int) -> Callable[..., Tensor]:
    """The squared distance in the k-th leaf alone."""

    def price(space: Space, x: State, y: State, index: Tensor) -> Tensor:
        return square(*bound_leaves(space, x, y)[k])

    return price


def _aligned(symmetries: tuple[Symmetry, ...], cost: Cost) -> Callable[..., Tensor]:
    """The cost after each noise was moved along the symmetries towards its datum."""

    def price(space: Space, x: State, y: State, index: Tensor) -> Tensor:
        bound = [s.take(index) for s in symmetries]
        closed = bound and cost is square  # the last symmetry may know its cost without moving anything
        for symmetry in bound[:-1] if closed else bound:
            x = symmetry.align(space, x, y)
        return bound[-1].cost(space, x, y) if closed else cost(space, x, y)

    return price


def _by_pairs(
    space: Space, x0: State, x1: State, context: Context, allowed: Tensor, price: Callable[..., Tensor]
) -> Tensor:
    """A table priced pair by pair, in chunks; infinite where not ``allowed``."""
    noise, datum = allowed.nonzero().unbind(1)
    sites = {"nodes": context.mask.shape[1], "edges": 1, "graph": 1}  # symmetries may compare all sites with all
    numbers = max(sites[s.leaf.on] * max(1, a[0].numel()) for s, a in bound_leaves(space, x1))
    context = replace(context, previous=None)
    costs = []
    for i, j in zip(*(index.split(max(1, CHUNK // numbers)) for index in (noise, datum)), strict=True):
        costs.append(price(space.bind(context.take(j)), take(x0, i), take(x1, j), j))
    out = torch.full(allowed.shape, torch.inf, dtype=costs[0].dtype, device=allowed.device)
    out[noise, datum] = torch.cat(costs)
    return out
