"""Policy gradients: fine-tune a trained flow towards a reward that has no gradient, and on classes.

A walk from noise to data is a chain of decisions: each step draws from a law that the network fixes. The chance of
steps that led to a higher reward than others of the batch is raised, and what leads away from the network before costs
its relative entropy (Black et al. 2024, DDPO; Fan et al. 2023, DPOK). The reward is called and never differentiated.

Maximised is E[strength r(x1)] - KL(walks after | walks before). Since the ends of walks before are independent, the
samples of the maximum have the law p(x1) exp(strength r(x1)), up to a constant: that of adjoint matching, which learns
faster where the reward has a gradient.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fm_science import ancestral
from fm_science.contract import check_context, check_output, rewards
from fm_science.flow import Flow
from fm_science.networks import Network
from fm_science.objectives.rewarded import Rewarded
from fm_science.paths import Path
from fm_science.state import Context, State, leaves


@dataclass(frozen=True)
class PolicyGradient(Rewarded):
    """The gradient of relative entropy minus reward over the steps of a walk (Williams 1992, REINFORCE):

        A_k log q(x_{k+1} | x_k) + KL(q(. | x_k) | p(. | x_k)),   A_k = sum_{j > k} KL_j - strength r(x1) - baseline,

    with q the network's steps and p those of the network before. Only what comes after a step counts for it, and the
    baseline is the mean of the others of the batch (Kool et al. 2019), so its gradient has no bias. The value itself
    means nothing; the loss is the mean of some steps of a walk, times their number. Needs Gaussian noise on linear
    spaces or known noise on classes, independent of the data. Of a batch of data only the context is used.

    Args:
        reward, strength, before, steps, evaluations: as in :class:`Rewarded`; the reward needs no gradient.

    Raises:
        ValueError: for fewer steps than two, or evaluations than one; when called, for fewer than two samples.
        TypeError: when called, on other parts, and for flows that were trained with a coupling.
    """

    classes: ClassVar[bool] = True

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``policy``. Neither ``x1`` nor ``x0`` is used."""
        check_context(context)
        if context.size < 2:
            raise ValueError("a policy gradient compares samples: give a batch of at least two.")
        path = flow.path.bind(context, flow.prior)
        self.check(flow, path)
        before, times = self.reference(flow), self.times(leaves(x1)[0])
        with torch.no_grad():
            walk, costs = self._walk(flow, before, path, context, times)
            costs[-1] = costs[-1] - self.strength * rewards(self.reward, walk[-1])
            after = costs.flip(0).cumsum(0).flip(0)[1:]  # what a step leads to
            advantage = (after - after.mean(1, keepdim=True)) * (context.size / (context.size - 1))
        each = [
            self._loss(flow, before, path, context, times[k : k + 2], walk[k : k + 2], advantage[k])
            for k in torch.randperm(self.steps)[: self.evaluations].tolist()
        ]
        return {"policy": torch.stack(each).mean(0) * self.steps}

    def between(self) -> Tensor:
        """Times that are denser near the data, where the last step draws nothing and teaches nothing: what is left of
        the way shrinks in a step to a quarter or so at least, since where it shrinks to nothing at once the noise of
        the step does too, and no step of another mean could be told from it at a finite cost."""
        count, power = self.steps - 1, 1.5 + torch.rand(())
        return 1 - (torch.arange(count, 0, -1) / (count + torch.rand(()))).clamp_max(1 - 1e-3) ** power

    def _walk(
        self, flow: Flow, before: Network, path: Path, context: Context, times: Tensor
    ) -> tuple[list[State], Tensor]:  # fmt: skip
        """The states of a walk, and what each step costs in relative entropy, ``(steps + 1, B)`` with a last zero."""
        walk, costs = [flow.noise(context)], []
        for t, s in itertools.pairwise(times):
            x = walk[-1]
            laws = self._laws(path, flow.network(x, t, context), x, t, s)
            costs.append(ancestral.divergence(path, laws, self._laws(path, before(x, t, context), x, t, s)))
            walk.append(ancestral.draw(laws))
        return walk, torch.stack([*costs, torch.zeros_like(costs[0])])

    def _laws(self, path: Path, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        """The laws of a step. Data are taken to spread as the noise does, else few steps would narrow their law, and
        what a step costs would grow."""
        return ancestral.transitions(path, raw, x, t, s, spread=1.0)

    def _loss(
        self, flow: Flow, before: Network, path: Path, context: Context, times: Tensor, ends: list[State], gain: Tensor
    ) -> Tensor:  # fmt: skip
        """The loss ``(B,)`` of one step."""
        (t, s), (x, y) = times, ends
        raw = flow.network(x, t, context)
        check_output(path, raw)
        laws = self._laws(path, raw, x, t, s)
        with torch.no_grad():
            old = self._laws(path, before(x, t, context), x, t, s)
        return gain * ancestral.log_ratio(path, laws, old, y) + ancestral.divergence(path, laws, old)
