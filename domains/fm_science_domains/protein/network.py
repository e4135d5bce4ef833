"""A network for protein backbones: from noisy residue frames to the frames of the folded chain.

A residue is a frame: the position x of its alpha carbon (nanometres) and a rotation R whose columns are the residue's
own axes. Residues talk by invariant point attention: every residue throws a few points into space, in its own axes, and
listens to the residues whose points fall near its own; it also reads the exact pose of its neighbours along the chain,
where the bonds are. Each block then turns and shifts every frame a little, in the frame's own axes. Pairs of residues
carry a second description (how far apart, in which direction, how turned), which biases the attention and is revised
on the way; it is where strands find their partners. Rotating or moving the input rotates and moves the output; a mirror
image is *not* followed, since proteins have a hand.

After Jumper et al. 2021 (suppl. algorithms 11, 22 and 23: triangle update, invariant point attention, backbone update)
and Yim et al. 2023 (frames as the state of a generative model). The point attention is written as one inner product of
longer vectors, -|q - k|²/2 = q.k - |q|²/2 - |k|²/2, so that it is one call of fused attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.domain import option
from fm_science.spaces.rotations import quaternion_matrix

from .features import STEPS, Layout, along, exact, poses, waves

REACH = 32  # residue offsets beyond this count as "far along the chain"


@dataclass(frozen=True)
class Network:
    """Size of the frame transformer."""

    width: int = option(128, "channels of a residue", low=8)
    pair: int = option(32, "channels of a pair of residues", low=4)
    blocks: int = option(6, "blocks of attention, transition and frame update", low=1)
    heads: int = option(4, "attention heads", low=1)
    channels: int = option(16, "scalar channels of a head's queries, keys and values", low=1)
    points: int = option(4, "points of a head's queries, keys and values", low=1)
    expand: int = option(3, "hidden width of a transition, in multiples of width", low=1)
    revise: int = option(3, "blocks between two revisions of the pairs", low=1)
    triangle: int = option(16, "channels of the triangle update of pairs; 0 leaves it out", low=0)
    bins: int = option(8, "Gaussian bins of a distance", low=2)


def faint(rows: int, width: int) -> nn.Embedding:
    """An embedding of labels that begins as a whisper beside the geometry."""
    layer = nn.Embedding(rows, width)
    nn.init.normal_(layer.weight, std=0.1)
    return layer


def small(layer: nn.Linear, gain: float = 0.1) -> nn.Linear:
    """Shrink a layer that ends a residual branch: the untrained network then nearly returns its input."""
    with torch.no_grad():
        layer.weight.mul_(gain)
        layer.bias.zero_()
    return layer


class PairInput(nn.Module):
    """The first description of pairs: chain offset, pose in x_t, pose in the previous prediction, and the time."""

    def __init__(self, o: Network, time: int) -> None:
        super().__init__()
        self.bins = o.bins
        pose = 2 * o.bins + 16
        self.offset = nn.Embedding(2 * REACH + 1, o.pair)
        self.kinds = faint(8, 2 * o.pair)
        self.now, self.then = nn.Linear(pose, o.pair), nn.Linear(pose, o.pair)
        self.time = nn.Linear(time, o.pair)
        self.out = nn.Linear(o.pair, o.pair)

    def forward(
        self, x: Tensor, rotations: Tensor, previous: Any, residue: Tensor, kinds: Tensor, time: Tensor
    ) -> Tensor:
        offset = (residue[:, None] - residue[:, :, None]).clamp(-REACH, REACH) + REACH
        with exact(x):
            now = poses(x, rotations, self.bins)
            if previous is not None:
                then = poses(previous["translations"].to(x.dtype), previous["rotations"].to(x.dtype), self.bins)
        left, right = self.kinds(kinds).chunk(2, -1)
        ends = left[:, :, None] + right[:, None] + self.time(time)[:, None, None]
        hidden = self.now(now) + self.offset(offset) + ends
        if previous is not None:
            hidden = hidden + self.then(then)
        return self.out(F.silu(hidden))


class PairUpdate(nn.Module):
    """Revise pairs from both residues, their present pose and, through third residues, from the other pairs."""

    def __init__(self, o: Network) -> None:
        super().__init__()
        self.triangle, self.bins = o.triangle, o.bins
        self.inner = nn.Linear(o.pair, o.pair)
        self.ends = nn.Linear(o.width, 2 * o.pair)
        self.pose = nn.Linear(2 * o.bins + 16, o.pair, bias=False)
        self.out = small(nn.Linear(o.pair, o.pair))
        if o.triangle:
            self.sides = nn.Linear(o.pair, 4 * o.triangle)
            self.level = nn.LayerNorm(2 * o.triangle)
            self.close = nn.Linear(2 * o.triangle, o.pair)

    def forward(self, w: Tensor, h: Tensor, x: Tensor, rotations: Tensor, mask: Tensor) -> Tensor:
        """What to add to the pairs, given the normalised pairs ``w``."""
        left, right = self.ends(h).chunk(2, -1)
        with exact(x):
            pose = poses(x, rotations, self.bins)
        hidden = self.inner(w) + left[:, :, None] + right[:, None] + self.pose(pose)
        if self.triangle:
            hidden = hidden + self.close(self.level(self.third(w, mask)))
        return self.out(F.silu(hidden))

    def third(self, w: Tensor, mask: Tensor) -> Tensor:
        """Sum over the third residue k of edge(i, k) edge(j, k) and of edge(k, i) edge(k, j)."""
        a, b, c, d = self.sides(w).permute(0, 3, 1, 2).chunk(4, 1)
        a, c = a * mask[:, None, None], c * mask[:, None, :, None]
        both = torch.cat([a @ b.mT, c.mT @ d], 1)
        return both.permute(0, 2, 3, 1) / 8.0  # a fixed scale: a sum over contacts should grow with their number


class PointAttention(nn.Module):
    """Invariant point attention, biased by pairs, with a second look that gathers the pairs themselves.

    Geometry (points, distances, softmax) is computed in at least single precision, also under autocast.
    """

    def __init__(self, o: Network) -> None:
        super().__init__()
        self.heads, self.channels, self.points = o.heads, o.channels, o.points
        self.norm = nn.LayerNorm(o.width)
        self.scalars = nn.Linear(o.width, 3 * o.heads * o.channels)
        self.places = nn.Linear(o.width, 3 * o.heads * o.points * 3)
        self.logits = nn.Linear(o.pair, 2 * o.heads)
        self.sharpness = nn.Parameter(torch.zeros(o.heads))
        self.out = small(nn.Linear(o.heads * (o.channels + 4 * o.points + o.pair), o.width))

    def forward(self, h: Tensor, w: Tensor, x: Tensor, rotations: Tensor, blocked: Tensor) -> Tensor:
        b, n, _ = h.shape
        u = self.norm(h)
        bias, look = self.logits(w).to(x.dtype).permute(0, 3, 1, 2).chunk(2, 1)
        scalars = self.scalars(u).to(x.dtype).view(b, n, 3, self.heads, self.channels).permute(2, 0, 3, 1, 4)
        local = self.places(u).to(x.dtype).view(b, n, -1, 3)
        with exact(x):
            gathered = self.attend(scalars, local, bias + blocked, x, rotations)
            seen = ((look + blocked).softmax(-1).transpose(1, 2) @ w.to(x.dtype)).flatten(2)
        return h + self.out(torch.cat([gathered, seen], -1).to(u.dtype))

    def attend(self, scalars: Tensor, local: Tensor, bias: Tensor, x: Tensor, rotations: Tensor) -> Tensor:
        b, n = x.shape[:2]
        placed = torch.einsum("bnij,bnpj->bnpi", rotations, local) + x[:, :, None]
        q, k, v = scalars
        qp, kp, vp = placed.view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        sharp = F.softplus(self.sharpness)[:, None, None] * math.sqrt(2 / (9 * self.points))
        one = q.new_ones(()).expand(b, self.heads, n, 1)
        query = torch.cat([q / math.sqrt(self.channels), sharp * qp, -0.5 * sharp * qp.square().sum(-1, True), one], -1)
        key = torch.cat([k, kp, one, -0.5 * sharp * kp.square().sum(-1, True)], -1)
        value = torch.cat([v, vp], -1)
        got = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0).transpose(1, 2)
        plain, points = got[..., : self.channels].flatten(2), got[..., self.channels :].reshape(b, n, -1, 3)
        points = torch.einsum("bnji,bnpj->bnpi", rotations, points - x[:, :, None])
        return torch.cat([plain, points.flatten(2), points.square().sum(-1).add(1e-8).sqrt()], -1)


class Block(nn.Module):
    """Attention, transition, and a small turn and shift of every frame in its own axes."""

    def __init__(self, o: Network) -> None:
        super().__init__()
        self.attention = PointAttention(o)
        self.chain = small(nn.Linear(12 * len(STEPS), o.width))
        self.norm = nn.LayerNorm(o.width)
        self.wide = nn.Linear(o.width, o.expand * o.width)
        self.narrow = small(nn.Linear(o.expand * o.width, o.width))
        self.move = small(nn.Linear(o.width, 6))

    def forward(
        self, h: Tensor, w: Tensor, x: Tensor, rotations: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor, Tensor]:
        with exact(x):
            chain = along(x, rotations, layout)
        h = self.attention(h, w, x, rotations, layout.blocked) + self.chain(chain)
        h = h + self.narrow(F.silu(self.wide(self.norm(h))))
        turn, shift = (self.move(h).to(x.dtype) * layout.moves).chunk(2, -1)
        with exact(x):
            x = x + (rotations @ shift[..., None])[..., 0]
            rotations = rotations @ quaternion_matrix(torch.cat([torch.ones_like(turn[..., :1]), turn], -1))
        return h, x, rotations


class FrameTransformer(nn.Module):
    """Predict the endpoint of a protein flow: noisy frames at time t to the frames at time 1.

    ``forward(x, t, context)``: ``x`` holds ``translations`` (B, N, 3) in nm and ``rotations`` (B, N, 3, 3); ``t`` is
    (B,); ``context.mask`` (B, N) marks real residues, ``context.cond["residue"]`` (B, N) holds their integer numbers
    along the chain (gaps are seen), ``context.previous`` is the last predicted endpoint or None.
    ``context.cond["structure"]`` (B, N), where given, says which residues are to be coil (0), helix (1), strand (2) or
    what they like (-1). Residues frozen by ``context.free`` stay where they are. Returns the same two keys; padded
    residues stand at the origin. Equivariant under rotations and translations, not under reflections.
    """

    self_conditioned = True  #: samplers hand each evaluation the endpoint predicted one step earlier

    def __init__(self, options: Network | None = None) -> None:
        super().__init__()
        o = options or Network()
        time = 64
        self.time = nn.Sequential(nn.Linear(32, time), nn.SiLU())
        self.kinds = faint(8, o.width)
        self.residue = nn.Linear(64 + time, o.width)
        self.pairs = PairInput(o, time)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o.blocks))
        self.revise = o.revise
        self.updates = nn.ModuleList(PairUpdate(o) for _ in range((o.blocks - 1) // o.revise))
        self.norms = nn.ModuleList(nn.LayerNorm(o.pair) for _ in range(len(self.updates) + 1))

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Any) -> dict[str, Tensor]:
        mask, place, rotations = context.mask, x["translations"], x["rotations"]
        kind = torch.promote_types(place.dtype, torch.float32)
        layout = Layout.of(context, kind)
        place, rotations, real = place.to(kind), rotations.to(kind), layout.real
        middle = (place * real[..., None]).sum(1, True) / real.sum(1)[:, None, None].clamp(min=1)
        place = (place - middle) * real[..., None]
        residue = context.cond["residue"]
        kinds, time = self.wanted(context), self.time(waves(t.to(kind), 32, 1000.0))
        h = self.residue(torch.cat([self.ends(residue, mask, kind), time[:, None].expand(-1, mask.shape[1], -1)], -1))
        h = h + self.kinds(kinds)
        z = self.pairs(place, rotations, context.previous, residue, kinds, time)
        w = self.norms[0](z)
        for i, block in enumerate(self.blocks):
            stage, first = divmod(i, self.revise)
            if stage and not first:
                z = z + self.updates[stage - 1](w, h, place, rotations, real)
                w = self.norms[stage](z)
            h, place, rotations = block(h, w, place, rotations, layout)
        eye = torch.eye(3, device=place.device, dtype=kind)
        translations = (place + middle) * real[..., None]
        return {"translations": translations, "rotations": torch.where(mask[..., None, None], rotations, eye)}

    @staticmethod
    def wanted(context: Any) -> Tensor:
        """What each residue is to be, (B, N): 0 if it is left open, then coil, helix, strand; 4 more if frozen."""
        structure, frozen = context.cond.get("structure"), context.frozen("nodes")
        kinds = torch.zeros_like(context.mask, dtype=torch.long) if structure is None else structure + 1
        return kinds if frozen is None else kinds + 4 * frozen

    @staticmethod
    def ends(residue: Tensor, mask: Tensor, kind: torch.dtype) -> Tensor:
        """Where a residue stands, counted from both ends of its chain: (B, N, 64)."""
        high, low = residue.masked_fill(~mask, -(10**6)).amax(1, True), residue.masked_fill(~mask, 10**6).amin(1, True)
        both = torch.stack([residue - low, high - residue], -1).to(kind) * mask[..., None]
        return waves(both / 64.0, 32, 64.0).flatten(-2)
