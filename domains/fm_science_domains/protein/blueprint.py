"""Blueprints: which residues of a chain are to be helix, strand or coil.

A blueprint is written with the letters of DSSP, each with a count before it where it repeats: ``3L8E4L8E4L12H3L`` is a
hairpin and a helix. Without one, a new chain follows that of a real chain of like length, stretched to its own.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from fm_science.errors import OptionError

from .data import Structures

OPEN = -1  # the kind of a residue that may become anything
KINDS = {0: "LCTSP-", 1: "HGI", 2: "EB", OPEN: "X"}  # letters of coil, helix and strand, as ``geometry.secondary``
CLOSEST = 5  # chains among which one is picked when shares are asked for


def parse(text: str) -> Tensor:
    """(L,) int64: the kind of each residue of a blueprint such as ``3L8E4L8E4L12H3L``; X leaves a residue open.

    Raises:
        OptionError: for other letters, or fewer than four residues.
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
    return torch.tensor(row)


def stretched(kinds: Tensor, length: int) -> Tensor:
    """(length,) the kinds (L,) of a chain, evenly repeated or left out to fit a chain of another length."""
    return kinds[((torch.arange(length) + 0.5) * len(kinds) / length).long()]


def alike(length: int, shares: Tensor | None, chains: Structures) -> Tensor:
    """(length,) the kinds of a random real chain of like length, stretched to ``length``.

    The chain is one of the tenth of the ``chains`` that are nearest in length and, where ``shares`` (2,) of helix and
    strand are asked for, one of the five of those that come nearest to them. Where all chains are more than a quarter
    longer or shorter, all residues are left open.

    Raises:
        OptionError: for shares where no chain is of like length.
    """
    near = (chains.sizes - length).abs().argsort()[: max(1, len(chains) // 10)]
    near = near[(chains.sizes[near] - length).abs() <= length / 4]
    if not len(near) and shares is not None:
        raise OptionError(f"helix= and strand=: no training chain is of like length, {length}; give a blueprint")
    if not len(near):
        return torch.full((length,), OPEN)
    if shares is not None:
        rows = [chains.structure(i) for i in near.tolist()]
        found = torch.tensor([[(row == kind).double().mean() for kind in (1, 2)] for row in rows])
        near = near[(found - shares).abs().sum(1).argsort()[:CLOSEST]]
    picked = near[torch.randint(len(near), (1,))]
    return stretched(chains.structure(int(picked)), length)
