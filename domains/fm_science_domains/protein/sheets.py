"""Sheets: which strands of a chain are paired, and whether they have the same direction.

The strands of a chain are numbered from 1 along it, by its secondary structure. A sheet is written as pairs of strands,
each with p (parallel: the same direction) or a (anti-parallel): ``1-2a,2-3a`` is a meander of three strands. A network
gets one number for each pair of residues: not stated, not paired, parallel, anti-parallel. In real chains, two strands
are a pair when hydrogen bonds bridge them (bridges after Kabsch & Sander 1983).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from fm_science.errors import OptionError

from .geometry import OPEN, SHORTEST, STRAND

UNSTATED, UNPAIRED, PARALLEL, ANTIPARALLEL = range(4)
LETTERS = {"p": PARALLEL, "a": ANTIPARALLEL}
BOND = -0.5  # kcal/mol; a hydrogen bond is stronger


def strands(kinds: Tensor) -> list[tuple[int, int]]:
    """First residue and end (one past the last) of each strand of a chain of ``kinds`` (L,), in order."""
    inside = torch.nn.functional.pad((kinds == STRAND).long(), (1, 1)).diff()
    return list(zip((inside > 0).nonzero()[:, 0].tolist(), (inside < 0).nonzero()[:, 0].tolist(), strict=True))


def numbers(kinds: Tensor) -> Tensor:
    """(L,) int64: the strand of each residue, counted from 1; 0 outside of strands."""
    inside = kinds == STRAND
    first = inside & ~torch.nn.functional.pad(inside, (1, 0))[:-1]
    return first.long().cumsum(0) * inside


def bridges(coords: Tensor) -> Tensor:
    """(L, L) int8, symmetric: PARALLEL or ANTIPARALLEL where hydrogen bonds of coords (L, 4, 3), angstrom, bridge two
    residues, else 0 (Kabsch & Sander 1983: residues i and j with their neighbours share two bonds in one of four
    patterns)."""
    length = len(coords)
    found = torch.zeros(length, length, dtype=torch.int8)
    if length < SHORTEST:
        return found
    try:
        from pydssp import get_hbond_map
    except ImportError as error:
        raise ImportError("sheets need pydssp: pip install 'fm-science[protein]'") from error
    bond = get_hbond_map(coords.detach().cpu().float()).mT > 0  # [i, j]: oxygen of i to nitrogen of j
    wide = torch.nn.functional.pad(bond, (1, 1, 1, 1))

    def at(i: int, j: int) -> Tensor:
        """[x, y] -> whether the oxygen of residue x + i is bonded to the nitrogen of residue y + j."""
        return wide[1 + i : 1 + i + length, 1 + j : 1 + j + length]

    along = at(-1, 0) & at(0, 1).mT
    across = (at(0, 0) & at(0, 0).mT) | (at(-1, 1) & at(-1, 1).mT)
    found[along | along.mT] = PARALLEL
    found[across] = ANTIPARALLEL
    return found


def pairs(coords: Tensor, kinds: Tensor) -> Tensor:
    """(P, 3) int64: first strand, second strand, PARALLEL or ANTIPARALLEL of the paired strands of a real chain; coords
    (L, 4, 3) in angstrom, kinds (L,). If bridges of both kinds join two strands, the majority decides.
    """
    number, found = numbers(kinds), bridges(coords)
    member = torch.nn.functional.one_hot(number).float()
    along, across = (member.T @ (found == sort).float() @ member for sort in (PARALLEL, ANTIPARALLEL))
    joined = (along + across).triu(1)
    joined[0] = 0
    first, second = joined.nonzero(as_tuple=True)
    sort = torch.where(along > across, PARALLEL, ANTIPARALLEL)[first, second]
    return torch.stack([first, second, sort], 1)


def condition(kinds: Tensor, pairs: Tensor) -> Tensor:
    """(L, L) int8, symmetric: the condition of each pair of residues of a chain of ``kinds`` (L,) whose strands are
    paired as in ``pairs`` (P, 3): residues of paired strands are PARALLEL or ANTIPARALLEL, other residues UNPAIRED,
    and pairs with open residues are UNSTATED."""
    number = numbers(kinds)
    table = torch.full((int(number.max()) + 1,) * 2, UNPAIRED, dtype=torch.int8)
    first, second, sort = pairs.unbind(1)
    table[first, second] = table[second, first] = sort.to(torch.int8)
    remove_mean = kinds != OPEN
    return table[number[:, None], number].where(remove_mean[:, None] & remove_mean, UNSTATED)


def stated(sheet: Tensor, kinds: Tensor) -> Tensor:
    """(P, 3) int64, the pairs of strands of a condition ``sheet`` (L, L): the inverse of :func:`condition`."""
    first = torch.tensor([start for start, _ in strands(kinds)], dtype=torch.long)
    between = sheet[first][:, first].long().triu(1)
    i, j = (between >= PARALLEL).nonzero(as_tuple=True)
    return torch.stack([i + 1, j + 1, between[i, j]], 1)


def unstated(length: int) -> Tensor:
    """(length, length) int8: nothing is stated."""
    return torch.full((length, length), UNSTATED, dtype=torch.int8)


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """(B, N, N) int8 of conditions (L, L) of several chains; padding is unstated."""
    longest = max(len(row) for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row)) * 2, value=UNSTATED) for row in rows])


def parse(text: str, kinds: Tensor) -> Tensor:
    """(P, 3) int64 pairs of strands of a blueprint ``kinds`` (L,) from a text such as ``1-2a,2-3a``.

    Raises:
        OptionError: for other texts, strands that the blueprint does not have, and pairs that are given twice.
    """
    count = len(strands(kinds))
    rows: dict[tuple[int, int], int] = {}
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d+)-(\d+)([ap])\s*", word)
        if not found:
            raise OptionError(
                f"sheet={text!r}: expected pairs of strands with a (anti-parallel) or p (parallel), such as 1-2a,2-3a; "
                f"{word!r} is none"
            )
        first, second = sorted((int(found[1]), int(found[2])))
        if not 1 <= first < second <= count:
            raise OptionError(f"sheet={text!r}: {word!r} is no pair of the {count} strands of the blueprint")
        if (first, second) in rows:
            raise OptionError(f"sheet={text!r}: strands {first} and {second} are paired twice")
        rows[first, second] = LETTERS[found[3]]
    return torch.tensor([[*ends, sort] for ends, sort in rows.items()])


def written(pairs: Tensor) -> str:
    """The text of pairs (P, 3), such as ``1-2a,2-3a``: the input of :func:`parse`."""
    letters = {sort: letter for letter, sort in LETTERS.items()}
    return ",".join(f"{first}-{second}{letters[sort]}" for first, second, sort in pairs.tolist())
