"""Variants of a fold: a known chain as the state that new chains start from.

The frames of the chain are moved back towards noise and integrated from there again, conditioned on the secondary
structure and the sheets of the chain. The centre of a variant is the centre of its chain, and the file of a variant
keeps the name of the chain and the numbers of its residues. Its residues are not those of the chain: the backbone has
moved, and its residues are not determined, so it is written as glycine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fm_science.data import collate
from fm_science.errors import OptionError
from fm_science.spaces import SO3, Centered, Product
from fm_science.state import Context

from . import sheets
from .blueprint import parse
from .data import item
from .geometry import OPEN, secondary
from .names import packed
from .structure import Backbone

SPACE = Product(translations=Centered(), rotations=SO3())


def encode(
    chains: Sequence[Backbone], structure: str = "data", sheet: str = "data"
) -> tuple[dict[str, Tensor], Context]:
    """The frames of ``chains`` in nanometres, and the conditions of variants of them.

    Args:
        chains: in angstrom.
        structure: the secondary structure of variants: ``data``, that of each chain; ``open``; or a blueprint.
        sheet: likewise, which strands pair.

    Returns:
        State ``(B, N, ...)`` and context; ``cond["origin"]`` (B, 3) has the coordinates of the centre, in angstrom,
        ``cond["chain"]`` (B, 2) and ``cond["numbers"]`` (B, N, 2) the names in the file (:func:`~.names.packed`).

    Raises:
        OptionError: for a blueprint of another length than a chain.
    """
    items = []
    for chain in chains:
        state, cond = item(chain)
        numbers = chain.numbers or tuple(map(str, range(1, len(chain) + 1)))
        kinds, pairs = _conditions(chain, structure, sheet)
        cond = {
            **cond, "structure": kinds, "sheet": pairs, "origin": chain.ca.mean(0),
            "chain": packed([chain.chain])[0], "numbers": packed(numbers),
        }  # fmt: skip
        items.append((state, cond))
    return collate(SPACE, items)


def _conditions(chain: Backbone, structure: str, sheet: str) -> tuple[Tensor, Tensor]:
    """The kinds (N,) of the residues of one chain and the condition of their pairs (N, N)."""
    if structure not in ("data", "open"):
        plan = parse(structure, None if sheet in ("data", "open") else sheet)
        if len(plan) != len(chain):
            raise OptionError(
                f"structure={structure!r} has {len(plan)} residues; the chain {chain.name}, of which variants are "
                f"made, has {len(chain)}"
            )
        return plan.kinds, plan.sheet()
    kinds, nothing = secondary(chain.coords), sheets.unstated(len(chain))
    if structure == "open":
        return torch.full_like(kinds, OPEN), nothing
    return kinds, nothing if sheet == "open" else sheets.condition(kinds, sheets.pairs(chain.coords, kinds))
