"""An equivariant network on all pairs of atoms, small and fast on a CPU.

An atom has scalars and a few vectors, a pair has scalars. In each round every pair computes a message from its bond,
its distance and the dot products of the vectors of its ends; atoms gather messages by attention with weights from the
messages; pairs add their message to their state; vectors sum up differences to the neighbours and vectors of the
neighbours; and atoms move along their vectors. So positions, atoms and bonds are refined together, and each round uses
the distances after the round before.

Scalars depend only on distances and dot products, and vectors rotate with the molecule: the network commutes
with rotations, translations and permutations whatever its weights. Cross products of vectors make axial vectors that
do not change sign under reflections; with them (the option ``chiral``) it distinguishes left from right.

After Satorras, Hoogeboom & Welling 2021 (positions that move along differences), Jing et al. 2021 (scalars and
vectors), Vignac et al. 2023 and Le et al. 2024 (pairs with a state), Irwin et al. 2025 (several sets of vectors whose
dot products reach the messages).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.state import Context

from .network import Kinds, Network, Radial, Reader, Scene, Speaker, arrows, small

DOTS = 8  # dot products of the vectors of a pair
CROWD = 6.0  # divisor of a sum over neighbours: a fixed number, since valence is a count


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products of vectors ``(..., 3, channels)``; along this axis several times as fast as torch's."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-2), b.unbind(-2)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -2)


def added(x: Tensor, layer: nn.Linear, y: Tensor) -> Tensor:
    """``x + layer(y)`` in one pass over memory: pairs are many, and their layers narrow."""
    out = torch.addmm(x.flatten(0, -2), y.flatten(0, -2), layer.weight.t()).view(x.shape)
    return out if layer.bias is None else out + layer.bias


class Vectors(nn.Module):
    """Vectors of an atom, ``(B, N, 3, channels)``: their input, and their output.

    Args:
        width: channels of an atom.
        count: vectors of an atom.
        chiral: whether cross products are used.
    """

    def __init__(self, width: int, count: int, chiral: bool) -> None:
        super().__init__()
        self.count, self.chiral = count, chiral
        self.sides = nn.Linear(count, (4 if chiral else 2) * count, bias=False)
        self.listen = nn.Sequential(nn.Linear(width + 2 * count, 2 * width), nn.SiLU())
        self.answer = small(nn.Linear(2 * width, width))
        self.gates = nn.Linear(2 * width, (3 if chiral else 2) * count)
        self.mix = nn.Linear(count, count, bias=False)

    def forward(self, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What to add to the features, the new vectors, and the displacement ``(B, N, 3)``."""
        v = v / (1 + v.square().mean((-2, -1), keepdim=True)).sqrt()
        a, b, *crossed = self.sides(v).chunk(4 if self.chiral else 2, -1)
        seen = torch.cat([(a * b).sum(-2), (a.square().sum(-2) + 1e-6).sqrt()], -1)
        hidden = self.listen(torch.cat([h, seen], -1))
        keep, move, *turn = self.gates(hidden)[..., None, :].chunk(3 if self.chiral else 2, -1)
        v = v + self.mix(v) * keep
        if self.chiral:
            v = v + cross(*crossed) * turn[0]
        return self.answer(hidden), v, (v * move).sum(-1) / self.count**0.5


