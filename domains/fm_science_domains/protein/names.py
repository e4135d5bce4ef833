"""Names of residues and chains as numbers, so that they can be part of a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 8  # letters in one number: they are ASCII, so the sign of an int64 stays free
WORDS = 2


def packed(names: Sequence[str]) -> Tensor:
    """(L, 2) int64: names such as A23 as their first 16 letters, eight bits each; nothing is 0."""
    length = WORD * WORDS
    rows = [name.encode("ascii", "replace")[:length].rjust(length, b"\0") for name in names]
    return torch.tensor([[int.from_bytes(row[k : k + WORD], "big") for k in (0, WORD)] for row in rows]).view(-1, WORDS)


def unpacked(names: Tensor) -> tuple[str, ...]:
    """The inverse of :func:`packed`."""
    rows = (b"".join(word.to_bytes(WORD, "big") for word in row) for row in names.tolist())
    return tuple(row.lstrip(b"\0").decode("ascii") for row in rows)
