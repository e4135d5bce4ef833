"""What objectives that follow a reward share: the reward, the walk from noise to data, and the network of before.

The law that they ask for is p(x1) exp(strength r(x1)), up to a constant, where p is that of the flow before. Each walks
noise to data by ancestral sampling, whose ends are independent; only then does the tuned flow reach this law and no
other (Domingo-Enrich et al. 2025, theorem 1).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fm_science import ancestral
from fm_science.contract import rewards
from fm_science.flow import Flow
from fm_science.networks import Network
from fm_science.objectives.base import Objective
from fm_science.paths import Path
from fm_science.state import State, zip_leaves


@dataclass(frozen=True)
class Rewarded(Objective):
    """The base of objectives that follow a reward.

    Args:
        reward: ``(x1) -> (B,)`` in nats: log-odds that a sample is wanted over one that earns zero.
        strength: multiplies the reward.
        before: the network that samples are to stay close to; ``None``: the flow's as it is in the first call.
        steps: of a walk, at least two. Their times are moved at random, so that all of [0, 1] is seen.
        evaluations: of the steps of a walk, how many the network is taught at; at most steps - 1.

    Raises ValueError for fewer steps than two, or evaluations than one.
    """

    reward: Callable[[Any], Tensor]
    strength: float = 1.0
    before: Network | None = None
    steps: int = 20
    evaluations: int = 4
    known: WeakKeyDictionary[Flow, Network] = field(default_factory=WeakKeyDictionary, init=False, repr=False)
    classes: ClassVar[bool] = False  #: whether parts may be classes

    def __post_init__(self) -> None:
        if self.steps < 2 or not 1 <= self.evaluations < self.steps:
            raise ValueError(
                f"steps={self.steps}, evaluations={self.evaluations}: expected at least two steps, and from one "
                "evaluation to one less than the steps."
            )

    def record_training(self, flow: Flow) -> None:
        """Noise and data stay as independent as they were."""

    def reference(self, flow: Flow) -> Network:
        """The network that samples stay close to."""
        if self.before is not None:
            return self.before
        if flow not in self.known:
            self.known[flow] = copy.deepcopy(flow.network).eval().requires_grad_(False)
        return self.known[flow]

    def times(self, like: Tensor) -> Tensor:
        """The times of a walk ``(steps + 1, B)``: 0 and 1, and :meth:`between` them."""
        times = torch.cat([torch.zeros(1), self.between(), torch.ones(1)])
        return times.to(like)[:, None].expand(-1, len(like))

    def between(self) -> Tensor:
        """Times ``(steps - 1,)`` in (0, 1): equal steps from a random start."""
        even = (torch.arange(self.steps - 1) + torch.rand(())) / (self.steps - 1)
        return even.clamp(1e-3, 1 - 1e-3)

    def check(self, flow: Flow, path: Path) -> None:
        """Raises TypeError unless all parts of a bound path are linear with Gaussian noise (or classes with known
        noise, if these may be tuned) that was independent of the data in training."""
        if not all(self._tunable(part) for (part,) in zip_leaves(path)):
            kinds = "Gaussian noise on linear spaces" + (" or known noise on classes" if self.classes else "")
            raise TypeError(
                f"{type(self).__name__} needs Geodesic or Gaussian paths with {kinds}, and this flow has "
                f"{flow.path!r} with {flow.prior!r}: weigh samples by their reward instead, with Particles(reward)."
            )
        if not flow.independent:
            raise TypeError(
                "tuning exchanges noise along the way, and this flow was trained with a coupling that ties noise to "
                "data. Train with Independent()."
            )
        if flow.network.self_conditioned:
            raise TypeError("tuning walks step by step, and a self-conditioned network looks back: train one without.")

    def check_reward(self, x1: State) -> None:
        """Raises ValueError unless the reward gives one number a sample of a batch of data."""
        rewards(self.reward, x1)

    def _tunable(self, part: Path) -> bool:
        return ancestral.stirred(part) or (self.classes and not part.space.smooth and part.has_score)
