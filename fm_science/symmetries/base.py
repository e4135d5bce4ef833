"""Symmetries: transformations under which the distribution of the data does not change.

A symmetry can move noise as close to a data point as its group allows (``align``), which shortens the paths between
them, and it can apply a random group element (``randomise``), which makes any distribution invariant. It moves whole
states, and only through the space's own ``rotate`` and ``permute``, so a rotation that was found from positions also
rotates frames and directions.

A transformation of states alone is valid only if it leaves everything unchanged that does not flow: the mask, the
frozen sites and the conditions. So a symmetry is bound to a batch before use (``bind``), which raises an error if this
is impossible. A network may also commute with motions of state and conditions together, such as another order of the
sensors of a function with their coordinates: ``apply`` moves both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Leaf, Space
from fm_science.state import Context, State, expand_like, tree_map, zip_leaves


def bound_leaves(space: Space, *states: State) -> list[tuple[Any, ...]]:
    """The leaves of a bound space, each with its tensors: ``(leaf, x, y, ...)``. Raises TypeError if it is not
    bound."""
    found = zip_leaves(space, *states)
    for leaf, *_ in found:
        if not isinstance(leaf, BoundLeaf):
            raise TypeError(f"{leaf!r} is not bound to a batch. Write space.bind(context) first.")
    return found


def flat(space: BoundLeaf) -> bool:
    """Whether a bound leaf is a vector space with the plain dot product, where squared distances are matrix algebra."""
    leaf = space.leaf
    return leaf.linear and type(leaf).dot is Leaf.dot and type(space).inner is BoundLeaf.inner


def square(space: Space, x: State, y: State) -> Tensor:
    """The squared distance of paired points, ``(B,)``."""
    u = space.log(x, y)
    return space.inner(x, u, u)


def nearer(space: Space, moved: State, x: State, y: State) -> State:
    """For each sample whichever of ``moved`` and ``x`` is nearer to ``y``."""
    better = square(space, moved, y) <= square(space, x, y)
    return tree_map(lambda a, b: torch.where(expand_like(better, a), a, b), moved, x)


class Symmetry(ABC):
    """A group that acts on the points of a space."""

    @abstractmethod
    def align(self, space: Space, x: State, y: State) -> State:
        """The point nearest to ``y`` on the orbit of ``x``, for each sample of a bound space; never farther than ``x``
        itself."""

    @abstractmethod
    def randomise(self, space: Space, x: State) -> State:
        """Each sample moved by an independent uniform element of the group."""

    def bind(self, space: Space, context: Context) -> Symmetry:
        """The same symmetry, restricted to what the batch allows. Raises ValueError if nothing is left of it."""
        return self

    def apply(self, space: Space, x: State, context: Context) -> tuple[State, Context]:
        """State and context, each sample moved by an independent uniform element of the group.

        Args:
            space: not bound.
            x: points of the space bound to ``context``.
            context: its conditions stay where they are, except those that the symmetry says move along.
        """
        bound = space.bind(context)
        return self.bind(bound, context).randomise(bound, x), context

    def take(self, index: Tensor) -> Symmetry:
        """The symmetry bound to the samples ``index`` of its batch."""
        return self

    def cost(self, space: Space, x: State, y: State) -> Tensor:
        """The squared distance of ``y`` from the orbit of ``x``, ``(B,)``."""
        return square(space, self.align(space, x, y), y)


def on_sites(context: Context) -> list[str]:
    """The names of the conditions whose second axis is as long as the sample, which look like one value a site."""
    sites = context.mask.shape[1]
    return [name for name, v in context.cond.items() if sites > 1 and v.ndim > 1 and v.shape[1] == sites]


def split(context: Context, names: Sequence[str]) -> tuple[Context, dict[str, Tensor]]:
    """A context without the named conditions, and those."""
    away = {name: v for name, v in context.cond.items() if name in names}
    return replace(context, cond={k: v for k, v in context.cond.items() if k not in away}), away


def refuse_frozen(space: Space, name: str) -> None:
    """Raise ValueError if a part of the space has frozen sites."""
    if any(s.frozen is not None for (s,) in bound_leaves(space)):
        raise ValueError(
            f"{name} would move frozen sites: frozen sites determine the pose. Align without {name} in this batch."
        )