class Layer(nn.Module):
    """One round of messages."""

    def __init__(self, o: Network) -> None:
        super().__init__()
        self.heads = o.heads
        self.norm, self.norm_e, self.norm_m = nn.LayerNorm(o.width), nn.LayerNorm(o.edge), nn.LayerNorm(o.width)
        self.receiver, self.sender = nn.Linear(o.width, o.edge), nn.Linear(o.width, o.edge, bias=False)
        self.point = nn.Linear(o.vectors, 2 * DOTS, bias=False)
        self.pair = nn.Linear(o.edge + o.radial + DOTS, o.edge, bias=False)
        self.message = nn.Linear(o.edge, o.edge)
        self.look = nn.Linear(o.edge, o.heads + o.vectors)
        self.value = nn.Linear(o.width, o.width)
        self.value_v = nn.Linear(o.vectors, o.vectors, bias=False)
        self.heard = small(nn.Linear(o.width + o.edge, o.width), 0.3)
        self.remember = small(nn.Linear(o.edge, o.edge, bias=False), 0.3)
        self.vectors = Vectors(o.width, o.vectors, o.chiral)

    def forward(
        self, h: Tensor, v: Tensor, e: Tensor, way: Tensor, length: Tensor, bumps: Tensor, scene: Scene
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features, vectors, pairs, and how far each atom moves, ``(B, N, 3)`` in units of the reach."""
        u = self.norm(h)
        left, right = self.point(v).chunk(2, -1)
        dots = torch.einsum("bixk,bjxk->bijk", left, right)
        ends = self.receiver(u)[:, :, None] + self.sender(u)[:, None]
        m = added(ends, self.pair, torch.cat([self.norm_e(e), bumps, dots], -1))
        m = F.silu(self.message(F.silu(m)))
        look = self.look(m)
        pairs = scene.pairs[:, None]
        weight = look[..., : self.heads].permute(0, 3, 1, 2).masked_fill(pairs == 0, -1e9).softmax(-1) * pairs
        heard, gathered = self._listen(u, v, weight)
        pull = look[..., self.heads :] * (scene.pairs / (1 + length))[..., None]
        v = v + gathered + torch.einsum("bijc,bijx->bixc", pull, way) / CROWD
        said = (scene.pairs[:, :, None] @ m).squeeze(2) / CROWD
        h = h + self.heard(torch.cat([heard, said], -1))
        message, v, moved = self.vectors(self.norm_m(h), v)
        return h + message, v, added(e, self.remember, m), moved

    def _listen(self, u: Tensor, v: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the heads: scalars ``(B, N, width)`` and vectors ``(B, N, 3, vectors)``."""
        b, n, _ = u.shape
        values = self.value(u).view(b, n, self.heads, -1)
        arrows = self.value_v(v).view(b, n, 3, -1, self.heads).permute(0, 1, 4, 2, 3).flatten(3)
        got = weight @ torch.cat([values, arrows], -1).transpose(1, 2)
        got = got.transpose(1, 2)
        width = values.shape[-1]
        vectors = got[..., width:].unflatten(-1, (3, -1)).permute(0, 1, 3, 4, 2).flatten(3)
        return got[..., :width].flatten(2), vectors


class Dense(nn.Module):
    """Predicts the endpoint of a molecule's flow: positions of the finished molecule and logits of its classes.

    ``forward(x, t, context)``: ``x`` has ``positions`` (B, N, 3) angstrom, one-hot ``atoms`` (B, N, A), ``bonds``
    (B, N, N, K) and ``charges`` (B, N, C); the output has the same keys and shapes.
    """

    def __init__(self, o: Network, kinds: Kinds) -> None:
        super().__init__()
        self.self_conditioned = kinds.remembers
        self.reader, self.speaker, self.radial = Reader(o, kinds), Speaker(o, kinds), Radial(o.radial)
        self.first = nn.Linear(o.edge, o.vectors)
        self.before = nn.Parameter(0.5 * torch.randn(o.vectors)) if kinds.remembers else None
        self.layers = nn.ModuleList(Layer(o) for _ in range(o.layers))

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Context) -> dict[str, Tensor]:
        s = self.reader(x, t, context)
        h, e, place = s.h * s.real, s.e, s.x
        way, length = s.way, s.length
        v = torch.einsum("bijc,bijx->bixc", self.first(F.silu(e)) * (s.pairs / (1 + length))[..., None], way) / CROWD
        if self.before is not None:
            v = v + (s.shift / s.reach)[..., None] * self.before
        for k, layer in enumerate(self.layers):
            if k:
                way, length = arrows(place)
            h, v, e, moved = layer(h, v, e, way, length, self.radial(length), s)
            place = place + s.reach * moved * s.real
        return self.speaker(h, e, place, s.real)
