"""The same work done by fm-science and by other libraries: training steps, geodesic paths, divergences, alignments.

Each comparison first makes sure that both sides find the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.couplings import clouds, rotation_loop
from benchmarks.duel import Duel, times
from fm_science.couplings import Transport
from fm_science.couplings.costs import groups, table
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Uniform
from fm_science.solvers import Euler
from fm_science.spaces import Euclidean, Sphere
from fm_science.state import Context
from fm_science.symmetries import Rotations


class Field(nn.Module):
    """A perceptron on a vector and the time. ``x`` is ``(..., dim)``, ``t`` is ``(B,)``; the context is not read."""

    def __init__(self, dim: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [dim + 1, *[width] * depth]
        hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        time = t.reshape(-1, *[1] * (x.ndim - 1)).expand(*x.shape[:-1], 1)
        return self.net(torch.cat([x, time], -1))


def training(runs: int, batch: int = 1024, dim: int = 64, width: int = 512, depth: int = 4) -> list[Duel]:
    """A whole training step (loss, gradient, Adam), beside a loop written by hand and one around torchcfm's matcher."""
    name = f"training step, MLP {depth}x{width}, batch {batch}, {dim}-d"
    data = torch.randn(batch, dim)
    net = Field(dim, width, depth)  # one network for all, so that they differ in nothing else
    bare = times(_our_step(data, net), _step(data, net, _by_hand), runs, least=0.0)
    return [
        Duel(name, "PyTorch by hand", 1.05, *bare),
        _guarded(
            name, "torchcfm", 1.0, lambda: times(_our_step(data, net), _step(data, net, _matcher()), runs, least=0.0)
        ),
        _guarded(f"its loss alone, network left out, {batch} x {dim}", "torchcfm", None, lambda: _losses(data, runs)),
    ]


