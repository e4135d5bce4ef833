"""Particles: sample p(x1) L(x1), for a trained flow p and any likelihood or reward log L, with weights that are right.

Sequential Monte Carlo walks K particles for each sample from noise to data. At each time a *twist* says how promising a
particle is: the likelihood of the datum that the network predicts from there. Steps may be drawn towards it, weights
make up for that, and where few particles carry the weight they are drawn anew by it (Wu, Trippe, Naesseth, Blei &
Cunningham 2023, TDS). At t = 1 the twist is the likelihood itself, so that the weighted particles tend to the posterior
as K grows, however rough the twist was, and the product of the mean weights estimates the evidence without bias.

Steps have a law where noise is exchanged: Gaussian noise on linear spaces, and classes. The flow of a curved space, or
of a coupling, knows no such noise. There the walk is the flow itself, and particles that were copied move apart by
Metropolis-Hastings steps of their noise x0 (Gilks & Berzuini 2001): that needs no score and no independence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fm_science import ancestral
from fm_science.contract import check_context, rewards
from fm_science.flow import Flow
from fm_science.networks import TransportMap
from fm_science.paths import Bridge, Path
from fm_science.population import Population, effective_size, normalised, systematic
from fm_science.sampler import Predictor
from fm_science.seeds import seeded
from fm_science.solvers import Heun, Solver
from fm_science.state import Context, State, leaves, map_leaves, take, tree_map, zip_leaves

LogLikelihood = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Particles:
    """Posterior sampling by sequential Monte Carlo: ``Particles(log_likelihood)(flow, context)``. For all spaces, paths
    and products; for parts that jump beside parts of curved spaces, the latter differ by their first noise alone.

    Args:
        log_likelihood: ``(x1) -> (B,)`` in nats, of states at t = 1, up to a constant; any reward serves.
        count: particles for each sample, K.
        guidance: how strongly steps follow the gradient of the twist; 1 is the exact answer to an exact twist, 0 needs
            no gradient, so that ``log_likelihood`` may be any function.
        threshold: particles are drawn anew where the effective sample size is below this share of K.
        tempering: the twist is the likelihood to this power, a function of time ``t (B,) -> (B,)``, since the predicted
            datum is less certain than a datum; ``None``: the squared share of the signal in the variance of x_t. It
            changes which particles live, not what they tend to; it is one at t = 1 whatever it says.
        moves: steps of the noise after each such draw, each a walk from t = 0 to there; where no part is stirred.
        draws: endpoints drawn from the predicted probabilities for each twist, where there are classes.
        solver: of the walk where no part is stirred.

    Raises ValueError for numbers outside their range.
    """

    log_likelihood: LogLikelihood
    count: int = 64
    guidance: float = 1.0
    threshold: float = 0.5
    tempering: Callable[[Tensor], Tensor] | None = None
    moves: int = 4
    draws: int = 8
    solver: Solver = field(default_factory=Heun)

    def __post_init__(self) -> None:
        if min(self.count, self.draws) < 1 or self.moves < 0 or not 0 <= self.threshold <= 1:
            raise ValueError(
                f"Particles(count={self.count}, draws={self.draws}, moves={self.moves}, threshold={self.threshold}): "
                "expected at least one particle and draw, no negative number of moves, and a threshold from 0 to 1."
            )

    @torch.no_grad()
    def __call__(
        self, flow: Flow, context: Context, steps: int | Tensor | None = None, seed: int | None = None
    ) -> Population:  # fmt: skip
        """Particles for each sample of ``context`` ``(B,)``, with their weights.

        Args:
            flow: trained; its sampler's network and path are used, and its steps unless others are given.
            context: what to make.
            steps: number of steps, or a tensor of times in [0, 1] that ends at 1.
            seed: the same seed, context and batch size give the same particles.

        Raises:
            TypeError: for networks that look back or jump, and noise without a density where it must move.
            ValueError: for a likelihood that is not one number a sample, or has no gradient to follow.
        """
        check_context(context)
        _refuse(flow)
        times = flow.grid(steps)
        if float(times[-1]) != 1.0:
            raise ValueError(f"the times end at {float(times[-1]):g}; a likelihood of data needs them to end at 1.")
        with seeded(seed, context.mask.device):
            wide = context.take(torch.arange(context.size, device=context.mask.device).repeat_interleave(self.count))
            path = (flow.sampler.path or flow.path).bind(wide, flow.prior)
            path.check(times)
            walk = _Walk(self, flow, path, Predictor(flow.sampled, path, wide), wide, times)
            fixed = path.space.smooth and not all(ancestral.stirred(p) and free for p, free in _freedom(flow, path))
            return walk.moving() if fixed else walk.stirred()

    def twist(self, path: Path, raw: State, x: State, t: Tensor) -> Tensor:
        """The log-likelihood of the predicted datum, ``(B,)``: of endpoints, or the mean over some draws of classes."""
        share = _signal_share(path, t) if self.tempering is None else self.tempering(t)
        found = [rewards(self.log_likelihood, _ahead(path, raw, x, t)) for _ in range(self._looks(path))]
        return share * (torch.logsumexp(torch.stack(found), 0) - math.log(len(found)))

    def _looks(self, path: Path) -> int:
        return 1 if path.space.smooth else self.draws


class _Walk:
    """The particles of one call on their way."""

    def __init__(
        self, law: Particles, flow: Flow, path: Path, predict: Predictor, context: Context, times: Tensor
    ) -> None:  # fmt: skip
        self.law, self.flow, self.path, self.predict = law, flow, path, predict
        self.x = flow.noise(context)
        self.noise = self.x
        first = leaves(self.x)[0]
        self.rows = len(first)
        self.times = times.to(first)
        self.grid = [self.times.new_full((self.rows,), float(t)) for t in times]
        self.shape = (self.rows // law.count, law.count)
        self.log_weights = first.new_full(self.shape, -math.log(law.count))
        self.log_evidence = first.new_zeros(self.shape[0])
        self.sizes: list[Tensor] = []

    def stirred(self) -> Population:
        """The walk of steps that have a law."""
        guided = self.law.guidance > 0 and any(ancestral.stirred(p) and f for p, f in _freedom(self.flow, self.path))
        before = torch.zeros_like(self.grid[0])
        for t, s in zip(self.grid[:-1], self.grid[1:], strict=True):
            raw, value, gradient = self._look(t, guided)
            index = self.weigh(value - before)
            self.x, raw, value, gradient = (take(z, index) for z in (self.x, raw, value, gradient))
            laws = ancestral.transitions(
                self.path, raw, self.x, t, s, self.flow.independent, self.flow.independent_parts
            )
            drawn = ancestral.moved(self.path, laws, gradient) if guided else laws
            self.x = ancestral.draw(drawn)
            before = value - ancestral.log_ratio(self.path, laws, drawn, self.x)
        return self.finish(before)

    def moving(self) -> Population:
        """The walk along the flow, with steps of the noise after each draw."""
        before = torch.zeros_like(self.grid[0])
        for k, t in enumerate(self.grid[:-1]):
            value = self.law.twist(self.path, self.predict(self.x, t), self.x, t)
            index = self.weigh(value - before)
            copied = bool((index != torch.arange(self.rows, device=index.device)).any())
            self.x, self.noise, before = (take(z, index) for z in (self.x, self.noise, value))
            for _ in range(self.law.moves if copied else 0):
                before = self._step_noise(k, before)
            self.x = self._along(self.x, self.times[k : k + 2])
        return self.finish(before)

    def finish(self, before: Tensor) -> Population:
        """The particles at t = 1, weighed by the likelihood."""
        value = rewards(self.law.log_likelihood, self.x)
        self._reweigh(value - before)
        self.predict.logits.finish()
        return Population(self.x, self.log_weights, self.log_evidence, torch.stack(self.sizes))

    def weigh(self, gain: Tensor) -> Tensor:
        """Add to the log-weights; which particles live on, by their row: all, or some several times."""
        self._reweigh(gain)
        few = self.sizes[-1] < self.law.threshold * self.law.count
        stay = torch.arange(self.law.count, device=few.device).expand(self.shape)
        index = torch.where(few[:, None], systematic(self.log_weights), stay)
        even = torch.full_like(self.log_weights, -math.log(self.law.count))
        self.log_weights = torch.where(few[:, None], even, self.log_weights)
        first = self.law.count * torch.arange(self.shape[0], device=few.device)
        return (first[:, None] + index).flatten()

    def _reweigh(self, gain: Tensor) -> None:
        gain = torch.nan_to_num(gain, nan=-math.inf, posinf=math.inf, neginf=-math.inf).reshape(self.shape)
        self.log_evidence = self.log_evidence + torch.logsumexp(self.log_weights + gain, 1)
        self.log_weights = normalised(self.log_weights + gain)
        self.sizes.append(effective_size(self.log_weights))

    def _look(self, t: Tensor, guided: bool) -> tuple[State, Tensor, State]:
        """The network's output, the twist, and its gradient with respect to the point; {} where none is followed."""
        if not guided:
            raw = self.predict(self.x, t)
            return raw, self.law.twist(self.path, raw, self.x, t), {}
        with torch.enable_grad():
            point = tree_map(lambda v: v.detach().requires_grad_(), self.x)
            raw = self.predict(point, t)
            value = self.law.twist(self.path, raw, point, t)
            if not value.requires_grad:
                raise ValueError("the log-likelihood has no gradient: use Particles(..., guidance=0).")
            slopes = iter(torch.autograd.grad(value.sum(), leaves(point), materialize_grads=True))
        gradient = tree_map(lambda v: self.law.guidance * next(slopes), point)
        return tree_map(torch.Tensor.detach, raw), value.detach(), gradient

    def _step_noise(self, k: int, value: Tensor) -> Tensor:
        """One Metropolis-Hastings step of the noise of each particle, by a random walk on the space as wide as its
        particles lie apart; the twists after it."""
        space, prior, t = self.path.space, self.path.source(self.flow.prior), self.grid[k]
        noise = space.exp(self.noise, tree_map(_scaled(self._spread()), space.gaussian(self.noise)))
        x = self._along(noise, self.times[: k + 1])
        found = self.law.twist(self.path, self.predict(x, t), x, t)
        gain = found - value + prior.log_prob(space, noise) - prior.log_prob(space, self.noise)
        taken = torch.rand_like(gain).log() < gain
        self.noise, self.x = (_chosen(taken, new, old) for new, old in ((noise, self.noise), (x, self.x)))
        return torch.where(taken, found, value)

    def _spread(self) -> Tensor:
        """The width of a step, ``(B,)``: 2.38 / sqrt(d) times the spread of the noise of a sample's particles along one
        direction (Roberts, Gelman & Gilks 1997), from the distances of neighbours in a random order."""
        order = torch.rand(self.shape, device=self.log_weights.device).argsort(1)
        first = self.law.count * torch.arange(self.shape[0], device=order.device)[:, None]
        other = torch.empty_like(order).scatter_(1, order, order.roll(1, 1))
        apart = self.path.space.distance(self.noise, take(self.noise, (first + other).flatten())).square()
        dimension = self.path.space.dimension.to(apart.dtype).clamp_min(1)
        mean = apart.reshape(self.shape).mean(1, keepdim=True).expand(self.shape).flatten()
        return 2.38 / dimension.sqrt() * (mean / (2 * dimension)).sqrt()

    def _along(self, x: State, times: Tensor) -> State:
        for state in self.law.solver.trajectory(self.path, self.predict, x, times) if len(times) > 1 else ():
            x = state
        return x


