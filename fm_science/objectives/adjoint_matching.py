"""Adjoint matching: fine-tune a trained flow so that its samples earn a reward, and stay as likely as they can.

The law that is asked for is p(x1) exp(r(x1)), up to a constant, where p is that of the flow before. Each step walks
noise to data by the *memoryless* process, which exchanges noise so fast that the ends of a walk are independent; only
then does the tuned flow reach this law and no other (Domingo-Enrich et al. 2025, theorem 1). Backwards along the walk
the gradient of the reward is carried by the network of before (the *lean adjoint*, equations 38 and 39), and the
network is taught, by regression, the change of its predicted datum that the gradient asks for.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fm_science.contract import check_context, check_output
from fm_science.flow import Flow
from fm_science.networks import Network
from fm_science.objectives.base import Objective
from fm_science.paths import Bridge, Path
from fm_science.paths.base import value_and_rate
from fm_science.posterior import Keys, at, guided_parts, nest
from fm_science.predictions import mean_square
from fm_science.state import Context, State, leaves, scale, tree_map


@dataclass(frozen=True)
class AdjointMatching(Objective):
    """The change of the predicted datum D that a reward asks for, on the memoryless process:

        2 rho sigma |(alpha / sigma) (D - D_before) + sigma S a|²,   rho = d/dt log(alpha / sigma),

    a degree of freedom, the mean over some times of a walk (Domingo-Enrich et al. 2025, equation 37, told by the datum,
    with the weight sigma, which evens out the times and leaves the minimum where it is). S is the covariance of the
    noise, and a the lean adjoint: at t = 1 minus the gradient of the reward, and carried back by the network of before.
    Needs Gaussian noise that was independent of the data on linear spaces. Of a batch of data only the context is used,
    which says what to make.

    Args:
        reward: ``(x1) -> (B,)``, differentiable, in nats: log-odds that a sample is wanted over one that earns zero.
        strength: multiplies the reward.
        before: the network that samples are to stay close to; ``None``: the flow's as it is in the first call.
        steps: of a walk, at least two. Their times are moved at random, so that all of [0, 1] is seen.
        evaluations: of the steps of a walk, how many the network is taught at; at most steps - 1.

    Raises:
        ValueError: for fewer steps than two, or evaluations than one.
        TypeError: when called, on parts that are not linear or have no Gaussian noise, and for flows that were trained
            with a coupling.
    """

    reward: Callable[[Any], Tensor]
    strength: float = 1.0
    before: Network | None = None
    steps: int = 20
    evaluations: int = 4
    known: WeakKeyDictionary[Flow, Network] = field(default_factory=WeakKeyDictionary, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.steps < 2 or not 1 <= self.evaluations < self.steps:
            raise ValueError(
                f"steps={self.steps}, evaluations={self.evaluations}: expected at least two steps, and from one "
                "evaluation to one less than the steps."
            )

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)``: ``adjoint``. Neither ``x1`` nor ``x0`` is used."""
        check_context(context)
        path = flow.path.bind(context, flow.prior)
        check_tunable(flow, path)
        before = self._before(flow)
        times = self._times(leaves(x1)[0])
        with torch.no_grad():
            walk = memoryless(flow, path, context, times)
        adjoints = self._adjoints(before, path, context, times, walk)
        chosen = 1 + torch.randperm(self.steps - 1)[: self.evaluations]  # at t = 0 the weight is zero
        each = [self._loss(flow, before, path, context, times[k], walk[k], adjoints[k]) for k in chosen.tolist()]
        return {"adjoint": torch.stack(each).mean(0)}

    def record_training(self, flow: Flow) -> None:
        """Noise and data stay as independent as they were."""

    def _before(self, flow: Flow) -> Network:
        """The network that samples stay close to."""
        if self.before is not None:
            return self.before
        if flow not in self.known:
            kept = copy.deepcopy(flow.network)
            if isinstance(kept, torch.nn.Module):
                kept.requires_grad_(False)
            self.known[flow] = kept
        return self.known[flow]

    def _times(self, like: Tensor) -> Tensor:
        """The times of a walk ``(steps + 1, B)``: 0 and 1, and between them equal steps from a random start."""
        moved = (torch.arange(self.steps - 1) + torch.rand(())) / (self.steps - 1)
        times = torch.cat([torch.zeros(1), moved.clamp(1e-3, 1 - 1e-3), torch.ones(1)])
        return times.to(like)[:, None].expand(-1, len(like))

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
            asked = part.prior.correlate(space, at(adjoint, keys))  # type: ignore[union-attr]
            total = total + 2 * rho * sigma * mean_square(space, y, scale(alpha / sigma, moved) + scale(sigma, asked))
        return total


