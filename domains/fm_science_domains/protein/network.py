"""A network for protein backbones: from noisy residue frames to the frames of the folded chain.

A residue is a frame: the position x of its alpha carbon (nanometres) and a rotation R whose columns are the residue's
own axes. Residues exchange features by invariant point attention (:mod:`.attention`), biased by features of each pair
(:mod:`.pairs`); each also gets the exact pose of its neighbours along the chain and, in the later blocks, the strain of
its bonds (:mod:`.strain`). Each block then rotates and translates every frame a little, in the frame's own axes.
Towards the end of the path there is little left to move, so the moves shrink with 1 - t: the endpoint then becomes as
exact as its input. The output rotates and translates with the input, but it is *not* equivariant under reflections,
since proteins are chiral.

After Jumper et al. 2021 (suppl. algorithms 22 and 23: invariant point attention, backbone update) and Yim et al. 2023
(frames as the state of a generative model).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_science.domain import option
from fm_science.spaces.rotations import quaternion_matrix
from fm_science.state import Context

from .attention import GatheringAttention, PointAttention
from .features import STEPS, Layout, along, exact, waves
from .layers import scaled, small_embedding
from .pairs import KINDS, PairBiases, PairInput
from .pairs_revised import PairDescription, PairUpdate
from .strain import FEATURES, peptide_strain

TIME = 64  # features of the time
LEAST = 0.02  # moves shrink with 1 - t down to this share


@dataclass(frozen=True)
class Network:
    """Size of the frame transformer, and which of its parts are used."""

    width: int = option(128, "channels of a residue", low=8, high=16_384)
    pair: int = option(48, "channels of a pair of residues", low=4, high=16_384)
    blocks: int = option(6, "blocks of attention, transition and frame update", low=1, high=1_000)
    heads: int = option(4, "attention heads", low=1)
    channels: int = option(16, "scalar channels of a head's queries, keys and values", low=1)
    points: int = option(4, "points of a head's queries, keys and values", low=1)
    expand: int = option(3, "hidden width of a transition, in multiples of width", low=1)
    bins: int = option(8, "Gaussian bins of a distance", low=2)
    pairs: str = option(
        "once", "once: pairs are read once, for biases of attention; revised: they have a description that is revised",
        choices=("once", "revised"), before="revised",
    )  # fmt: skip
    revise: int = option(0, "blocks between two passes over the pairs, or two revisions; 0: one pass", low=0)
    triangle: int = option(16, "channels of the triangle update of revised pairs; 0 leaves it out", low=0)
    strain: float = option(
        0.5, "share of the blocks, the last ones, that get the strain of bonds", low=0, high=1, before=0.0
    )  # fmt: skip
    shrink: bool = option(True, "whether moves shrink with 1 - t", before=False)


class Block(nn.Module):
    """Attention, transition, and a small rotation and translation of every frame in its own axes."""

    def __init__(self, o: Network, strained: bool) -> None:
        super().__init__()
        self.attention = PointAttention(o) if o.pairs == "once" else GatheringAttention(o)
        self.chain = scaled(nn.Linear(12 * len(STEPS), o.width))
        self.strain = scaled(nn.Linear(FEATURES, o.width), 0.5) if strained else None
        self.norm = nn.LayerNorm(o.width)
        self.wide = nn.Linear(o.width, o.expand * o.width)
        self.narrow = scaled(nn.Linear(o.expand * o.width, o.width))
        self.move = scaled(nn.Linear(o.width, 6))
        self.gate = scaled(nn.Linear(o.width, 2), 0.0) if strained else None  # strained noise diverges under any force

    def forward(
        self, h: Tensor, pairs: Tensor, x: Tensor, rotations: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Residues (B, N, width) and frames after the block. ``pairs`` are biases (B, heads, N, N), or the normalised
        description (B, N, N, pair) of pairs that are revised."""
        if isinstance(self.attention, GatheringAttention):
            h = self.attention.look(h, pairs, layout.blocked, x, rotations)
        else:
            h = self.attention(h, pairs, x, rotations)
        with exact(x):
            chain = along(x, rotations, layout)
            strain = peptide_strain(x, rotations, layout.bonded) if self.strain is not None else None
        h = h + self.chain(chain)
        if strain is not None and self.strain is not None:
            h = h + self.strain(strain.features)
        h = h + self.narrow(F.silu(self.wide(self.norm(h))))
        turn, shift = (self.move(h).to(x.dtype) * layout.moves).chunk(2, -1)
        if strain is not None and self.gate is not None:
            gate = self.gate(h).to(x.dtype) * (layout.moves > 0)
            shift = shift + gate[..., :1] * strain.force
            turn = turn + 0.5 * gate[..., 1:] * strain.torque  # half the angle, as in quaternions
        with exact(x):
            x = x + (rotations @ shift[..., None])[..., 0]
            rotations = rotations @ quaternion_matrix(torch.cat([torch.ones_like(turn[..., :1]), turn], -1))
        return h, x, rotations


