"""Functions with observations at a few sensors: three methods to complete them.

*Amortised*: the network was trained with the values of some random sensors as a condition, and completes any
observations. *Correction*: for any trained flow; at each step the predicted function is corrected at the observed
sensors (Cheng et al. 2025). It is fast and reproduces observations without noise exactly, but gives no exact posterior.
*Latent*: for any trained flow; functions are images of noise, so the posterior is a distribution of noise, Gaussian
times a likelihood, and elliptical slice sampling converges to it exactly, without gradients and at any resolution
(Murray, Adams & MacKay 2010; the idea is that of Shi et al. 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.errors import UserError
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching, Objective
from fm_science.solvers import Heun, Predict, Solver
from fm_science.state import Context, State, expand_like

from . import tables
from .sensors import Sampled

SEEN, SHOWN = "seen", "shown"  # conditions (B, N) and (B, N, C): which sensors were observed, and the values there
GUESS = "guess"  # and the regression from them, (B, N, C)


def observed(context: Context) -> tuple[Tensor, Tensor] | None:
    """Which sensors were observed, ``(B, N)`` bool, and the values there; ``None`` without observations."""
    if SEEN not in context.cond:
        return None
    return context.cond[SEEN] > 0.5, context.cond[SHOWN]


def show(context: Context, seen: Tensor, values: Tensor) -> Context:
    """The context with ``values`` ``(B, N, C)`` observed where ``seen`` ``(B, N)`` is true."""
    seen = seen & context.mask
    shown = torch.where(seen[..., None], values, 0.0)
    return replace(context, cond={**context.cond, SEEN: seen.to(values), SHOWN: shown})


@dataclass(frozen=True)
class Amortised(Objective):
    """Flow matching with the values of some sensors given to the network.

    Args:
        inner: the objective.
        least, most: how many sensors are shown, drawn uniformly for each sample.
        noise: standard deviation of the noise of these values, inside units.
        hidden: share of samples without observations, so that the flow can also sample unconditionally.
        times: a distribution of times instead of the inner one's.
    """

    inner: FlowMatching
    least: int = 1
    most: int = 10
    noise: float = 0.0
    hidden: float = 0.1
    times: Any = field(default=None)

    @property
    def coupling(self) -> Any:
        """Which noise is paired with which function."""
        return self.inner.coupling

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        inner = self.inner if self.times is None else replace(self.inner, times=self.times)
        return inner(flow, x1, self.shown(x1, context), x0)

    def shown(self, x1: Tensor, context: Context) -> Context:
        """The context with the values of a few random sensors."""
        count = torch.randint(self.least, self.most + 1, (len(x1), 1), device=x1.device)
        count = torch.where(torch.rand(len(x1), 1, device=x1.device) < self.hidden, 0, count)
        lottery = torch.rand(context.mask.shape, device=x1.device).masked_fill(~context.mask, 2.0)
        seen = lottery.argsort(1).argsort(1) < count
        return show(context, seen, x1 + self.noise * torch.randn_like(x1))


@dataclass(frozen=True)
class Corrected(Solver):
    """Euler steps whose predicted function is corrected at the observed sensors before the step is taken; the rest
    adapts through the network. Each step is repeated with new noise, so that distant values are affected too.

    Args:
        rounds: how often each step is repeated.
    """

    rounds: int = 3

    @derived
    def stochastic(self) -> bool:
        return self.rounds > 1

    def step(self, path: Any, predict: Predict, x: State, t: Tensor, h: Tensor) -> Any:
        seen = observed(path.context)
        endpoint = path.endpoint(predict(x, t), x, t)
        if seen is None:
            return path.step_to_endpoint(x, endpoint, t, t + h)
        for k in range(self.rounds):
            if k:
                x = path.sample(path.noise(x), endpoint, t)
                endpoint = path.endpoint(predict(x, t), x, t)
            endpoint = torch.where(seen[0][..., None], seen[1].to(x), endpoint)
        return path.step_to_endpoint(x, endpoint, t, t + h)

    def trajectory(self, path: Any, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        for state in super().trajectory(path, predict, x, times):
            x = state
            yield state
        seen = observed(path.context)
        if seen is not None and float(times[-1]) == 1:
            yield torch.where(seen[0][..., None], seen[1].to(x), x)


@dataclass(frozen=True)
class LatentPosterior(Solver):
    """Samples of the posterior of functions given noisy observations: MCMC over the noise, then the flow.

    Each sample is a separate Markov chain. A move rotates the noise on a random ellipse through it, to the first angle
    that the likelihood accepts; every move costs some integrations of the flow, with ``coarse`` steps. The result is
    the last point of the chain, integrated with all steps.

    A chain that began at a sample of the noise would need about a hundred moves to reach the region of high likelihood.
    So if all samples share sensors and observations it begins near the posterior: at a sample that is moved by
    ``rounds`` Gauss-Newton steps until the function fits a noisy copy of the observations (randomised maximum
    likelihood; Oliver, He & Reynolds 1996), as if the flow left changes of the noise unchanged. For such a flow that is
    a sample of the posterior itself; for others the moves correct the difference.

    Args:
        noise: standard deviation of the observations, inside units.
        moves: of each chain.
        coarse: steps of the flow during MCMC.
        rounds: steps towards the observations before the first move.
        inner: the solver of the flow.
    """

    noise: float = 0.1
    moves: int = 40
    coarse: int = 10
    rounds: int = 3
    inner: Solver = Heun()

    def step(self, path: Any, predict: Predict, x: State, t: Tensor, h: Tensor) -> Any:
        return self.inner.step(path, predict, x, t, h)

    def trajectory(self, path: Any, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        seen = observed(path.context)
        if seen is None:
            yield from self.inner.trajectory(path, predict, x, times)
            return
        free = _blind(predict)
        grid = torch.linspace(float(times[0]), float(times[-1]), self.coarse + 1, dtype=torch.float64)

        def walk(z: Tensor) -> Tensor:
            return self.inner.integrate(path, free, z, grid)

        def fit(z: Tensor) -> Tensor:
            y = walk(z)
            error = torch.where(seen[0][..., None], y - seen[1].to(y), 0.0)
            return -0.5 * error.square().flatten(1).sum(1) / self.noise**2

        if self.rounds and _shared(path.context, seen):
            x = _begin(path, x, (seen[0][0], seen[1]), walk, self.noise, self.rounds)
        now = fit(x)
        for _ in range(self.moves):
            x, now = _slice(x, now, path.noise(x), fit)
        yield from self.inner.trajectory(path, free, x, times)


def _blind(predict: Any) -> Any:
    """The network without the observations, which are in the likelihood."""
    context = predict.context
    hidden = replace(context, cond={k: v for k, v in context.cond.items() if k not in (SEEN, SHOWN)})
    return lambda x, t: predict.network(x, t, hidden)


def _shared(context: Context, seen: tuple[Tensor, Tensor]) -> bool:
    """Whether all samples have the same sensors and the same observed ones."""
    alike = [context.mask, seen[0], *(context.cond[k] for k in ("coords",) if k in context.cond)]
    return bool(seen[0].any()) and all(bool((v == v[:1]).all()) for v in alike)


def _begin(
    path: Any, x: Tensor, seen: tuple[Tensor, Tensor], walk: Callable[[Tensor], Tensor], noise: float, rounds: int,
    draws: int = 512,
) -> Tensor:  # fmt: skip
    """Noise whose functions fit noisy copies of the observations, moved from ``x`` along the covariance of the noise,
    which is estimated from ``draws`` draws. The best of all rounds is kept."""
    many = torch.cat([path.noise(x) for _ in range(-(-draws // len(x)))]).double()
    some = many[:, seen[0]].flatten(1)
    inner = some.T @ some / len(many) + noise**2 * torch.eye(some.shape[1]).to(some)
    gain = torch.linalg.solve(inner, some.T @ many.flatten(1) / len(many)).to(x)  # (observed, N C)
    wanted = seen[1].to(x)[:, seen[0]]
    wanted = wanted + noise * torch.randn_like(wanted)
    z, best, least = x, x, torch.full_like(x[:, 0, 0], torch.inf)
    for k in range(rounds + 1):
        miss = (wanted - walk(z)[:, seen[0]]).flatten(1)
        far = miss.square().sum(1)
        best, least = torch.where(expand_like(far < least, x), z, best), torch.minimum(far, least)
        if k < rounds:
            z = x + ((miss + (z - x)[:, seen[0]].flatten(1)) @ gain).view_as(x)
    return best


def _slice(x: Tensor, now: Tensor, other: Tensor, fit: Any, most: int = 40) -> tuple[Tensor, Tensor]:
    """One move of elliptical slice sampling on a batch of independent chains: new points and their log-likelihoods."""
    level = now + torch.rand_like(now).clamp_min(1e-30).log()
    angle = 2 * math.pi * torch.rand_like(now)
    low, high = angle - 2 * math.pi, angle
    done = torch.zeros_like(now, dtype=torch.bool)
    best, value = x, now
    for _ in range(most):
        there = expand_like(angle.cos(), x) * x + expand_like(angle.sin(), x) * other
        reached = fit(there)
        taken = ~done & (reached > level)
        best = torch.where(expand_like(taken, x), there, best)
        value, done = torch.where(taken, reached, value), done | taken
        if bool(done.all()):
            break
        low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
        angle = torch.where(done, angle, low + (high - low) * torch.rand_like(angle))
    return best, value


def observations(file: str, dim: int, channels: int) -> Sampled:
    """The observations: a .csv file with the columns x[, y[, z]] and one column of values per channel, in the units of
    the data. Raises UserError otherwise."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no file of observations {file!r}")
    try:
        (found,) = tables.listed(tables.rows(path))
    except (ValueError, IndexError) as error:
        names = ["value"] if channels == 1 else [f"value{k}" for k in range(channels)]
        raise UserError(
            f"{file} holds no observations: {error}; expected lines under {','.join([*tables.AXES[:dim], *names])}"
        ) from error
    if found.coords.shape[1] != dim or found.values.shape[1] != channels:
        raise UserError(f"{file} has {found.coords.shape[1]} coordinates and {found.values.shape[1]} values per line; "
                        f"these functions have {dim} and {channels}")  # fmt: skip
    return found
