"""Names of residues and chains as numbers, so that they may travel with a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LETTERS = 8  # of a name that is kept: letters are ASCII, so the sign of an int64 stays free


def packed(names: Sequence[str]) -> Tensor:
    """(L,) int64: names such as A23 as their first letters, eight bits each; nothing is 0."""
    return torch.tensor([int.from_bytes(name.encode("ascii", "replace")[:LETTERS], "big") for name in names])


def unpacked(names: Tensor) -> tuple[str, ...]:
    """The inverse of :func:`packed`."""
    return tuple(code.to_bytes(8, "big").lstrip(b"\0").decode("ascii") for code in names.tolist())
