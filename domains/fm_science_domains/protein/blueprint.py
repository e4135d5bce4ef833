"""Blueprints: which residues of a chain should be helix, strand or coil, and which strands should be paired.

A blueprint is written with the letters of DSSP, each with a count before it if it repeats: ``3L8E4L8E4L12H3L`` is a
hairpin and a helix, and with the sheet ``1-2a`` its strands are paired. Without one, a new chain follows a real chain
of similar length, whose loops are lengthened or shortened to the requested length: helices and strands keep theirs,
since hydrogen bonds fix it, and relatives differ in their loops.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.errors import OptionError

from . import sheets
from .data import Structures
from .geometry import COIL, HELIX, OPEN, STRAND

KINDS = {COIL: "LCTSP-", HELIX: "HGI", STRAND: "EB", OPEN: "X"}  # the letters of each kind
NEAREST = 32  # real chains, the nearest in length, of which one is followed
CLOSEST = 5  # chains among which one is chosen if shares are requested
TURN = 2  # residues of the shortest loop between two helices or strands


@dataclass(frozen=True, eq=False)
class Blueprint:
    """The conditions of a chain.

    Attributes:
        kinds: ``(L,)`` int64, the kind of each residue: coil 0, helix 1, strand 2, or -1, open.
        pairs: ``(P, 3)`` int64, the strands that pair, as :func:`~.sheets.pairs`; none: not stated.
    """

    kinds: Tensor
    pairs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    def sheet(self) -> Tensor:
        """(L, L) int8: the condition of each pair of residues, as :func:`~.sheets.condition`."""
        return sheets.unstated(len(self)) if self.pairs is None else sheets.condition(self.kinds, self.pairs)


def free(length: int) -> Blueprint:
    """A chain without conditions except its ``length``."""
    return Blueprint(torch.full((length,), OPEN))


def parse(text: str, sheet: str | None = None) -> Blueprint:
    """The blueprint ``text``, such as ``3L8E4L8E4L12H3L`` where X leaves a residue open, and its ``sheet``.

    Raises:
        OptionError: for other letters, fewer than four residues, or a sheet that does not fit.
    """
    kinds = {letter: kind for kind, letters in KINDS.items() for letter in letters}
    words = re.findall(r"(\d*)(\D)", text)
    if "".join(n + letter for n, letter in words) != text or any(letter not in kinds for _, letter in words):
        raise OptionError(
            f"structure={text!r}: expected data, open, or a blueprint of H (helix), E (strand), L (coil) and X (left "
            "open) with counts before letters that repeat, such as 3L8E4L8E4L12H3L"
        )
    row = [kinds[letter] for n, letter in words for _ in range(int(n or 1))]
    if len(row) < 4:
        raise OptionError(f"structure={text!r} has {len(row)} residues; a chain has at least 4")
    found = torch.tensor(row)
    return Blueprint(found, None if sheet is None else sheets.parse(sheet, found))


def fitted(kinds: Tensor, length: int) -> Tensor:
    """(length,) the kinds (L,) of a chain after its loops were lengthened or shortened, residue by residue at random.

    A loop grows with a probability in proportion to its length, the two ends of the chain can always grow, and an inner
    loop keeps at least two residues. Only if no loop can shrink further do the longest helices and strands become
    shorter. The order and the number of helices and strands are unchanged.
    """
    values, counts = torch.unique_consecutive(kinds, return_counts=True)
    loop = (values == COIL) | (values == OPEN)
    for end in (0, -1):  # a chain may start and end with a loop of no residue
        if not loop[end]:
            values, counts, loop = (
                torch.cat([x, row] if end else [row, x])
                for x, row in ((values, values.new_tensor([COIL])), (counts, counts.new_zeros(1)), (loop, ~loop[:1]))
            )
    least = torch.where(loop, counts.clamp(max=TURN), 1)
    least[[0, -1]] = 0
    ends = torch.zeros_like(counts)
    ends[[0, -1]] = 1
    for _ in range(len(kinds), length):
        counts[torch.multinomial(((counts + ends) * loop).double(), 1)] += 1
    for _ in range(length, len(kinds)):
        spare = (counts - least) * loop
        if spare.any():
            counts[torch.multinomial(spare.double(), 1)] -= 1
        else:
            counts[counts.argmax()] -= 1
    return values.repeat_interleave(counts)


def alike(length: int, shares: Tensor | None, chains: Structures) -> Blueprint:
    """The blueprint of a random real chain of similar length, its loops fitted to ``length``.

    The chain is one of the 32 (or a tenth of the ``chains``, if that is less) that are nearest in length or, if
    ``shares`` (2,) of helix and strand are requested, one of the five of that tenth that are nearest to them. If all
    chains are more than a quarter longer or shorter, all residues are open.

    Raises:
        OptionError: for shares if no chain has a similar length.
    """
    apart = (chains.sizes - length).abs()
    ties = torch.rand(len(apart))  # chains of equal length in random order
    near = (apart + ties).argsort()[: max(1, len(chains) // 10)]
    near = near[apart[near] <= length / 4]
    if not len(near) and shares is not None:
        raise OptionError(f"helix= and strand=: no training chain has a similar length, {length}; give a blueprint")
    if not len(near):
        return free(length)
    if shares is None:
        near = near[:NEAREST]
    else:
        rows = [chains.structure(i) for i in near.tolist()]
        found = torch.tensor([[(row == kind).double().mean() for kind in (HELIX, STRAND)] for row in rows])
        near = near[(found - shares).abs().sum(1).argsort()[:CLOSEST]]
    kinds, pairs = chains.folded(int(near[torch.randint(len(near), (1,))]))
    return Blueprint(fitted(kinds, length), pairs)


def conditions(blueprints: Sequence[Blueprint]) -> tuple[Tensor, dict[str, Tensor]]:
    """The mask (B, N) of chains that follow ``blueprints``, and their conditions ``residue`` (B, N), ``structure``
    (B, N) and ``sheet`` (B, N, N)."""
    kinds = torch.nn.utils.rnn.pad_sequence([b.kinds for b in blueprints], batch_first=True, padding_value=OPEN)
    index = torch.arange(kinds.shape[1])
    mask = index < torch.tensor([len(b) for b in blueprints])[:, None]
    sheet = sheets.stacked([b.sheet() for b in blueprints])
    return mask, {"residue": index.expand(len(blueprints), -1).clone(), "structure": kinds, "sheet": sheet}
