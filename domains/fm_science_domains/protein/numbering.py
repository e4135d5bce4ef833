"""Numbers of residues around a motif: the motif keeps its own, and new residues are numbered from them.

New residues before the motif count down from its first number, those between and after it count up. So there must be
enough numbers between two pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from fm_science.errors import OptionError

LOWEST, HIGHEST = -999, 9999  # the range of the columns of a PDB file


def check(pieces: Sequence[tuple[int, int, bool]], chain: str, numbers: Sequence[str]) -> None:
    """Raises OptionError if the numbers of fixed residues cannot be kept.

    Args:
        pieces: fewest and most residues of each piece of the chain, and whether they are fixed or new.
        chain: the name of the chain of the fixed residues.
        numbers: theirs, in order; none if they are of several chains.
    """
    if not numbers:
        raise OptionError("numbering=kept: the motif's residues are of several chains, whose numbers may collide")
    if any(not number.removeprefix("-").isdecimal() for number in numbers):
        raise OptionError("numbering=kept: residues with insertion codes leave no room to count on; use numbering=new")
    known = [int(number) for number in numbers]
    for before, after in pairwise(known):
        if after <= before:
            raise OptionError(f"numbering=kept: {chain}{after} comes after {chain}{before}; use numbering=new")
    room, fixed = 0, 0  # most new residues since the last fixed one, and the number of fixed ones before
    for _, high, kept in [*pieces, (0, 0, True)]:
        if not kept:
            room += high
            continue
        if (not fixed and known[0] - room < LOWEST) or (fixed == len(known) and known[-1] + room > HIGHEST):
            raise OptionError("numbering=kept: numbers would leave -999 to 9999, which files hold; use numbering=new")
        if 0 < fixed < len(known) and known[fixed] - known[fixed - 1] - 1 < room:
            raise OptionError(
                f"numbering=kept: {room} new residues do not fit between {chain}{known[fixed - 1]} and "
                f"{chain}{known[fixed]}; use fewer, or numbering=new"
            )
        fixed, room = fixed + high, 0


def continued(source: Tensor, numbers: Sequence[str]) -> list[str]:
    """The numbers of the residues of a chain whose sites are the fixed residues ``source`` (L,), -1 where new."""
    row = source.tolist()
    first = next(i for i, k in enumerate(row) if k >= 0)
    last, found = int(numbers[row[first]]) - first - 1, []
    for k in row:
        last = int(numbers[k]) if k >= 0 else last + 1
        found.append(str(last))
    return found
