"""Permutations: a set has no order, so any order of its sites is equivalent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from fm_science.spaces.base import BoundLeaf, Space
from fm_science.state import Context, State
from fm_science.symmetries.base import Symmetry, bound_leaves, flat, nearer, on_sites, split


@dataclass(frozen=True)
class Permutations(Symmetry):
    """Reorderings of the sites of each sample. Padded and frozen sites stay where they are.

    ``align`` solves one assignment problem per sample (Kuhn 1955), whose cost is the squared distance between sites,
    summed over the parts of the state that are on nodes. If there are only such parts, the result is the nearest point
    of the orbit; edges are reordered too but not included in the cost, and a reordering that would increase the
    distance of the whole state is not applied.

    Args:
        within: conditions on sites ``(B, N, ...)`` that two sites must share before they may be swapped.
        beside: conditions that do not belong to sites although their second axis is as long as the sample.
        along: conditions on sites that move with them: the coordinates of sensors. Only ``apply`` can do so.
        kinds: ``(B, N)`` integers, only sites of equal kind are swapped; ``bind`` fills it from ``within``.
    """

    within: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    along: tuple[str, ...] = ()
    kinds: Tensor | None = field(default=None, repr=False, compare=False)

    def bind(self, space: Space, context: Context) -> Permutations:
        if context.mask.shape[1] == 1:
            return self
        for name in on_sites(context):
            if name not in self.within + self.beside:
                raise ValueError(
                    f"Permutations would separate the condition {name!r} {tuple(context.cond[name].shape)} from its "
                    "sites. Write "
                    f"Permutations(within=({name!r},)) to swap only sites that share it, or beside=({name!r},) if it "
                    "does not belong to sites."
                )
        return replace(self, kinds=_kinds(context, self.within)) if self.within else self

    def take(self, index: Tensor) -> Permutations:
        return self if self.kinds is None else replace(self, kinds=self.kinds[index])

    def classes(self, space: Space) -> Tensor:
        """``(B, N)`` integers: sites of equal number may be swapped; a fixed site has its own number."""
        nodes = [s for (s,) in bound_leaves(space) if s.leaf.on == "nodes"]
        if not nodes:
            raise TypeError(f"Permutations need a part on nodes, and {space!r} has none.")
        fixed = torch.stack([~s.free_mask for s in nodes]).any(0)
        for (s,) in bound_leaves(space):
            if s.leaf.on == "edges" and s.frozen is not None:
                fixed = fixed | s.frozen.any(-1)
        own = -1 - torch.arange(fixed.shape[1], device=fixed.device)
        return torch.where(fixed, own, 0 if self.kinds is None else self.kinds)

    def align(self, space: Space, x: State, y: State) -> State:
        nodes = [p for p in bound_leaves(space, x, y) if p[0].leaf.on == "nodes"]
        classes = self.classes(space)
        cost = reduce(torch.add, [_between_sites(*p) for p in nodes])
        if bool((classes != classes[:, :1]).any()):
            barred = 2.0 * (cost.abs().max() + 1) * (cost.shape[-1] + 1)  # more expensive than any valid assignment
            cost = torch.where(classes[:, :, None] == classes[:, None, :], cost, barred)
        moved = space.permute(x, assign(cost))
        exact = all(flat(s) if s.leaf.on == "nodes" else s.leaf.on == "graph" for (s,) in bound_leaves(space))
        return moved if exact else nearer(space, moved, x, y)

    def randomise(self, space: Space, x: State) -> State:
        return space.permute(x, self.draw(space))

    def apply(self, space: Space, x: State, context: Context) -> tuple[State, Context]:
        rest, moving = split(context, self.along)
        order = self.bind(space.bind(context), rest).draw(space.bind(context))
        rows = torch.arange(len(order), device=order.device)[:, None]
        moved = {name: v[rows, order] for name, v in moving.items()}
        return space.permute(x, order), replace(rest, cond={**rest.cond, **moved})

    def draw(self, space: Space) -> Tensor:
        """Uniform reorderings of the sites of a bound space, ``(B, N)``: which site comes to each place."""
        classes = self.classes(space)
        start = classes.argsort(dim=1, stable=True)
        draw = torch.rand(classes.shape, device=classes.device).argsort(1)
        end = draw.gather(1, classes.gather(1, draw).argsort(dim=1, stable=True))
        return torch.empty_like(start).scatter(1, start, end)


def _kinds(context: Context, names: tuple[str, ...]) -> Tensor:
    """Sites numbered by the values of the named conditions, ``(B, N)``."""
    shape = context.mask.shape
    unknown = [n for n in names if n not in context.cond or context.cond[n].shape[:2] != shape]
    if unknown:
        raise ValueError(f"Permutations(within={names}): the batch has no condition on sites named {unknown}.")
    rows = torch.cat([context.cond[n].reshape(shape.numel(), -1).double() for n in names], 1)
    return rows.unique(dim=0, return_inverse=True)[1].reshape(shape)


def _between_sites(space: BoundLeaf, x: Tensor, y: Tensor) -> Tensor:
    """The cost of putting site j of ``x`` at site i of ``y``, ``(B, N, N)``, up to a constant per sample and column."""
    if flat(space):  # the squared lengths are the same for every assignment
        return (-2 * y.flatten(2)) @ x.flatten(2).mT
    a, b = torch.broadcast_tensors(x[:, None], y[:, :, None])
    u = space.leaf.log(a.contiguous(), b.contiguous())
    return space.leaf.dot(a, u, u)


def assign(cost: Tensor) -> Tensor:
    """The cheapest column for each row of square matrices ``(M, N, N)``: ``(M, N)``, one permutation per matrix."""
    from scipy.optimize import linear_sum_assignment

    table = cost.detach().double().cpu().contiguous().numpy()
    columns = np.concatenate([linear_sum_assignment(matrix)[1] for matrix in table]).reshape(table.shape[:2])
    return torch.from_numpy(columns).to(cost.device)