def _ahead(path: Path, raw: State, x: State, t: Tensor) -> State:
    """The predicted datum: an endpoint, and classes drawn from their predicted probabilities."""

    def one(part: Path, output: State, y: Tensor) -> Tensor:
        if part.space.smooth:
            return part.endpoint(output, y, t)
        return part.space.exp(y.detach(), (part.endpoint(output, y, t) - y).detach())

    return map_leaves(one, path, raw, x)


def _signal_share(path: Path, t: Tensor) -> Tensor:
    """(alpha² / (alpha² + sigma²))² ``(B,)``, the mean over the parts; where there are no such weights, of t and 1 -
    t."""
    shares = []
    for (part,) in zip_leaves(path):
        alpha, sigma = (part.schedule(t)[0], part.sigma(t)) if isinstance(part, Bridge) else (t, 1 - t)
        shares.append((alpha.square() / (alpha.square() + sigma.square())).square())
    return torch.stack(shares).mean(0)


def _freedom(flow: Flow, path: Path) -> list[tuple[Path, bool]]:
    """The leaf paths, each with whether its noise was independent of the data in training."""
    if not path.parts:
        return [(path, flow.independent)]
    free = {k: flow.independent or k in flow.independent_parts for k in path.parts}
    return [(leaf, free[k]) for k, part in path.parts.items() for (leaf,) in zip_leaves(part)]


def _scaled(width: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda u: width.reshape(-1, *[1] * (u.ndim - 1)) * u


def _chosen(taken: Tensor, new: State, old: State) -> State:
    return tree_map(lambda a, b: torch.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def _refuse(flow: Flow) -> None:
    """Raises TypeError for networks that particles cannot follow."""
    network = flow.sampled
    if isinstance(network, TransportMap):
        raise TypeError(f"{type(network).__name__} jumps from noise to data at once: weigh its samples by exp(reward).")
    if network.self_conditioned:
        raise TypeError("particles walk step by step, and a self-conditioned network looks back: train one without.")
