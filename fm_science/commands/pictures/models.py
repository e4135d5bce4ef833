"""Pictures of models beside flows: layers that become an equation, steps down the entropy, transport maps, bridges, and
particles beside guidance."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.commands.pictures.lines import train
from fm_science.commands.pictures.mixture import Mixture, Shown, far_modes, ring, ways
from fm_science.couplings import Sinkhorn, Transport
from fm_science.distances import wasserstein
from fm_science.figures import COLOURS, INK, QUIET, figure
from fm_science.flow import Flow
from fm_science.networks import Blocks, ScoreGuided
from fm_science.objectives import JKO
from fm_science.particles import Particles
from fm_science.paths import Field, Geodesic
from fm_science.posterior import PosteriorGuided
from fm_science.priors import Normal
from fm_science.schedules import Linear
from fm_science.sde import brownian_increments
from fm_science.solvers import RK4
from fm_science.spaces import Euclidean
from fm_science.state import Context


def layers() -> Shown:
    """A normalising flow of K layers x + v(x) / K: its points, and its density by the determinants of the layers."""
    law, counts = ring(6, 2.5, 0.45), (2, 4, 8, 16, 32, 64, 128)
    z = torch.randn(1500, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = Mixture(law.weights.double(), law.means.double(), law.std)
    made, errors = figure(12, 3.1), []
    shown = made.subplots(1, 4)
    for count in counts:
        x, log = z, -0.5 * z.square().sum((1, 2)) - math.log(2 * math.pi)
        for k in range(count):
            x, volume = _layer(law, x, k / count, 1 / count)
            log = log - volume
        truth = law.density(Linear(), x, torch.ones(len(x), dtype=x.dtype)).log()
        errors.append(float((log - truth).abs().median()))
        if count in (2, 8, 64):
            axes = shown[(2, 8, 64).index(count)]
            axes.plot(*x[:, 0].T, ".", ms=2, color=COLOURS[1])
            axes.set(title=f"{count} layers", xticks=[], yticks=[], aspect="equal")
            axes.set(xlim=(-4, 4), ylim=(-4, 4))
    shown[3].loglog(counts, errors, "o-", ms=4, color=COLOURS[0], label="layers")
    shown[3].loglog(
        counts, [errors[-1] * counts[-1] / c for c in counts], ":", color=INK, label="one over their number"
    )
    shown[3].set(title="error of log density, nats", xlabel="layers")
    shown[3].legend(fontsize=7)
    listed = ", ".join(f"{c} layers {e:.2g}" for c, e in zip(counts, errors, strict=True) if c in (2, 8, 64, 128))
    return Shown(made, (f"median error of the log density, nats: {listed} (0 in the limit, the ordinary equation)",))


def _layer(law: Mixture, x: Tensor, time: float, size: float) -> tuple[Tensor, Tensor]:
    """One residual layer of the exact flow, and the log of how much it stretches volume ``(B,)``."""

    def moved(y: Tensor) -> Tensor:
        t = torch.full((1,), time, dtype=y.dtype)
        return y + size * law.velocity(Linear(), y[None, None], t)[0, 0]

    return torch.func.vmap(moved)(x[:, 0])[:, None], torch.func.vmap(
        lambda y: torch.linalg.slogdet(torch.func.jacrev(moved)(y))[1]
    )(x[:, 0])  # fmt: skip


class Line(nn.Module):
    """A small perceptron of points on the line and time, which begins at rest."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (2, 48, 48)
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        last = nn.Linear(48, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(*hidden, last)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.net(torch.cat([x[:, 0], t[:, None]], 1))[:, None]


def jko() -> Shown:
    """From two modes to noise in four steps down the relative entropy, a trained block each."""
    law, blocks, each = Mixture(torch.tensor([0.7, 0.3]), torch.tensor([[-2.0], [2.0]]), 0.4), 4, 130
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        flow = Flow(Geodesic(Euclidean(1)), Normal(), Blocks([Line() for _ in range(blocks)]))
        objective = JKO(size=0.8, block_steps=each, steps=3)
        train(flow, objective, law, blocks * each, 128, 5e-3)
    x = law.draw(3000)
    with torch.no_grad():
        states = [x, *flow.trajectory(x, Context.full(len(x)), RK4(), blocks * 6, reverse=True)][::6]
    line = torch.linspace(-4, 4, 200)
    made, facts = figure(11, 2.6), []
    for k, (axes, y) in enumerate(zip(made.subplots(1, blocks + 1, sharey=True), states, strict=True)):
        counts, edges = torch.histogram(y.flatten(), 40, range=(-4.0, 4.0), density=True)
        width = float(edges[1] - edges[0])
        middle = 0.5 * (edges[1:] + edges[:-1])
        noise = torch.exp(-0.5 * middle.square()) / math.sqrt(2 * math.pi)
        entropy = float((torch.xlogy(counts, counts / noise) * width).sum())
        axes.bar(middle, counts, width, color=COLOURS[0], alpha=0.6)
        axes.plot(line, torch.exp(-0.5 * line.square()) / math.sqrt(2 * math.pi), color=INK, lw=1)
        axes.set(title="data" if not k else f"step {k}", xlabel=f"KL {entropy:.2f}", yticks=[])
        facts.append(f"{entropy:.2f}")
    return Shown(made, (f"relative entropy to the noise, from data on: {', '.join(facts)} nats, by 40 bins",))


def transport() -> Shown:
    """Three ways from the same noise to the same law: the flow of independent pairs, the same with a swirl that leaves
    all its laws as they are, and optimal transport."""
    law, n = ring(3, 2.5, 0.3), 1000
    flow = law.flow(Linear())
    z, x = torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(1)), law.draw(n, seed=2)
    context = Context.full(n)
    start, end, _ = Transport().pair(Euclidean(2).bind(context), z, x, context)
    swirled = Field(Euclidean(2)).bind(context)
    times = torch.linspace(0, 1 - 1e-3, 121)
    pairs = {
        "flow of independent pairs": (z[:, 0], ways(flow, z, 40)[-1]),
        "the same with a swirl": (z[:, 0], RK4().integrate(swirled, partial(_swirl, law), z, times)[:, 0]),
        "optimal transport": (start[:, 0], end[:, 0]),
    }
    made, facts = figure(10, 3.7), []
    for axes, (name, (a, b)) in zip(made.subplots(1, 3), pairs.items(), strict=True):
        axes.plot(*torch.stack([a[:150], b[:150]]).permute(2, 0, 1), color=QUIET, lw=0.7)
        axes.plot(*a[:150].T, ".", ms=3, color=COLOURS[0], label="noise")
        axes.plot(*b[:150].T, ".", ms=3, color=COLOURS[1], label="data")
        cost, off = float((b - a).square().sum(1).mean()), float(wasserstein(b, x[:, 0]))
        axes.set(title=name, xlabel=f"cost {cost:.2f}", xticks=[], yticks=[], aspect="equal")
        facts.append(f"{name}: mean squared way {cost:.2f}, Wasserstein-2 to the law {off:.2f}")
    made.axes[0].legend(fontsize=7)
    floor = float(wasserstein(law.draw(n, seed=3)[:, 0], x[:, 0]))
    return Shown(made, (*facts, f"as many new points of the law: Wasserstein-2 {floor:.2f}"))


