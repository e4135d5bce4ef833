"""Motifs: residues of a known structure that every new chain holds, where they stand, with a new chain around them.

A *contig* says how the chain is put together, from its start to its end, in the words of Watson et al. 2023:
``10-20/A23-35/5/A48-51/15`` is 10 to 20 new residues, residues 23 to 35 of chain A of the motif's file, 5 new ones,
residues 48 to 51, and 15 new ones. For the engine the motif is frozen sites. To learn what surrounds a motif, some
batches of training hold stretches of their chains (Yim et al. 2024).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_science.couplings import Coupling
from fm_science.errors import OptionError
from fm_science.priors import Prior
from fm_science.spaces.base import Space
from fm_science.state import Context, State

from .blueprint import OPEN
from .files import BREAK, read_numbered
from .geometry import secondary
from .structure import NANOMETRE, Backbone, frames

LONGEST = 0.35  # of a chain: the longest stretch that is held in training; there are one or two


@dataclass(frozen=True, eq=False)
class Motif:
    """What new chains are put together from.

    Attributes:
        residues: the residues that are held, one after the other, in angstrom.
        kinds: ``(M,)`` their secondary structure in their own file, as ``geometry.secondary``.
        pieces: fewest and most residues of each piece of the chain, and whether they are held or new.
    """

    residues: Backbone
    kinds: Tensor
    pieces: tuple[tuple[int, int, bool], ...]

    def draw(self) -> Tensor:
        """(L,) a new chain: the number of the held residue at each site, -1 where the residue is new."""
        rows, held = [], 0
        for low, high, kept in self.pieces:
            if kept:
                rows.append(torch.arange(held, held + low))
                held += low
            else:
                rows.append(torch.full((int(torch.randint(low, high + 1, ())),), -1))
        return torch.cat(rows)

    def known(self, source: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The frames of chains whose sites are the held residues ``source`` (B, N), or new where that is -1; nm around
        the motif's centre. And that centre (3,), angstrom."""
        held = source >= 0
        rotations, places = frames(*self.residues.coords[:, :3].unbind(1))
        origin = places.mean(0)
        state = {
            "translations": torch.where(held[..., None], ((places - origin) / NANOMETRE)[source], 0.0),
            "rotations": torch.where(held[..., None, None], rotations[source], torch.eye(3)),
        }
        return state, origin

    def check(self, structure: Tensor | None) -> None:
        """Raises OptionError where a blueprint (L,) has not as many residues as the chains."""
        least, most = (sum(piece[k] for piece in self.pieces) for k in (0, 1))
        if structure is not None and not least == most == len(structure):
            raise OptionError(
                f"the blueprint has {len(structure)} residues, the chains of the contig {least} to {most}"
            )


def read(file: str, contig: str) -> Motif:
    """The motif of a contig such as ``10-20/A23-35/15`` from a PDB or mmCIF file.

    Raises:
        OptionError: for a contig that makes no sense, or asks for residues that the file does not have.
        UserError: for a file that cannot be read.
    """
    chains = read_numbered(file)
    pieces: list[tuple[int, int, bool]] = []
    coords, letters, kinds = [], "", []
    for word in contig.split("/"):
        new = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
        if new:
            low, high = int(new[1]), int(new[2] or new[1])
            if high < low:
                raise OptionError(f"contig={contig!r}: {word} ends before it begins")
            pieces.append((low, high, False))
            continue
        chain, held = _kept(word, contig, chains)
        pieces.append((held.stop - held.start, held.stop - held.start, True))
        coords.append(chain.coords[held])
        kinds.append(secondary(chain.coords)[held])
        letters += (chain.sequence or "X" * len(chain))[held]
    if not coords or not any(high for _, high, kept in pieces if not kept):
        raise OptionError(f"contig={contig!r}: expected residues to hold and new ones, such as 10-20/A23-35/15")
    return Motif(Backbone(torch.cat(coords), letters, source=file), torch.cat(kinds), tuple(pieces))


