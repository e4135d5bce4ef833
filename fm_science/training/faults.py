"""Steps whose gradient is not finite: they are skipped, reported with their cause, and too many of them are a
failure."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fm_science.data import step_seed
from fm_science.errors import DivergedError, UserError
from fm_science.state import leaves

if TYPE_CHECKING:
    from fm_science.training.module import FlowModule

SAID = 5  #: warnings in full; after that, one in a hundred


class Skips:
    """Counts the steps that were skipped.

    Args:
        most: this many in a row end the training as failed; 0: never.

    Attributes:
        total: of the run, resumed parts included.
        row: since the last step with a finite gradient.
        here: in this process, of ``steps``.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = self.row = self.here = self.steps = 0

    def went_well(self) -> None:
        """A step had a finite gradient."""
        self.steps += 1
        self.row = 0

    def skip(self, module: FlowModule, batch: Any, losses: dict[str, Tensor]) -> None:
        """Count a step that is skipped, and warn with its part, time and sample.

        Raises:
            UserError: when the data point is not finite.
            DivergedError: when too many steps in a row were skipped.
        """
        self.steps += 1
        self.total, self.row, self.here = self.total + 1, self.row + 1, self.here + 1
        cause = described(module, batch, losses)
        if self.here <= SAID or self.here % 100 == 0:
            warnings.warn(f"step {module.global_step + 1} was skipped: {cause}", stacklevel=2)
        if self.most and self.row >= self.most:
            raise DivergedError(
                f"{self.row} steps in a row were skipped, the last since {cause}. {self.advice(module)}"
            )

    def advice(self, module: FlowModule) -> str:
        """What to change."""
        return f"Lower optimizer.lr ({module.options.lr:g}), or look at the data; the last checkpoint is from before"

    def check(self, module: FlowModule) -> None:
        """Raise DivergedError if most steps of this process were skipped."""
        if self.here > self.steps / 2:
            raise DivergedError(f"{self.here} of {self.steps} steps were skipped. {self.advice(module)}")


def described(module: FlowModule, batch: Any, losses: dict[str, Tensor]) -> str:
    """Why the gradient of a step is not finite, in words. Raises UserError if it is the data point."""
    numbers = module.indices(module.global_step)

    def named(row: int) -> str:
        return f"data point {numbers[row]} of the training set" if row < len(numbers) else f"sample {row} of the batch"

    for leaf in leaves(batch[0]):
        bad = ~leaf.isfinite().flatten(1).all(1)
        if bool(bad.any()):
            raise UserError(f"{named(int(bad.nonzero()[0]))} is not finite: leave it out, or correct its file")
    for part, values in losses.items():
        bad = (~values.isfinite()).flatten()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            times = _times(module, batch)
            at = f" at t = {float(times[row]):.4f}" if times is not None and row < len(times) else ""
            others = f" ({int(bad.sum())} of {len(bad)} samples)" if int(bad.sum()) > 1 else ""
            return f"the loss {part!r} is {float(values.flatten()[row])}{at} for {named(row)}{others}"
    weights = [
        name for name, p in module.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    return f"losses are finite, but the gradient of {', '.join(w.removeprefix('flow.') for w in weights[:3])} is not"


@torch.no_grad()
def _times(module: FlowModule, batch: Any) -> Tensor | None:
    """The times ``(B,)`` at which the network was evaluated in this step, by computing its losses again."""
    network, seen = module.flow.network, []
    if not isinstance(network, nn.Module):
        return None
    hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    try:
        torch.manual_seed(step_seed(module.seed, module.global_step, module.global_rank))
        module.losses(batch)
    finally:
        hook.remove()
    return seen[0] if seen else None