Pairs = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _by_hand(x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Time, point and target of straight paths from normal noise."""
    x0, t = torch.randn_like(x1), torch.rand(len(x1))
    s = t[:, None]
    return t, (1 - s) * x0 + s * x1, x1 - x0


def _matcher() -> Pairs:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)
    return lambda x1: matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)


def _step(data: Tensor, net: Field, pairs: Pairs) -> Callable[[], object]:
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)

    def step() -> None:
        t, x, target = pairs(data)
        loss = (net(x, t) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _our_step(data: Tensor, net: Field) -> Callable[[], object]:
    flow = Flow(Geodesic(Euclidean(data.shape[1])), Normal(), net)
    objective, optimizer = FlowMatching(), torch.optim.Adam(flow.parameters(), 1e-4)
    x1, context = data[:, None], Context.full(len(data))

    def step() -> None:
        loss = objective(flow, x1, context)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _losses(data: Tensor, runs: int) -> Any:
    x1, context, raw, pairs = data[:, None], Context.full(len(data)), torch.randn_like(data), _matcher()
    flow, objective = Flow(Geodesic(Euclidean(data.shape[1])), Normal(), lambda x, t, c: raw[:, None]), FlowMatching()

    def peer() -> Tensor:
        return (raw - pairs(data)[2]).square().mean()

    return times(lambda: objective(flow, x1, context)["loss"].mean(), peer, runs)


def geodesics(runs: int, batch: int = 4096) -> list[Duel]:
    """Points on great circles of the sphere and the velocities there."""
    return [_guarded(f"path and velocity on S2, batch {batch}", "flow_matching", 0.2, lambda: _geodesics(runs, batch))]


def _geodesics(runs: int, batch: int) -> Any:
    from flow_matching.path import GeodesicProbPath
    from flow_matching.path.scheduler import CondOTScheduler
    from flow_matching.utils.manifolds import Sphere as PeerSphere

    context, peer = Context.full(batch), GeodesicProbPath(CondOTScheduler(), PeerSphere())
    path = Geodesic(Sphere(2)).bind(context)
    x0, x1 = (Uniform().sample(Sphere(2), context) for _ in range(2))
    t = torch.rand(batch)
    a, b = x0[:, 0], x1[:, 0]
    found, (x, u) = peer.sample(x_0=a, x_1=b, t=t), path.sample_with_velocity(x0, x1, t)
    assert torch.allclose(x[:, 0], found.x_t, atol=1e-3)
    assert torch.allclose(u[:, 0], found.dx_t, atol=1e-2)
    return times(lambda: path.sample_with_velocity(x0, x1, t), lambda: peer.sample(x_0=a, x_1=b, t=t), runs)


def divergences(runs: int, batch: int = 64, dim: int = 64, steps: int = 10) -> list[Duel]:
    """Log-densities by Euler steps with the exact divergence."""
    rows = []
    for width, depth, goal in ((128, 3, 1 / 1.7), (512, 4, None)):
        name = f"exact log-density, MLP {depth}x{width}, D={dim} B={batch}, {steps} steps"
        work = lambda width=width, depth=depth: _densities(runs, batch, dim, steps, width, depth)  # noqa: E731
        rows.append(_guarded(name, "flow_matching", goal, work))
    return rows


def _densities(runs: int, batch: int, dim: int, steps: int, width: int, depth: int) -> Any:
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    class Wrapped(ModelWrapper):
        def forward(self, x: Tensor, t: Tensor, **extras: Any) -> Tensor:
            return self.model(x, t.expand(len(x)))

    torch.manual_seed(0)
    net, x, context = Field(dim, width, depth), torch.randn(batch, dim), Context.full(batch)
    flow, solver = Flow(Geodesic(Euclidean(dim)), Normal(), net), ODESolver(Wrapped(net))
    normal = torch.distributions.Normal(0.0, 1.0)

    def peer() -> Tensor:
        return solver.compute_likelihood(
            x, lambda z: normal.log_prob(z).sum(-1), step_size=1 / steps, method="euler", exact_divergence=True
        )[1]  # fmt: skip

    @torch.no_grad()
    def ours() -> Tensor:
        return flow.log_prob(x[:, None], context, Euler(), steps)

    assert torch.allclose(ours(), peer(), atol=1e-3)
    return times(ours, peer, runs)


def alignments(runs: int, batch: int = 64, sites: int = 50) -> list[Duel]:
    """Each noise turned towards each datum, all pairs of a batch, and the cheapest pairing."""
    name, goal = f"rotation and pairing of all pairs, B={batch} N={sites}", 1 / 50
    row = _guarded(name, "bionemo-moco", goal, lambda: _beside_moco(runs, batch, sites))
    if not row.absent:
        return [row]
    space, x0, x1, context = clouds(batch, sites)
    group = groups(context)
    found = times(
        lambda: table(space, x0, x1, context, group, (Rotations(),)), lambda: rotation_loop(x0, x1), runs
    )  # fmt: skip
    return [row, Duel(f"rotation of all pairs, B={batch} N={sites}", "a plain loop (Kabsch)", goal, *found)]


def _beside_moco(runs: int, batch: int, sites: int) -> Any:
    from bionemo.moco.interpolants.continuous_time.continuous.data_augmentation import equivariant_ot_sampler

    peer = equivariant_ot_sampler.EquivariantOTSampler(method="exact")
    space, x0, x1, context = clouds(batch, sites)
    coupling = Transport(Rotations())
    costs = table(space, x0, x1, context, groups(context), (Rotations(),))
    assert torch.allclose(costs.sqrt(), peer._calculate_cost_matrix(x0, x1)[0], rtol=1e-3)
    return times(
        lambda: coupling.pair(space, x0, x1, context), lambda: peer.apply_augmentation(x0, x1), runs
    )  # fmt: skip


def _guarded(name: str, peer: str, goal: float | None, work: Callable[[], Any]) -> Duel:
    """The row of ``work``, or the reason why its peer cannot be asked."""
    try:
        return Duel(name, peer, goal, *work())
    except ModuleNotFoundError as error:
        return Duel(name, peer, goal, absent=f"not installed ({error.name})")
