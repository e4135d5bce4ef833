"""Densities of flows.

Along a flow the log-density of a moving point changes by minus the divergence of the velocity (Chen et al. 2018). So
the density of a datum is that of the noise it came from, minus the integral of the divergence. Log-density and kinetic
energy are two more coordinates of the state, ``Product(state=space, logp=line, energy=line)``, and any solver
integrates all of them together. With gradients on, this is maximum-likelihood training of a continuous normalising
flow.

The divergence is the trace of the derivative of the velocity along tangents, sum_i (D_{P e_i} u)_i, P the projection on
the tangent space. The component is the plain ambient one: on the hyperbolic sheet the Lorentz product would flip the
sign of the time axis.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fm_science.paths import Field, Path
from fm_science.priors import Prior
from fm_science.spaces import Euclidean, Product
from fm_science.state import Context, State, batch_size, leaves, scale, tree_map

VelocityField = Callable[[Any], Any]


class Divergence(ABC):
    """A rule for the trace of the derivative of a velocity field."""

    @abstractmethod
    def draw(self, like: Tensor) -> Tensor:
        """Ambient directions that stay fixed along a trajectory, ``(P, B, D)``; ``like`` is a flat tangent (B, D)."""

    @abstractmethod
    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        """The trace ``(B,)`` of a linear map of ambient vectors ``(P, B, D)``."""


class Derivative:
    """The map v -> D_{Pv} u at a point, on flat ambient vectors, and the velocity itself.

    Args:
        space: a bound space.
        field: the velocity at a fixed time, a function of the point alone.
        x: the point.
        chunk: directions that are carried at once; 1 runs without ``vmap``, for networks that do not bear it.
    """

    def __init__(self, space: Any, field: VelocityField, x: Any, chunk: int | None = None) -> None:
        self.space, self.field, self.x, self.chunk = space, field, x, chunk
        self.template = space.log(x, x)
        self.velocity: Any = None

    def __call__(self, directions: Tensor) -> Tensor:
        """``(P, B, D)`` to ``(P, B, D)``."""
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
            if self.chunk == 1:
                pairs = [self._along(v) for v in directions]
                self.velocity = pairs[0][0]
                return torch.stack([d for _, d in pairs])
            vmapped = torch.func.vmap(self._along, randomness="same", chunk_size=self.chunk)
            velocity, derivative = vmapped(directions)
            self.velocity = tree_map(lambda u: u[0], velocity)
            return derivative

    def _along(self, v: Tensor) -> tuple[Any, Tensor]:
        motion = self.space.tangent(self.x, unflatten(v, self.template))
        if not self.space.linear:
            motion = self._point_motion(motion)
        # the point carries no direction here, so that vmap evaluates the field itself only once
        velocity, derivative = torch.func.jvp(self.field, (self.x,), (motion,))
        return velocity, flatten(derivative)

    def _point_motion(self, tangent: Any) -> Any:
        """How the coordinates of the point change along a tangent (on rotations these are two things)."""
        zero = leaves(self.x)[0].new_zeros(())
        along = lambda s: self.space.exp(self.x, scale(s, tangent))  # noqa: E731
        return torch.func.jvp(along, (zero,), (torch.ones_like(zero),))[1]


@dataclass(frozen=True)
class ExactTrace(Divergence):
    """The trace, one ambient direction after the other, many at once.

    Args:
        chunk: how many directions are carried at once; ``None``: all. 1 runs without ``torch.func.vmap``, for networks
            with control flow that depends on data.
    """

    chunk: int | None = None

    def draw(self, like: Tensor) -> Tensor:
        n = like.shape[1]
        return torch.eye(n, dtype=like.dtype, device=like.device)[:, None].expand(n, *like.shape)

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        return (probes * derivative(probes)).sum((0, 2))


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """The mean of v . D_{Pv} u over random signs v: unbiased (Hutchinson 1990; Grathwohl et al. 2019).

    Args:
        probes: how many vectors; the variance falls like one over their number.
    """

    probes: int = 1
    chunk: int | None = None

    def draw(self, like: Tensor) -> Tensor:
        return torch.randint(0, 2, (self.probes, *like.shape), device=like.device).to(like.dtype) * 2 - 1

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        return (probes * derivative(probes)).sum(2).mean(0)


@dataclass(frozen=True)
class HutchPP(Divergence):
    """Exact on the range of a random sketch, Hutchinson's estimate on the rest: unbiased, and of much less variance
    where the spectrum decays (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    Args:
        probes: products with the derivative in all; a third each for the sketch, its trace and the rest.
    """

    probes: int = 6
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.probes < 3:
            raise ValueError(f"HutchPP({self.probes}) needs at least three products. Use Hutchinson({self.probes}).")

    def draw(self, like: Tensor) -> Tensor:
        return Hutchinson(2 * (self.probes // 3)).draw(like)

    def __call__(self, derivative: Derivative, probes: Tensor) -> Tensor:
        sketch, rest = probes.chunk(2)
        basis = torch.linalg.qr(derivative(sketch).permute(1, 2, 0).detach())[0].permute(2, 0, 1)  # (P, B, D)
        rest = rest - torch.einsum("pbd,qbd,qbe->pbe", rest, basis, basis)
        both = torch.cat([basis, rest])
        along = (both * derivative(both)).sum(2)
        return along[: len(basis)].sum(0) + along[len(basis) :].mean(0)


def flatten(u: State) -> Tensor:
    """The coordinates of a tangent, ``(B, D)``."""
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves(u)], 1)


def unflatten(flat: Tensor, like: State) -> State:
    """The inverse of :func:`flatten` for tangents of the shape of ``like``."""
    sizes = [leaf[0].numel() for leaf in leaves(like)]
    pieces = iter(flat.split(sizes, 1))
    return tree_map(lambda leaf: next(pieces).reshape(leaf.shape), like)


@dataclass(frozen=True)
class Walk:
    """Where data came from.

    Attributes:
        noise: the state at the start of time.
        logp: log-density of the data in nats, ``(B,)``.
        energy: kinetic energy, the integral of |velocity|² over time, ``(B,)``.
    """

    noise: State
    logp: Tensor
    energy: Tensor


def backward(
    path: Path, predict: Callable[..., Any], x: State, prior: Prior, solver: Any, steps: int | Tensor = 100,
    divergence: Divergence = ExactTrace(), independent: bool = True,
) -> Walk:  # fmt: skip
    """Carry data back to noise with log-density and kinetic energy.

    Args:
        path: a bound path on a smooth space.
        predict: the network, ``(x, t) -> raw``.
        x: data at t = 1.
        prior: the law of the state at t = 0.
        solver: any solver for smooth spaces.
        steps: number of steps or a tensor of times in [0, 1].
        divergence: how the trace is found.
        independent: whether noise and data were independent in training.

    Raises:
        TypeError: on spaces that are not smooth, and for priors without a density.
    """
    space = path.space
    if not space.smooth:
        raise TypeError("a density needs a smooth space: classes move by random jumps. See likelihood.elbo.")
    prior.log_prob(space, x)  # a prior without a density says so before the first step
    times = reverse_grid(path, steps if torch.is_tensor(steps) else density_grid(path, steps), x)
    path.check(1 - times)
    zero = leaves(x)[0].new_zeros(batch_size(x))
    x, gain = path.outset(x, zero + 1 - float(times[0]), independent)
    field = _Augmented(path, predict, divergence, x)
    line = Euclidean((), on="graph").bind(Context.full(len(zero)).to(zero.device))
    whole = Field(Product(state=space, logp=line, energy=line), measured=("state", "logp"))
    end = solver.integrate(whole, field, {"state": x, "logp": gain, "energy": zero}, times)
    return Walk(end["state"], prior.log_prob(space, end["state"]) + end["logp"], end["energy"])


class _Augmented:
    """The velocity of (state, logp, energy) backwards in time, with probes that are drawn once."""

    def __init__(self, path: Path, predict: Callable[..., Any], divergence: Divergence, x: State) -> None:
        self.path, self.predict, self.divergence = path, predict, divergence
        self.probes = divergence.draw(flatten(path.space.log(x, x)))

    def __call__(self, state: dict[str, Any], r: Tensor) -> dict[str, Any]:
        x, t, path = state["state"], 1 - r, self.path
        derivative = Derivative(
            path.space, lambda y: path.velocity(self.predict(y, t), y, t), x, getattr(self.divergence, "chunk", None)
        )
        trace = self.divergence(derivative, self.probes)
        u = derivative.velocity
        return {"state": scale(-1.0, u), "logp": -trace, "energy": path.space.inner(x, u, u)}


def density_grid(path: Path, steps: int) -> Tensor:
    """``steps`` steps of [0, 1] for a density: equal, or where the velocity is undefined at t = 1 shrinking towards it
    like a cube, so that many of them lie where the pace is fast."""
    if steps < 1:
        raise ValueError(f"steps={steps}: a density needs at least one step.")
    rest = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return 1 - rest**3 if path.singular else 1 - rest


def reverse_grid(path: Path, times: Tensor, x: State) -> Tensor:
    """The times of a walk backwards, counted from t = 1: it starts a little later than t = 1 where the velocity is
    undefined there, by 1e-5 in float64 and 1e-3 in float32."""
    times = 1 - times.detach().double().cpu().flip(0)
    if not path.singular:
        return times
    start = 1e-5 if leaves(x)[0].dtype == torch.float64 else 1e-3
    late = times[times > 2 * start]
    return torch.cat([times.new_tensor([max(start, float(times[0]))]), late])


def bits_per_dimension(logp: Tensor, dimension: Tensor | int, bin_width: float = 1.0) -> Tensor:
    """Negative log-likelihood in bits a dimension ``(B,)`` of data that were rounded to bins and dithered.

    Args:
        logp: log-density in nats of the data in their own units, ``(B,)``.
        dimension: degrees of freedom, as a number or ``(B,)``.
        bin_width: width of a bin in those units (2 / 255 for 8-bit images scaled to [-1, 1], 1 / 256 for [0, 1)).
    """
    return -(logp / dimension + math.log(bin_width)) / math.log(2)


def jump_cost(path: Any, raw: Tensor, x: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The rate at which the bound of :func:`elbo` pays at (x, t) for not knowing ``x1``, in nats a unit of time,
    ``(B,)``: k'/(1 - k) sum_i (1[x = x1] - p(x) - 1[x != x1] log p(x1)), p the predicted probabilities.

    Raises TypeError on smooth spaces.
    """
    if path.space.smooth:
        raise TypeError(f"{path!r} has a density; the bound is for classes. Use Flow.log_prob.")
    p = path.endpoint(raw, x, t)
    same = (x * x1).sum(-1)
    surprise = torch.where(
        same > 0, 0.0, -torch.where(x1 > 0, p, 1.0).clamp_min(torch.finfo(p.dtype).tiny).log().sum(-1)
    )
    cost = torch.where(path.space.counted, same - (p * x).sum(-1) + surprise, 0.0)
    return path.pace(t) * cost.reshape(len(cost), -1).sum(1)


def elbo(flow: Any, x1: State, context: Context, draws: int = 64, seed: int | None = None) -> Tensor:
    """An estimate of a lower bound on the log-probability of classes in nats, ``(B,)`` (Campbell et al. 2022; Shi et
    al. 2024; Gat et al. 2024), for noise that is independent of the data. Equal to the log-probability in the mean for
    masked noise and the true posterior.

    Args:
        flow: a flow on classes, or on a product of classes.
        x1: data.
        context: their context.
        draws: times, one in each of as many equal intervals; all data share them.
        seed: of times and noise.
    """
    parts = getattr(flow.path, "parts", {"": flow.path})
    with torch.random.fork_rng([], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        path = flow.path.bind(context, flow.prior)
        like = leaves(x1)[0]
        total = like.new_zeros(batch_size(x1))
        for k in range(draws):
            t = (k + torch.rand(len(total))).to(like) / draws
            x0 = tree_map(lambda leaf: leaf.to(like), flow.prior.sample(path.space, context))
            x = path.sample(x0, x1, t)
            raw = flow.network(x, t, context)
            for name in parts:
                part, values = (path.parts[name], [v[name] for v in (raw, x, x1)]) if name else (path, [raw, x, x1])
                total = total - jump_cost(part, *values, t) / draws
    return total
