"""Weights by name in files: what :meth:`Flow.save` and the checkpoints of runs hold. Loading them never runs code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.errors import UserError


def weights_of(kept: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the flow by name in the content of a file of weights, which may be those of a training module
    around it."""
    weights = kept.get("state_dict", kept)
    prefix = "flow." if any(k.startswith("flow.") for k in weights) else ""
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def uncompiled(name: str) -> str:
    """The name of a weight without what ``torch.compile`` adds to it."""
    return name.replace("_orig_mod.", "")


def read_weights(file: Path) -> Mapping[str, Any]:
    """The content of a file of weights. Raises UserError if it is not one."""
    expected = "expected a file written by Flow.save or a checkpoint of a run."
    if not file.is_file():
        raise UserError(f"no weights at {str(file)!r}: {expected}")
    try:
        kept = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch may raise any error for such bytes
        raise UserError(f"cannot read weights from {str(file)!r}: {expected}") from error
    weights = kept.get("state_dict", kept) if isinstance(kept, Mapping) else None
    if not (isinstance(weights, Mapping) and all(isinstance(name, str) for name in weights)):
        raise UserError(f"{str(file)!r} holds a {type(kept).__name__} and no weights by name: {expected}")
    return kept