def rewards(reward: Callable[[Any], Tensor], x1: State) -> Tensor:
    """The rewards of a batch, ``(B,)``. Raises ValueError where there is not one number a sample."""
    found, count = reward(x1), len(leaves(x1)[0])
    if not (torch.is_tensor(found) and found.shape == (count,)):
        given = f"a tensor of shape {tuple(found.shape)}" if torch.is_tensor(found) else f"a {type(found).__name__}"
        raise ValueError(f"the reward gave {given}; expected one number a sample, a tensor of shape ({count},).")
    return found


def check_tunable(flow: Flow, path: Path) -> None:
    """Raises TypeError unless all parts of a bound path are linear, with Gaussian noise that was independent of the
    data in training."""
    if not path.space.linear or not path.has_score or _leaves(path) != len(guided_parts(path)):
        raise TypeError(
            "tuning by a gradient needs Geodesic or Gaussian paths on linear spaces with Gaussian noise, and this flow "
            f"has {flow.path!r} with {flow.prior!r}: weigh samples by their reward instead."
        )
    if not flow.independent:
        raise TypeError(
            "tuning exchanges noise along the way, and this flow was trained with a coupling that ties noise to data. "
            "Train with Independent()."
        )
    if flow.network.self_conditioned:
        raise TypeError("tuning walks step by step, and a self-conditioned network looks back: train one without.")


def _leaves(path: Path) -> int:
    return sum(_leaves(part) for part in path.parts.values()) if path.parts else 1


def signal(part: Bridge, t: Tensor) -> Tensor:
    """The weight of the datum in x_t, ``(B,)``."""
    return part.schedule(t)[0]


def relative_rate(part: Bridge, t: Tensor) -> Tensor:
    """d/dt log(alpha / sigma), ``(B,)``: how fast the datum comes out of the noise."""
    alpha, rise = value_and_rate(lambda s: signal(part, s), t)
    sigma, fall = value_and_rate(part.sigma, t)
    return rise / alpha - fall / sigma


def kept(part: Bridge, t: Tensor, s: Tensor) -> Tensor:
    """How much of its noise a sample keeps over a step of the memoryless process, ``(B,)``: what it is correlated with,
    where noise is only ever added backwards in time. That is ancestral sampling (Ho et al. 2020)."""
    return signal(part, t) * part.sigma(s) / (signal(part, s) * part.sigma(t))


def memoryless(flow: Flow, path: Path, context: Context, times: Tensor) -> list[State]:
    """A walk of the memoryless process from noise to data: its states at ``times`` ``(K, B)``."""
    x = flow.noise(context)
    walk = [x]
    for t, s in itertools.pairwise(times):
        keep = nest({k: kept(part, t, s) for k, part in guided_parts(path).items()})
        x = path.renoise_step(flow.network(x, t, context), x, t, s, keep)
        walk.append(x)
    return walk


def mean_step(path: Path, raw: State, x: State, t: Tensor, s: Tensor) -> State:
    """The mean of a step of the memoryless process: alpha_s x1hat + keep sigma_s x0hat."""
    found: dict[Keys, Tensor] = {}
    for keys, part in guided_parts(path).items():
        y = at(x, keys)
        x1hat = part.endpoint(at(raw, keys), y, t)
        rest = y - scale(signal(part, t), x1hat)  # sigma_t x0hat
        step = scale(signal(part, s), x1hat) + scale(kept(part, t, s) * part.sigma(s) / part.sigma(t), rest)
        found[keys] = part.space.project(step)
    return nest(found)


def pulled(fn: Callable[[State], Any], x: State, weight: State | None) -> State:
    """The derivative of ``fn`` at ``x``, transposed, times ``weight``; of a number, its gradient for ``None``."""
    with torch.enable_grad():
        point = tree_map(lambda v: v.detach().requires_grad_(), x)
        value = fn(point)
        weights = None if weight is None else leaves(weight)
        found = iter(torch.autograd.grad(leaves(value), leaves(point), weights, materialize_grads=True))
    return tree_map(lambda v: next(found), point)
