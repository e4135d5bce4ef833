"""A velocity in blocks: each stretch of time has a network of its own.

Blocks can be trained one after another, each on what those before it have made of the data, as
:class:`~fm_science.objectives.JKO` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fm_science.networks.base import Network, NetworkFunction, as_network
from fm_science.state import Context, State, expand_like, tree_map


class Blocks(Network):
    """K velocity fields one after another, from the data at t = 1 (block 0) to the noise at t = 0.

    Block k moves from t = 1 - k / K to t = 1 - (k + 1) / K. It tells a velocity of its own time s in [0, 1] from data
    to noise, and is walked at the pace 2 sin²(pi s): at rest where blocks meet, so that the velocity is continuous in
    time and solvers keep their order. The pace integrates to one: a block that tells v moves along v for one unit.

    Args:
        blocks: velocity fields ``(x, s, context) -> tangent``.
    """

    seen: Tensor

    def __init__(self, blocks: Sequence[NetworkFunction]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(as_network(block) for block in blocks)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # training steps so far

    def block(self, k: int, x: State, t: Tensor, context: Context) -> State:
        """What block ``k`` tells at a time ``t`` ``(B,)`` of its own stretch, both ends included."""
        count = len(self.blocks)
        s = (1 - t) * count - k
        pace = -2 * count * torch.sin(math.pi * s).square()
        return tree_map(lambda leaf: expand_like(pace, leaf) * leaf, self.blocks[k](x, s, context))

    def forward(self, x: State, t: Tensor, context: Context) -> State:
        count = len(self.blocks)
        number = ((1 - t.detach()) * count).floor().clamp(0, count - 1)
        first, *others = sorted({int(n) for n in number.tolist()})
        found = self.block(first, x, t, context)
        for k in others:
            found = _where(number == k, self.block(k, x, t, context), found)
        return found


def _where(rows: Tensor, new: State, old: State) -> State:
    """``new`` in some rows ``(B,)`` of a batch, ``old`` in the others."""
    return tree_map(lambda a, b: torch.where(expand_like(rows, a), a, b), new, old)
