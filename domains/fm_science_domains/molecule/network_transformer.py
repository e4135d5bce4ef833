"""A plain transformer on atoms: it takes coordinates as features, and learns invariance from random poses.

Atoms are tokens without an order; a token holds the atom's coordinates, classes and time. Pairs (bond class, distance)
bias the attention of every block and are updated by it. It is equivariant under permutations and translations, but not
rotations, so training rotates every molecule at random. It costs little per parameter and is fast on accelerators.

After Vaswani et al. 2017 (attention), Peebles & Xie 2023 (time scales every block), Vonessen et al. 2025 (coordinates
as plain features).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.state import Context

from .network import Kinds, Network, Reader, Speaker, small


class Block(nn.Module):
    """Attention with a bias from pairs, a feed-forward layer, and an update of the pairs."""

    def __init__(self, o: Network) -> None:
        super().__init__()
        self.heads = o.heads
        self.norm, self.norm_f, self.norm_e = nn.LayerNorm(o.width), nn.LayerNorm(o.width), nn.LayerNorm(o.edge)
        self.three = nn.Linear(o.width, 3 * o.width)
        self.bias = nn.Linear(o.edge, o.heads)
        self.out = small(nn.Linear(o.width, o.width), 0.3)
        self.wide, self.narrow = nn.Linear(o.width, 4 * o.width), small(nn.Linear(4 * o.width, o.width), 0.3)
        self.ends = nn.Linear(o.width, 2 * o.edge)
        self.inner, self.revise = nn.Linear(o.edge, o.edge), small(nn.Linear(o.edge, o.edge), 0.3)

    def forward(self, h: Tensor, e: Tensor, blocked: Tensor) -> tuple[Tensor, Tensor]:
        b, n, width = h.shape
        u = self.norm_e(e)
        q, k, v = self.three(self.norm(h)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias(u).permute(0, 3, 1, 2) + blocked
        got = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        h = h + self.out(got.transpose(1, 2).reshape(b, n, width))
        h = h + self.narrow(F.gelu(self.wide(self.norm_f(h))))
        left, right = self.ends(h).chunk(2, -1)
        return h, e + self.revise(F.silu(self.inner(u) + left[:, :, None] + right[:, None]))


class Transformer(nn.Module):
    """Predicts the endpoint of a molecule's flow; see :class:`~.network_dense.Dense` for shapes. Not equivariant under
    rotations."""

    def __init__(self, o: Network, kinds: Kinds) -> None:
        super().__init__()
        self.self_conditioned = kinds.remembers
        self.reader, self.speaker = Reader(o, kinds), Speaker(o, kinds)
        self.place = nn.Linear(6 if kinds.remembers else 3, o.width, bias=False)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o.layers))
        self.move = nn.Sequential(nn.LayerNorm(o.width), small(nn.Linear(o.width, 3)))

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Context) -> dict[str, Tensor]:
        s = self.reader(x, t, context)
        middle = (s.x * s.real).sum(1, keepdim=True) / s.real.sum(1, keepdim=True).clamp_min(1)
        places = [s.x - middle, *([s.shift] if self.self_conditioned else [])]
        h, e = s.h + self.place(torch.cat(places, -1)), s.e
        blocked = (~context.mask)[:, None, None].to(s.x) * -1e9
        for block in self.blocks:
            h, e = block(h, e, blocked)
        return self.speaker(h, e, s.x + s.reach * self.move(h), s.real)
