"""The conditioning of every block of an image network: the time, and the class if there is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fm_science.networks import Guided, TimeEmbedding
from fm_science.state import Context


class Embedding(nn.Module):
    """Time and class as one vector. A class of -1 is "not known", and so is a context without classes.

    Args:
        width: features of the time.
        out: features of the conditioning.
        classes: how many; 0: time only.
    """

    def __init__(self, width: int, out: int, classes: int = 0) -> None:
        super().__init__()
        self.time = nn.Sequential(TimeEmbedding(width), nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))
        self.label = nn.Embedding(classes + 1, out) if classes else None

    def forward(self, t: Tensor, context: Context) -> Tensor:
        """``t`` ``(B,)`` to ``(B, out)``."""
        embedded = self.time(t.to(self.time[1].weight))  # type: ignore[arg-type]
        if self.label is not None:
            unknown = torch.full_like(t, -1, dtype=torch.long)
            embedded = embedded + self.label(context.cond.get("label", unknown) + 1)
        return nn.functional.silu(embedded)


class Steerable(nn.Module):
    """A network whose guidance is in the context: with the condition ``guidance`` ``(B,)`` its output is off + guidance
    (on - off) (Ho & Salimans 2022), with a separate strength for each sample; without it, it is unchanged.

    Args:
        network: reads the condition ``label``, and was trained with it sometimes dropped.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """As the network's."""
        strength = context.cond.get("guidance")
        if strength is None:
            return self.network(x, t, context)
        return Guided(self.network, lambda _: strength.to(x))(x, t, context)
