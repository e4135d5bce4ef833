"""What of a flow is written to a file: its weights, and how it was trained, as tensors alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from fm_science.errors import UserError
from fm_science.weights import read_weights, uncompiled, weights_of


class Stored(nn.Module):
    """A module that is saved with the facts of its training.

    Attributes:
        independent: whether noise and data were independent in training.
        independent_parts: parts for which they were, if they were not for others.
    """

    independent: bool
    independent_parts: tuple[str, ...]

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the weights, and whether noise and data were independent (tensors alone: loading never runs code)."""
        torch.save({"state_dict": self.state_dict()}, file)

    def get_extra_state(self) -> Tensor:
        """How the flow was trained, as text in bytes, so that a ``state_dict`` holds tensors alone."""
        facts = {"independent": self.independent, "untied": list(self.independent_parts)}
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of :meth:`get_extra_state`."""
        facts = json.loads(bytes(state.tolist()))
        self.independent, self.independent_parts = facts["independent"], tuple(facts["untied"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # older files do not record it
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def load(self, file: str | os.PathLike[str]) -> Self:
        """Load the weights from :meth:`save` or from a checkpoint of a run. Raises UserError when they do not fit."""
        kept = read_weights(Path(file))
        self.fill(weights_of(kept), str(file))
        if "independent" in kept:  # if files of earlier versions record it
            self.independent, self.independent_parts = kept["independent"], tuple(kept["untied"])
        return self

    def fill(self, weights: Mapping[str, Tensor], origin: str) -> Self:
        """Load weights by name; ``origin`` names their source in errors. Raises UserError when they do not
        fit."""
        names = {uncompiled(k): k for k in self.state_dict()}  # the names in a compiled network
        try:
            self.load_state_dict({names.get(uncompiled(k), k): v for k, v in weights.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"the weights in {origin!r} do not fit this network: {reason}") from error
        return self