def _kept(word: str, contig: str, chains: dict[str, tuple[Backbone, list[str]]]) -> tuple[Backbone, slice]:
    """The chain that a word such as ``A23-35`` names, and which of its residues. Raises OptionError."""
    found = re.fullmatch(r"([A-Za-z]+)(-?\d+[A-Z]?)(?:-(-?\d+[A-Z]?))?", word)
    if not found:
        raise OptionError(f"contig={contig!r}: {word!r} is neither new residues (10, 10-20) nor held ones (A23-35)")
    if found[1] not in chains:
        raise OptionError(f"contig={contig!r}: the motif has no chain {found[1]}, but {', '.join(chains) or 'none'}")
    chain, numbers = chains[found[1]]
    for number in (found[2], found[3] or found[2]):
        if number not in numbers:
            raise OptionError(
                f"contig={contig!r}: chain {found[1]} has no residue {number} with N, CA and C; it has {numbers[0]} to "
                f"{numbers[-1]}"
            )
    first, last = (numbers.index(number) for number in (found[2], found[3] or found[2]))
    if last < first:
        raise OptionError(f"contig={contig!r}: {word} ends before it begins")
    held = chain.coords[first : last + 1]
    gaps = torch.linalg.vector_norm(held[1:, 0] - held[:-1, 2], dim=-1) > BREAK
    if gaps.any():
        k = first + int(gaps.nonzero()[0])
        raise OptionError(
            f"contig={contig!r}: the chain is broken between {numbers[k]} and {numbers[k + 1]}; hold the pieces apart, "
            "with new residues between them"
        )
    return chain, slice(first, last + 1)


def around(n: int, motif: Motif, structure: Tensor | None) -> Context:
    """``n`` chains around a motif. Their new residues follow a blueprint ``structure`` (L,), or are left open.

    The centre of the motif is the origin; ``cond["origin"]`` (n, 3) says where it was, in angstrom, and
    ``cond["sequence"]`` (n, N) has the letters of held residues as numbers, and G.
    """
    rows = [motif.draw() for _ in range(n)]
    source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
    held, index = source >= 0, torch.arange(source.shape[1])
    known, origin = motif.known(source)
    codes = torch.tensor([ord(letter) for letter in motif.residues.sequence or ""])
    cond = {
        "residue": index.expand(n, -1).clone(),
        "structure": torch.where(held, motif.kinds[source], OPEN if structure is None else structure),
        "origin": origin.expand(n, 3).clone(),
        "sequence": torch.where(held, codes[source], ord("G")),
    }
    mask = index < torch.tensor([len(row) for row in rows])[:, None]
    return Context(mask, cond, free=~held, known=known)


@dataclass(frozen=True)
class Scaffolding(Coupling):
    """Now and then a batch whose chains are partly given: one or two stretches of each are held, and the others start
    from noise around them, their secondary structure told or not.

    Args:
        prior: of the noise, which is drawn anew around the motif.
        share: of the batches.
    """

    prior: Prior
    share: float
    independent = True

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[Any, Any, Context]:
        if float(torch.rand(())) >= self.share:
            return x0, x1, context
        held = stretches(context.mask)
        middle = (x1["translations"] * held[..., None]).sum(1, keepdim=True) / held.sum(1)[:, None, None]
        x1 = {**x1, "translations": (x1["translations"] - middle) * context.mask[..., None]}
        secret = ~held & (torch.rand(context.size, 1, device=held.device) < 0.5)
        cond = {**context.cond, "structure": context.cond["structure"].masked_fill(secret, OPEN)}
        context = replace(context, cond=cond, free=~held, known=x1)
        space = space.bind(context)
        return self.prior.sample(space, context), x1, context


def stretches(mask: Tensor) -> Tensor:
    """(B, N) bool: one or two random stretches of each chain of ``mask`` (B, N), at least one residue each."""
    sizes, sites = mask.sum(1, keepdim=True), torch.arange(mask.shape[1], device=mask.device)
    held = torch.zeros_like(mask)
    for chance in (1.0, 0.5):
        draw = torch.rand(3, len(mask), 1, device=mask.device)
        length = (LONGEST * draw[0] * sizes).long().clamp_min(1)
        start = (draw[1] * (sizes - length + 1)).long()
        held |= (sites >= start) & (sites < start + length) & (draw[2] < chance)
    return held & mask