def _swirl(law: Mixture, x: Tensor, t: Tensor) -> Tensor:
    """The velocity of the flow of independent pairs, and along the level lines of the density a turned score, which
    carries no mass out of any region: div(p J grad log p) = div(J grad p) = 0."""
    sigma = (1 - t)[:, None, None]
    score = (t[:, None, None] * law.endpoint(Linear(), x, t) - x) / sigma.square()
    turned = torch.stack([-score[..., 1], score[..., 0]], -1)
    return law.velocity(Linear(), x, t) + 2.5 * sigma * turned


def bridges() -> Shown:
    """Lines, lines with noise in the middle, and Brownian bridges between entropic pairs: the Schrödinger bridge."""
    law, n, sigma, t = far_modes(), 1024, 1.0, torch.linspace(0, 1, 101)
    rng = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(n, 1, 1, generator=rng), law.draw(n)
    context = Context.full(n)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        plan = Transport(plan=Sinkhorn(2 * sigma**2, relative=False))
        y0, y1, _ = plan.pair(Euclidean(1).bind(context), x0, x1, context)
        steps = brownian_increments(t, n, 1)[..., 0]
    motion = torch.cat([torch.zeros(1, n), steps.cumsum(0)])
    bridge = motion - t[:, None] * motion[-1]
    line = x0[:, 0, 0] + t[:, None] * (x1 - x0)[:, 0, 0]
    bump = torch.sin(math.pi * t).square()[:, None] * torch.randn(n, generator=rng)
    paths = {
        "straight lines": line,
        "stochastic interpolant": line + bump,
        "Schrödinger bridge": y0[:, 0, 0] + t[:, None] * (y1 - y0)[:, 0, 0] + sigma * bridge,
    }
    made, facts = figure(10, 3.2), []
    for axes, (name, places) in zip(made.subplots(1, 3, sharey=True), paths.items(), strict=True):
        for end in (-1, 1):
            some = places[:, :60][:, torch.sign(places[-1, :60]) == end]
            axes.plot(t, some, color=COLOURS[(end + 1) // 2], lw=0.6, alpha=0.7)
        axes.set(title=name, xlabel="time t")
        cost = float((places[-1] - places[0]).square().mean())
        facts.append(f"{name}: squared length of pairs {cost:.1f}, spread at t = 1/2 {float(places[50].std()):.2f}")
    return Shown(made, tuple(facts))


def particles() -> Shown:
    """The posterior of a ring given one noisy coordinate: guidance by scores, by Kalman's step, and particles."""
    law, noise, seen, n = ring(), 0.5, 1.7, 1024
    way = torch.tensor([math.cos(0.35), math.sin(0.35)])
    flow, context = law.flow(Linear()), Context.full(n)

    def observed(x1: Tensor) -> Tensor:
        return torch.distributions.Normal(x1[:, 0] @ way, noise).log_prob(torch.tensor(seen))

    score = ScoreGuided(flow.network, flow.path, observed)
    kalman = PosteriorGuided(flow.network, flow.path, lambda x1: x1[:, 0] @ way[:, None] - seen, noise)
    found = Particles(observed, 64)(flow, Context.full(n // 64), 100, seed=0)
    points = {
        name: Flow(flow.path, Normal(), network).sample(context, RK4(), 50, seed=0)
        for name, network in (("score guidance", score), ("Kalman guidance", kalman))
    } | {"particles": found.resampled(seed=0)}
    many = law.draw(100_000, seed=1)
    weight = observed(many).softmax(0)
    exact = many[torch.multinomial(weight, n, generator=torch.Generator().manual_seed(2))]
    spare = many[torch.multinomial(weight, n, generator=torch.Generator().manual_seed(3))]
    made = figure(11, 3.3)
    facts = [f"as many exact points: {float(wasserstein(spare[:, 0], exact[:, 0])):.2f}"]
    for axes, (name, x) in zip(made.subplots(1, 4), {"exact posterior": exact, **points}.items(), strict=True):
        axes.plot(*many[:1500, 0].T, ".", ms=1, color=QUIET)
        axes.plot(*x[:, 0].T, ".", ms=2, color=COLOURS[1])
        axes.set(title=name, xticks=[], yticks=[], aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
        if name in points:
            facts.append(f"{name}: Wasserstein-2 to the posterior {float(wasserstein(x[:, 0], exact[:, 0])):.2f}")
    spread = math.sqrt(law.std**2 + noise**2)
    evidence = (
        law.weights * torch.distributions.Normal(law.means @ way, spread).log_prob(torch.tensor(seen)).exp()
    ).sum()
    guess = float(found.log_evidence.exp().mean())
    return Shown(made, (*facts, f"evidence by particles {guess:.4f} (truth {float(evidence):.4f})"))


PICTURES: dict[str, Any] = {
    "layers": layers, "jko": jko, "transport": transport, "bridges": bridges, "particles": particles,
}  # fmt: skip
