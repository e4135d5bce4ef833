"""Optimal transport by its dual: two convex networks that play against each other.

Half the squared Wasserstein-2 distance of noise z and data x is E|z|²/2 + E|x|²/2 - min over convex f of E f(x) +
E f*(z), with the conjugate f*(z) = max over y of z . y - f(y). The second network g takes the part of f*: its gradient
is the y that f* looks for, and carries noise to data at least cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.flow import Flow
from fm_science.networks.convex import ConvexMap
from fm_science.objectives.base import Objective
from fm_science.objectives.flow_matching import FlowMatching
from fm_science.state import Context, State, leaves, rows


@dataclass(frozen=True)
class KantorovichDual(Objective):
    """max over f, min over g of -E f(x) - E[z . grad g(z) - f(grad g(z))] for a :class:`ConvexMap`, a degree of freedom
    (Makkuva, Taghvaei, Oh & Lee 2020, theorem 3.3): one step trains f, after ``inner`` steps that train g.

    Args:
        inner: steps of g for one of f, at least one. Raises ValueError otherwise.

    Raises:
        TypeError: when called, for a network that is no ConvexMap.
    """

    inner: int = 4
    independent = False
    independent_parts = ()

    def __post_init__(self) -> None:
        if self.inner < 1:
            raise ValueError(f"KantorovichDual(inner={self.inner}): expected at least one step.")

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``map``, what g lowers, and ``potential``, what f lowers; in training the one whose
        turn it is not is zero. Neither tells how far training is; the dual value does."""
        network = flow.network
        if not isinstance(network, ConvexMap):
            raise TypeError("KantorovichDual() trains a ConvexMap(features): two convex networks.")
        pairs = FlowMatching().pairs(flow, x1, context, x0)
        self.record_training(flow)
        z, x = (torch.cat([rows(leaf) for leaf in leaves(state)], 1) for state in (pairs.x0, pairs.x1))
        train_f = train_g = True
        if flow.training:
            train_f = int(network.seen) % (self.inner + 1) == self.inner
            train_g = not train_f
            network.seen += 1
        there = network.carry(z)
        zero = torch.zeros_like(z[:, 0])
        fixed = {name: p.detach() for name, p in network.f.named_parameters()}
        lowered = torch.func.functional_call(network.f, fixed, (there,)) - (z * there).sum(1) if train_g else zero
        raised = network.f(x) - network.f(there.detach()) if train_f else zero
        return {"map": lowered / z.shape[1], "potential": raised / z.shape[1]}
