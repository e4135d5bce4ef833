"""Minibatch optimal transport: each batch of noise is carried to its batch of data as cheaply as possible.

Optimal pairs cross less than random ones, so the paths are straighter and few steps suffice (Pooladian et al. 2023;
Tong et al. 2024). Symmetries of the data make pairs shorter still: each noise is first moved along them towards its
datum (Klein, Krämer & Noé 2023; Song et al. 2023).

Only noise moves. Data, masks, frozen sites and conditions stay where they are, and noise is exchanged only between
samples that are alike in them: a batch of graphs of many sizes pairs equal sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings.base import Coupling
from fm_science.couplings.costs import Cost, groups, table
from fm_science.couplings.plans import ExactPlan, Plan
from fm_science.couplings.ranks import join, own
from fm_science.declarations import renamed_keywords
from fm_science.seeds import seeded
from fm_science.spaces import Space
from fm_science.state import Context, State, batch_size, leaves, take
from fm_science.symmetries import Symmetry
from fm_science.symmetries.base import nearer

Gather = Callable[[Any], tuple[Sequence[Any], int]]


@renamed_keywords(near="condition_weights")
class Transport(Coupling):
    """Pairs of least squared distance.

    With conditions, noise may only be exchanged between equal ones, or it would depend on them, and new samples, whose
    noise does not, would miss their condition (Cheng & Schwing 2025). So each condition of the batch is named once.

    With symmetries the flow learns the right law if the prior is invariant and either the network is equivariant or
    data come in random poses.

    Args:
        symmetries: along which each noise is moved towards its datum, in this order. With more than one the result is
            a good point of the joint orbit, not always the nearest.
        across_batch: whether noise is exchanged between samples; else each pair is only aligned.
        within: conditions that must be equal for noise to be exchanged.
        condition_weights: continuous conditions c by name with a weight: ``weight |c - c'|²`` is added to the cost of
            a pair.
        ignore: conditions that neither network nor prior look at.
        plan: how pairs follow from costs.
        cost: ``(space, x0, x1) -> (B,)`` of paired points instead of the squared distance; the plan minimises its sum.
        rounds: how often the symmetries take turns on the pairs that were chosen, where there are two or more.
        starts: how often they begin anew on those pairs, each time after a random motion of the last symmetry; the
            nearest point is kept. Eight close most of the gap to the joint optimum of small clouds.
        gather: gives the batches of all processes and the own rank, for one transport over all of them
            (:class:`~fm_science.couplings.GatherRanks`); ``None``: each process by itself.

    Raises:
        ValueError: in :meth:`pair`, for a condition that is not named, or that a symmetry would tear.
        RuntimeError: in :meth:`pair`, when an entropic plan does not converge.
    """

    def __init__(
        self, *symmetries: Symmetry, across_batch: bool = True, within: Sequence[str] = (),
        condition_weights: Mapping[str, float] | None = None, ignore: Sequence[str] = (), plan: Plan | None = None,
        cost: Cost | None = None, rounds: int = 2, starts: int = 0, gather: Gather | None = None,
    ) -> None:  # fmt: skip
        self.symmetries, self.across_batch = symmetries, across_batch
        self.within, self.condition_weights, self.ignore = _names(within), dict(condition_weights or {}), _names(ignore)
        self.plan, self.cost, self.gather = plan or ExactPlan(), cost, gather
        self.rounds, self.starts = rounds, starts

    def __repr__(self) -> str:
        options = [repr(s) for s in self.symmetries]
        options += [f"{k}={v!r}" for k, v in vars(self).items() if v and k not in ("symmetries", "gather")]
        return f"Transport({', '.join(options)})"

    @torch.no_grad()
    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        if not context.size:
            return x0, x1, context
        if self.gather is not None and self.across_batch:
            seed = int(torch.randint(2**62, ()))
            batches, rank = self.gather((x0, x1, context, seed))
            if len(batches) > 1:
                return self._over_ranks(space, batches, rank, x0, x1, context)
        return self._pair(space, x0, x1, context)

    def _pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        symmetries = tuple(s.bind(space, context) for s in self.symmetries)
        if self.across_batch:
            x0, context = self._exchanged(space, x0, x1, context, symmetries)
        aligned = self._aligned(space, x0, x1, symmetries)
        for _ in range(self.starts if len(symmetries) > 1 else 0):
            again = self._aligned(space, symmetries[-1].randomise(space, x0), x1, symmetries)
            aligned = nearer(space, again, aligned, x1)
        return aligned, x1, context

    def _aligned(self, space: Space, x0: State, x1: State, symmetries: tuple[Symmetry, ...]) -> State:
        """Each noise moved towards its datum, the symmetries taking turns."""
        for _ in range(self.rounds if len(symmetries) > 1 else 1):
            for symmetry in symmetries:
                x0 = symmetry.align(space, x0, x1)
        return x0

    def _exchanged(
        self, space: Space, x0: State, x1: State, context: Context, symmetries: tuple[Symmetry, ...]
    ) -> tuple[State, Context]:
        """The noise that each datum gets, and the context with the weights of the pairs."""
        group = groups(context, self.within)
        self._named(context)
        cost = table(space, x0, x1, context, group, symmetries, self.cost)
        cost = cost + sum(weight * _apart(context.cond[name]) for name, weight in self.condition_weights.items())
        order = torch.arange(context.size, device=group.device)
        weight = torch.ones(context.size, dtype=leaves(x1)[0].dtype, device=group.device)
        for members in _members(group):
            chosen, share = self.plan(cost[members][:, members])
            order[members] = members[chosen]
            weight[members] = 1.0 if share is None else share.to(weight)
        x0 = take(x0, order)
        if context.free is not None:  # each noise keeps the values of its datum at frozen sites
            x0 = space.project(x0)
        if share is None:
            return x0, context
        weight = weight * context.cond.get("weight", 1.0)
        return x0, replace(context, cond={**context.cond, "weight": weight})

    def _named(self, context: Context) -> None:
        named = {*self.within, *self.condition_weights, *self.ignore, "weight"}
        for name in context.cond:
            if name not in named:
                raise ValueError(
                    f"the batch carries the condition {name!r}, and noise that is exchanged freely would depend on it. "
                    f"Write Transport(within=({name!r},)) to pair equal values only, "
                    f"condition_weights={{{name!r}: weight}} where it is continuous, or ignore=({name!r},) if neither "
                    "network nor prior look at it."
                )

    def _over_ranks(
        self, space: Space, batches: Sequence[Any], rank: int, x0: State, x1: State, context: Context
    ) -> tuple[State, State, Context]:
        """One transport over the batches of all processes: each solves the same problem and keeps its own data."""
        all0, all1, whole = join(space, [b[:3] for b in batches])
        start = sum(batch_size(b[0]) for b in batches[:rank])
        mine = torch.arange(start, start + batch_size(x1))
        with seeded(batches[0][3]):  # all of it on the processor
            paired, _, after = self._pair(space.bind(whole), all0, all1, whole)
        x0 = own(take(paired, mine), x0)
        if "weight" not in after.cond:
            return x0, x1, context
        weight = after.cond["weight"][mine].to(context.mask.device)
        return x0, x1, replace(context, cond={**context.cond, "weight": weight})


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _members(group: Tensor) -> list[Tensor]:
    """The samples of each group."""
    sizes = group.bincount().tolist()
    return list(group.argsort(stable=True).split(sizes))


def _apart(condition: Tensor) -> Tensor:
    """Squared distances between the conditions of samples, ``(B, B)``."""
    rows = condition.reshape(len(condition), -1).to(torch.get_default_dtype())
    return (rows[:, None] - rows[None, :]).square().sum(-1)
