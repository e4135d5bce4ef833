"""Attention among the points of a cloud: a network that knows no symmetry but that of order.

Every point looks at every other through dot products of learned features, computed by the fused kernel of PyTorch,
whose memory is linear in the number of points. Coordinates enter as waves of several lengths. Rotations are not
respected, so training shows each cloud in random poses. Time and conditions scale and shift the features of every block
(Peebles & Xie 2023); attention is that of Vaswani et al. (2017), without an order of the points (Lee et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.errors import OptionError
from fm_science.networks.base import Network, accept_older_weights
from fm_science.networks.sites import NodeEmbedding, remove_mean
from fm_science.state import Context

WAVES = 6  # waves along each axis, of lengths from eight spreads down to a quarter of one


class Block(nn.Module):
    """Attention and a transition, each scaled and shifted by what a point is told.

    Args:
        width: channels of a point.
        heads: of the attention.
        edges: features of a pair, which bias the attention.
    """

    def __init__(self, width: int, heads: int, edges: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.condition = nn.Linear(width, 4 * width)
        accept_older_weights(self, condition="told")
        self.look, self.seen = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Linear(edges, heads, bias=False) if edges else None
        self.think = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, condition: Tensor, allowed: Tensor | None, edges: Tensor | None) -> Tensor:
        """Features ``(B, N, width)``, updated; ``allowed`` ``(B, 1, 1, N)`` bool: which points may be looked at."""
        scale, shift, again, move = self.condition(F.silu(condition)).chunk(4, -1)
        q, k, v = self.look(_level(h) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.bias is not None and edges is not None:
            bias = self.bias(edges).permute(0, 3, 1, 2)
            allowed = bias if allowed is None else bias.masked_fill(~allowed, -math.inf)
        h = h + self.seen(F.scaled_dot_product_attention(q, k, v, allowed).transpose(1, 2).flatten(2))
        return h + self.think(_level(h) * (1 + again) + move)


def _level(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


class SetTransformer(Network):
    """The velocity of a cloud by attention. It commutes with permutations alone.

    Args:
        width: channels of a point, a multiple of ``heads``.
        layers: blocks.
        heads: of the attention.
        dim: coordinates of a point.
        scale: a typical size of the clouds, in their units.
        conditions: names of floats that points see, ``(B,)`` or ``(B, N)``.
        classes: how many values each label that points see has, by name.
        edges: features of a pair, which bias the attention; memory then grows with the square of the points.
        two_times: whether it is a flow map, which reads ``context.t_end``.

    Raises:
        ValueError: when the heads do not divide the width.
    """

    scale: Tensor
    waves: Tensor

    def __init__(
        self, width: int = 128, layers: int = 4, heads: int = 4, dim: int = 3, scale: float = 1.0,
        conditions: tuple[str, ...] = (), classes: Mapping[str, int] | None = None, edges: int = 0,
        two_times: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.two_times = two_times
        if width % heads:
            raise OptionError(f"SetTransformer(width={width}, heads={heads}): heads must divide the width.")
        self.register_buffer("scale", torch.tensor(float(scale)))
        lengths = torch.logspace(3, -2, WAVES, base=2.0)
        self.register_buffer("waves", 2 * math.pi / lengths, persistent=False)
        self.sites = NodeEmbedding(width, conditions, classes, two_times)
        self.place = nn.Linear(dim * (1 + 2 * WAVES), width)
        self.blocks = nn.ModuleList(Block(width, heads, edges) for _ in range(layers))
        self.out = nn.Linear(width, dim)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Positions ``(B, N, D)`` and times ``(B,)`` to velocities ``(B, N, D)``, without a mean unless sites are
        frozen."""
        return remove_mean(self.trunk(x, self.sites(t, self._alike(context)), context.mask)[0], context)

    def _alike(self, context: Context) -> Context:
        """The context of one site where all sites have the same conditions, so that it is worked out once a cloud."""
        names, cond = (*self.sites.conditions, *self.sites.classes), context.cond
        if context.free is not None or any(name not in cond or cond[name].ndim > 1 for name in names):
            return context
        return Context(context.mask[:, :1], {name: cond[name] for name in names}, t_end=context.t_end)

    def trunk(self, x: Tensor, h: Tensor, mask: Tensor, edges: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """How far each point moves ``(B, N, D)`` and its last
        features ``(B, N, width)``; from features ``h``, the mask ``(B, N)`` and features of pairs ``(B, N, N, e)``."""
        y = x / self.scale
        phase = (y[..., None] * self.waves).flatten(2)
        # the processor looks whether all points are real; an accelerator would have to be waited for
        allowed = None if mask.device.type == "cpu" and bool(mask.all()) else mask[:, None, None]
        condition, h = h, self.place(torch.cat([y, phase.sin(), phase.cos()], -1)) + h
        for block in self.blocks:
            h = block(h, condition, allowed, edges)
        return self.out(_level(h)) * self.scale, h