class FrameTransformer(nn.Module):
    """Predict the endpoint of a protein flow: noisy frames at time t to the frames at time 1.

    ``forward(x, t, context)``: ``x`` has ``translations`` (B, N, 3) in nm and ``rotations`` (B, N, 3, 3); ``t`` is
    (B,); ``context.mask`` (B, N) marks real residues, ``context.cond["residue"]`` (B, N) has their integer numbers
    along the chain (with gaps), ``context.previous`` is the last predicted endpoint or None.
    ``context.cond["structure"]`` (B, N), if given, has the requested classes of residues: coil (0), helix (1), strand
    (2) or anything (-1), and ``context.cond["sheet"]`` (B, N, N) which residues are requested to be paired in a sheet:
    not stated (0 or -1), not paired (1), parallel (2), anti-parallel (3). Residues frozen by ``context.free`` do not
    move. Returns the same two keys; padded residues are at the origin. Equivariant under rotations and
    translations, not under reflections.
    """

    self_conditioned = True  #: samplers give each evaluation the endpoint predicted one step earlier

    def __init__(self, options: Network | None = None) -> None:
        super().__init__()
        o = options or Network()
        self.shrink, self.revise = o.shrink, o.revise or o.blocks
        self.time = nn.Sequential(nn.Linear(32, TIME), nn.SiLU())
        self.kinds = small_embedding(KINDS, o.width)
        self.residue = nn.Linear(64 + TIME, o.width)
        first_strained = o.blocks - round(o.strain * o.blocks)
        self.blocks = nn.ModuleList(Block(o, i >= first_strained) for i in range(o.blocks))
        stages = range(0, o.blocks, self.revise)
        self.once = o.pairs == "once"
        if self.once:
            groups = (min(self.revise, o.blocks - i) for i in stages)
            self.pairs: nn.Module = nn.ModuleList(PairBiases(o, TIME, n, first=i == 0) for i, n in enumerate(groups))
        else:
            self.pairs = PairDescription(o, TIME)
            self.updates = nn.ModuleList(PairUpdate(o) for _ in stages[1:])
            self.norms = nn.ModuleList(nn.LayerNorm(o.pair) for _ in stages)

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Context) -> dict[str, Tensor]:
        mask, place, rotations = context.mask, x["translations"], x["rotations"]
        kind = torch.promote_types(place.dtype, torch.float32)
        layout = Layout.of(context, kind)
        if self.shrink:
            layout = layout.shrunk((1 - t).clamp(min=LEAST))
        place, rotations, real = place.to(kind), rotations.to(kind), layout.real
        middle = (place * real[..., None]).sum(1, True) / real.sum(1)[:, None, None].clamp(min=1)
        place = (place - middle) * real[..., None]
        given = self.pair_input(t.to(kind), context)
        ends = self.chain_ends(given.residue, mask, kind)
        h = self.residue(torch.cat([ends, given.time[:, None].expand(-1, mask.shape[1], -1)], -1))
        h = h + self.kinds(given.kinds)
        trunk = self._with_biases if self.once else self._with_revisions
        place, rotations = trunk(h, place, rotations, given, layout)
        eye = torch.eye(3, device=place.device, dtype=kind)
        translations = (place + middle) * real[..., None]
        return {"translations": translations, "rotations": torch.where(mask[..., None, None], rotations, eye)}

    def _with_biases(
        self, h: Tensor, x: Tensor, rotations: Tensor, given: PairInput, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        stages, biases = list(self.pairs.children()), list[Tensor]()
        for i, block in enumerate(self.blocks):
            if not biases:
                biases = list(stages[i // self.revise](x, rotations, given, h, layout.blocked))
            h, x, rotations = block(h, biases.pop(0), x, rotations, layout)
        return x, rotations

    def _with_revisions(
        self, h: Tensor, x: Tensor, rotations: Tensor, given: PairInput, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        z = self.pairs(x, rotations, given)
        w = self.norms[0](z)
        for i, block in enumerate(self.blocks):
            stage, first = divmod(i, self.revise)
            if stage and not first:
                z = z + self.updates[stage - 1](w, h, x, rotations, layout.real)
                w = self.norms[stage](z)
            h, x, rotations = block(h, w, x, rotations, layout)
        return x, rotations

    def pair_input(self, t: Tensor, context: Context) -> PairInput:
        """The input of the batch for its residues and pairs."""
        structure, frozen = context.cond.get("structure"), context.frozen("nodes")
        kinds = torch.zeros_like(context.mask, dtype=torch.long) if structure is None else structure + 1
        kinds = kinds if frozen is None else kinds + 4 * frozen
        previous: dict[str, Tensor] | None = context.previous  # a state of frames
        return PairInput(
            previous, context.cond["residue"], kinds, context.cond.get("sheet"), self.time(waves(t, 32, 1000.0))
        )

    @staticmethod
    def chain_ends(residue: Tensor, mask: Tensor, kind: torch.dtype) -> Tensor:
        """The position of a residue, counted from both ends of its chain: (B, N, 64)."""
        high, low = residue.masked_fill(~mask, -(10**6)).amax(1, True), residue.masked_fill(~mask, 10**6).amin(1, True)
        both = torch.stack([residue - low, high - residue], -1).to(kind) * mask[..., None]
        return waves(both / 64.0, 32, 64.0).flatten(-2)
