"""Adjoint matching: fine-tune a trained flow so that its samples earn a reward, and stay as likely as they can.

Each update walks noise to data by the *memoryless* process, which exchanges noise so fast that the ends of a walk are
independent: that is ancestral sampling. Backwards along the walk the gradient of the reward is carried by the network
of before (the *lean adjoint*; Domingo-Enrich et al. 2025, equations 38 and 39), and the network is taught, by
regression, the change of its predicted datum that the gradient asks for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science import ancestral
from fm_science.contract import check_context, check_output, rewards
from fm_science.flow import Flow
from fm_science.networks import Network
from fm_science.objectives.rewarded import Rewarded
from fm_science.paths import Bridge, Path
from fm_science.paths.base import value_and_rate
from fm_science.posterior import at, guided_parts
from fm_science.predictions import mean_square
from fm_science.state import Context, State, leaves, map_leaves, scale, tree_map


@dataclass(frozen=True)
class AdjointMatching(Rewarded):
    """The change of the predicted datum D that a reward asks for, on the memoryless process:

        2 rho sigma |(alpha / sigma) (D - D_before) + sigma S a|²,   rho = d/dt log(alpha / sigma),

    a degree of freedom, the mean over some times of a walk (Domingo-Enrich et al. 2025, equation 37, told by the datum,
    with the weight sigma, which evens out the times and leaves the minimum where it is). S is the covariance of the
    noise, and a the lean adjoint: at t = 1 minus the gradient of the reward, and carried back by the network of before.
    Needs Gaussian noise that was independent of the data on linear spaces. Of a batch of data only the context is used,
    which says what to make.

    Args:
        reward, strength, before, steps, evaluations: as in :class:`Rewarded`; the reward is differentiable.

    Raises:
        ValueError: for fewer steps than two, or evaluations than one.
        TypeError: when called, on parts that are not linear or have no Gaussian noise, and for flows that were trained
            with a coupling.
    """

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``adjoint``. Neither ``x1`` nor ``x0`` is used."""
        check_context(context)
        path = flow.path.bind(context, flow.prior)
        self.check(flow, path)
        before = self.reference(flow)
        times = self.times(leaves(x1)[0])
        with torch.no_grad():
            walk = memoryless(flow, path, context, times)
        self.check_reward(walk[-1])
        adjoints = self._adjoints(before, path, context, times, walk)
        chosen = 1 + torch.randperm(self.steps - 1)[: self.evaluations]  # at t = 0 the weight is zero
        each = [self._loss(flow, before, path, context, times[k], walk[k], adjoints[k]) for k in chosen.tolist()]
        return {"adjoint": torch.stack(each).mean(0)}

    def check_reward(self, x1: State) -> None:
        """Raises ValueError also where the reward has no gradient."""
        with torch.enable_grad():
            found = rewards(self.reward, tree_map(lambda v: v.detach().clone().requires_grad_(), x1))
        if not found.requires_grad:
            raise ValueError("the reward has no gradient: tune by PolicyGradient (method=policy_gradient), or write it "
                             "in torch without detach, comparisons or rounding.")  # fmt: skip

    def _adjoints(
        self, before: Network, path: Path, context: Context, times: Tensor, walk: list[State]
    ) -> list[State]:  # fmt: skip
        """The lean adjoint at each time of the walk."""

        def earned(x: State) -> Tensor:
            return -self.strength * rewards(self.reward, x).sum()

        adjoint = pulled(earned, walk[-1], None)
        found = [adjoint]
        for k in reversed(range(len(walk) - 1)):

            def step(x: State, k: int = k) -> State:
                return mean_step(path, before(x, times[k], context), x, times[k], times[k + 1])

            adjoint = pulled(step, walk[k], adjoint)
            found.append(adjoint)
        return found[::-1]

    def _loss(
        self, flow: Flow, before: Network, path: Path, context: Context, t: Tensor, x: State, adjoint: State
    ) -> Tensor:  # fmt: skip
        """The loss ``(B,)`` at one time."""
        raw = flow.network(x, t, context)
        check_output(path, raw)
        with torch.no_grad():
            old = before(x, t, context)
        total = torch.zeros_like(t)
        for keys, part in guided_parts(path).items():
            y, space = at(x, keys), part.space
            alpha, sigma = signal(part, t), part.sigma(t)
            rho = relative_rate(part, t)
            moved = part.endpoint(at(raw, keys), y, t) - part.endpoint(at(old, keys), y, t)
            correlated = part.prior.correlate(space, at(adjoint, keys))  # type: ignore[union-attr]
            wanted = scale(alpha / sigma, moved) + scale(sigma, correlated)
            total = total + 2 * rho * sigma * mean_square(space, y, wanted)
        return total


def signal(part: Bridge, t: Tensor) -> Tensor:
    """The weight of the datum in x_t, ``(B,)``."""
    return part.schedule(t)[0]


def relative_rate(part: Bridge, t: Tensor) -> Tensor:
    """d/dt log(alpha / sigma), ``(B,)``: how fast the datum comes out of the noise."""
    alpha, rise = value_and_rate(lambda s: signal(part, s), t)
    sigma, fall = value_and_rate(part.sigma, t)
    return rise / alpha - fall / sigma


def memoryless(flow: Flow, path: Path, context: Context, times: Tensor) -> list[State]:
    """A walk of the memoryless process from noise to data: its states at ``times`` ``(K, B)``."""
    x = flow.noise(context)
    walk = [x]
    for t, s in itertools.pairwise(times):
        x = ancestral.draw(ancestral.transitions(path, flow.network(x, t, context), x, t, s))
        walk.append(x)
    return walk


def mean_step(path: Path, raw: State, x: State, t: Tensor, s: Tensor) -> State:
    """The mean of a step of the memoryless process on linear spaces."""
    return map_leaves(lambda _, law: law.mean, path, ancestral.transitions(path, raw, x, t, s))


def pulled(fn: Callable[[State], Any], x: State, weight: State | None) -> State:
    """The derivative of ``fn`` at ``x``, transposed, times ``weight``; of a number, its gradient for ``None``."""
    with torch.enable_grad():
        point = tree_map(lambda v: v.detach().requires_grad_(), x)
        value = fn(point)
        weights = None if weight is None else leaves(weight)
        found = iter(torch.autograd.grad(leaves(value), leaves(point), weights, materialize_grads=True))
    return tree_map(lambda v: next(found), point)
