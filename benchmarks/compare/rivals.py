"""The same work done by fm-science and by other libraries: training steps, geodesic paths, divergences.

Each comparison first makes sure that both sides find the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.compare.duel import Duel, Times, guarded, times
from benchmarks.training import Perceptron, descend, total
from fm_science.couplings import Coupling, Independent
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Uniform
from fm_science.solvers import Euler
from fm_science.spaces import Euclidean, Sphere
from fm_science.state import Context

Pairs = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def training(runs: int, batch: int = 1024, dim: int = 64, width: int = 512, depth: int = 4) -> list[Duel]:
    """A whole training step (loss, gradient, Adam), beside a loop written by hand and one around torchcfm's matcher."""
    name = f"training step, MLP {depth}x{width}, batch {batch}, {dim}-d"
    data, context = torch.randn(batch, dim), Context.full(batch)
    net = Perceptron(dim, width, depth)  # one network for all, so that they differ in nothing else
    step = stepper(net, dim)
    ours = lambda: step(data[:, None], context)  # noqa: E731
    bare = times(ours, _step(data, net, _by_hand), runs, least=0.0)
    peer = guarded(name, "torchcfm", 1.0, lambda: times(ours, _step(data, net, _matcher()), runs, least=0.0))
    loss = guarded(f"its loss alone, network left out, {batch} x {dim}", "torchcfm", None, lambda: _losses(data, runs))
    return [Duel(name, "PyTorch by hand", 1.05, *bare), peer, loss]


def stepper(net: nn.Module, dim: int, coupling: Coupling | None = None) -> Callable[..., None]:
    """Our training step: ``(x1, context, x0=None)``."""
    flow = Flow(Geodesic(Euclidean(dim)), Normal(), net)
    objective, optimizer = FlowMatching(coupling or Independent()), torch.optim.Adam(flow.parameters(), 1e-4)
    return lambda x1, context, *x0: descend(total(objective(flow, x1, context, *x0)), optimizer)


def _step(data: Tensor, net: nn.Module, pairs: Pairs) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), 1e-4)

    def step() -> None:
        t, x, target = pairs(data)
        descend((net(x, t) - target).square().mean(), optimizer)

    return step


def _by_hand(x1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Time, point and target of straight paths from normal noise."""
    x0, t = torch.randn_like(x1), torch.rand(len(x1))
    s = t[:, None]
    return t, (1 - s) * x0 + s * x1, x1 - x0


def _matcher() -> Pairs:
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)
    return lambda x1: matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)


def _losses(data: Tensor, runs: int) -> Times:
    x1, context, raw, pairs = data[:, None], Context.full(len(data)), torch.randn_like(data), _matcher()
    flow, objective = Flow(Geodesic(Euclidean(data.shape[1])), Normal(), lambda x, t, c: raw[:, None]), FlowMatching()
    peer = lambda: (raw - pairs(data)[2]).square().mean()  # noqa: E731
    return times(lambda: objective(flow, x1, context)["loss"].mean(), peer, runs)


def geodesics(runs: int, batch: int = 4096) -> list[Duel]:
    """Points on great circles of the sphere and the velocities there."""
    return [guarded(f"path and velocity on S2, batch {batch}", "flow_matching", 0.2, lambda: _geodesics(runs, batch))]


def _geodesics(runs: int, batch: int) -> Times:
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
        rows.append(guarded(name, "flow_matching", goal, work))
    return rows


def _densities(runs: int, batch: int, dim: int, steps: int, width: int, depth: int) -> Times:
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    class Wrapped(ModelWrapper):
        def forward(self, x: Tensor, t: Tensor, **extras: object) -> Tensor:
            return self.model(x, t.expand(len(x)))

    torch.manual_seed(0)
    net, x, context = Perceptron(dim, width, depth), torch.randn(batch, dim), Context.full(batch)
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
