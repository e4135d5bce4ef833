"""Three laws of flow maps, each enough to learn a map from the velocity on its diagonal.

Let x move with velocity b_t(x), and let X_{s,t} carry a point from time s to time t. Then

* *Lagrangian*: the end of a jump moves as the flow does there, d/dt X_{s,t}(x) = b_t(X_{s,t}(x));
* *Eulerian*: a jump from a point that moves with the flow ends at one place, d/ds X_{s,t}(x_s) = 0;
* *semigroup*: two jumps make one, X_{r,t}(X_{s,r}(x)) = X_{s,t}(x).

Each is an equation between tangents at a point, so it holds on every manifold. What differs there is what the
derivatives and inverses of ``exp`` allow:

* The Lagrangian law asks for ``exp`` and its derivative alone. Jumps may be longer than the injectivity radius, up to
  the first conjugate point (pi on a sphere, 2 pi on rotations, none on tori and hyperbolic spaces). It differentiates
  the network in one scalar, twice (forward for the law, backward for the weights).
* The Eulerian law is linear in the velocity, so the motion of a single pair may stand for its mean b, on curved spaces
  too: the derivative of X in x is a linear map of tangents. Flat space gives mean flow in its usual form. It needs no
  inverse of ``exp`` either, but the derivative along x, and motions of single pairs are noisy where many paths meet.
* The semigroup law needs no derivative, and ``log`` instead: both ways must end within the injectivity radius of each
  other, which holds once the map is nearly right. Short jumps learn first; errors add up on the way to long ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fm_science.networks import NetworkFunction
from fm_science.paths import Path
from fm_science.solvers.flow_map import jump
from fm_science.spaces import Space
from fm_science.state import Context, State, add, scale, tree_map


@dataclass(frozen=True)
class Map:
    """The map that a two-time network tells, on the parts of a path that flow, and the pairs it is taught on.

    Attributes:
        path: a bound path on a smooth space.
        raw: ``(x, s, t) -> raw``, the network.
        x0, x1: noise and data.
    """

    path: Path
    raw: Callable[[State, Tensor, Tensor], State]
    x0: State
    x1: State

    @staticmethod
    def of(network: NetworkFunction, path: Path, context: Context, x0: State, x1: State, s: Tensor) -> Map:
        """The map of the smooth parts; others are held where they are at time ``s``."""

        def ask(x: State, s: Tensor, t: Tensor) -> State:
            return network(x, s, replace(context, t_end=t))

        if path.space.smooth:
            return Map(path, ask, x0, x1)
        smooth, jumps = path.split()
        fixed = jumps.sample({k: x0[k] for k in jumps.parts}, {k: x1[k] for k in jumps.parts}, s)

        def beside(x: State, s: Tensor, t: Tensor) -> State:
            raw = ask({**x, **fixed}, s, t)
            return {k: raw[k] for k in smooth.parts}

        return Map(smooth, beside, {k: x0[k] for k in smooth.parts}, {k: x1[k] for k in smooth.parts})

    @property
    def space(self) -> Space:
        """The bound space of the parts that flow."""
        return self.path.space

    def at(self, s: Tensor) -> State:
        """Where the pairs are at time ``s``."""
        return self.path.sample(self.x0, self.x1, s)

    def velocity(self, x: State, s: Tensor, t: Tensor) -> State:
        """v_{s,t}(x), the mean velocity of a jump; the velocity itself where s = t."""
        return self.path.velocity(self.raw(x, s, t), x, s)

    def __call__(self, x: State, s: Tensor, t: Tensor) -> State:
        """X_{s,t}(x)."""
        return jump(self.path, self.raw(x, s, t), x, s, t)


class FlowMapLoss(ABC):
    """An equation that every flow map obeys."""

    @abstractmethod
    def __call__(self, flow_map: Map, s: Tensor, t: Tensor) -> tuple[State, State]:
        """A point, and a tangent there that is zero, or zero in the mean, where the map is right. Its squared length
        is the loss; gradients flow only through what is to be learnt.

        Args:
            flow_map: the map, and the pairs on whose paths it is taught.
            s, t: starts and ends of jumps, ``(B,)``, s <= t.
        """


@dataclass(frozen=True)
class Lagrangian(FlowMapLoss):
    """|d/dt X_{s,t}(x) - sg b_t(X_{s,t}(x))|² at x = x_s, with b the network's own diagonal (Boffi, Albergo &
    Vanden-Eijnden 2025, Lagrangian self-distillation). On curved spaces both are tangents at X_{s,t}(x), and the
    length is that of the metric there."""

    def __call__(self, flow_map: Map, s: Tensor, t: Tensor) -> tuple[State, State]:
        x = tree_map(torch.Tensor.contiguous, flow_map.at(s))
        y, motion, _ = derivative(lambda end: (flow_map(x, s, end), ()), t)
        u = tangent_of(flow_map.space, y, motion)
        y = tree_map(torch.Tensor.detach, y)
        with torch.no_grad():
            b = flow_map.velocity(y, t, t)
        return y, add(u, scale(-1.0, b))


@dataclass(frozen=True)
class MeanFlow(FlowMapLoss):
    """|v_{s,t}(x) - sg(v_{s,t}(x) + r)|² with r = d/ds X_{s,t}(x_s) along the paths of single pairs, carried back to x.

    On flat space v + r = x' + (t - s) d/ds v_{s,t}(x_s) is the target of mean flow (Geng et al. 2025, section 4), and
    at s = t the loss is that of flow matching. On curved spaces r is the end of the Jacobi field along the jump that
    starts with x'. It is linear in x', so single pairs still serve, and its mean is zero for the flow map alone: that
    is the Eulerian equation. Moving v by r brings it nearer while jumps are shorter than the injectivity radius.
    """

    def __call__(self, flow_map: Map, s: Tensor, t: Tensor) -> tuple[State, State]:
        def jump(start: Tensor) -> tuple[State, State]:
            x = flow_map.at(start)
            return flow_map(x, start, t), x

        with torch.no_grad():
            y, motion, x = derivative(jump, s)
            r = flow_map.space.transport(y, x, tangent_of(flow_map.space, y, motion))
        v = flow_map.velocity(x, s, t)
        target = add(tree_map(torch.Tensor.detach, v), r)
        return x, add(v, scale(-1.0, target))


@dataclass(frozen=True)
class Semigroup(FlowMapLoss):
    """d(X_{s,t}(x), sg X_{r,t}(X_{s,r}(x)))² / (t - s)², which on flat space is the squared difference of mean
    velocities. No derivative is taken, so any network serves.

    Args:
        halves: whether r is the middle, as in shortcut models (Frans et al. 2025), or uniform in [s, t] (progressive
            self-distillation, Boffi, Albergo & Vanden-Eijnden 2025).
        least: the shortest jump that is divided by.
    """

    halves: bool = True
    least: float = 1e-2

    def __call__(self, flow_map: Map, s: Tensor, t: Tensor) -> tuple[State, State]:
        x, space = flow_map.at(s), flow_map.space
        share = torch.full_like(s, 0.5) if self.halves else torch.rand_like(s)
        r = s + share * (t - s)
        with torch.no_grad():
            y = flow_map(flow_map(x, s, r), r, t)
        return y, scale(1 / (t - s).clamp_min(self.least), space.log(y, flow_map(x, s, t)))


def derivative(fn: Callable[[Tensor], tuple[State, State]], t: Tensor) -> tuple[Any, Any, Any]:
    """The point fn(t)[0], how its coordinates move with t ``(B,)``, and fn(t)[1] as it is, by forward-mode
    differentiation."""
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
        point, motion, *rest = torch.func.jvp(fn, (t.clone(),), (torch.ones_like(t),), has_aux=True)
    return point, motion, rest[0]


def tangent_of(space: Space, x: State, motion: State) -> State:
    """The tangent at ``x`` that moves its coordinates by ``target_velocity``: on rotations these are two things."""
    if space.linear:
        return motion
    start = tree_map(torch.Tensor.detach, x)
    return torch.func.jvp(lambda y: space.log(start, y), (x,), (motion,))[1]
