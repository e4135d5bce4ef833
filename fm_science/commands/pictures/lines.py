"""Pictures of paths: conditional and marginal paths, densities with arrows, diffusion and straight paths, reflow."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.commands.pictures.mixture import Mixture, Shown, far_modes, ring, straightness, ways
from fm_science.couplings import Reflow
from fm_science.figures import COLOURS, QUIET, figure
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching, Objective
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.schedules import VP, Cosine, Linear
from fm_science.solvers import RK4, Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context


def paths() -> Shown:
    """Conical paths towards one data point, straight lines of random pairs, and the trajectories of the marginal
    flow."""
    law, n = far_modes(), 60
    x0, x1 = torch.randn(n, 1, 1, generator=torch.Generator().manual_seed(0)), law.draw(n)
    t = torch.linspace(0, 1, 61)
    marginal = ways(law.flow(Linear()), x0)
    many = law.flow(Linear()).sample(Context.full(20_000), RK4(), 30, seed=0)
    made = figure(9.5, 3.1)
    cone, lines, flow = made.subplots(1, 3, sharey=True)
    for colour, datum in zip(COLOURS, (-4.0, 4.0), strict=False):
        cone.fill_between(t, t * datum - 2 * (1 - t), t * datum + 2 * (1 - t), color=colour, alpha=0.25, lw=0)
        cone.plot(t, t * datum, color=colour)
    for axes, title in zip((cone, lines, flow), ("to one data point: a cone", "pairs: lines", "all: the flow"),
    strict=True):
        axes.set(title=title, xlabel="time t")
    cone.set_ylabel("x")
    straight = x0[:, 0, 0] + t[:, None] * (x1 - x0)[:, 0, 0]
    for axes, places in ((lines, straight), (flow, marginal[:, :, 0])):
        for end in (-1, 1):
            some = places[:, torch.sign(places[-1]) == end]
            axes.plot(t, some, color=COLOURS[(end + 1) // 2], lw=0.6, alpha=0.7)
    share = float((many > 0).float().mean())
    return Shown(made, (f"weight of the right mode by the flow: {share:.3f} (truth .2)",))


def density() -> Shown:
    """The density and its velocity over time."""
    law, times = ring(3, 2.5, 0.4), (0.05, 0.3, 0.55, 0.8, 0.98)
    line = torch.linspace(-4, 4, 81)
    grid = torch.cartesian_prod(line, line)[:, None]
    made = figure(12, 2.7)
    for axes, time in zip(made.subplots(1, 5), times, strict=True):
        t = torch.full((len(grid),), time)
        p = law.density(Linear(), grid, t).reshape(81, 81)
        axes.imshow(p.T.sqrt(), origin="lower", extent=(-4, 4, -4, 4), cmap="Blues")
        at = torch.cartesian_prod(line[4::9], line[4::9])[:, None]
        u = law.velocity(Linear(), at, torch.full((len(at),), time))[:, 0]
        axes.quiver(*at[:, 0].T, *u.T, color=COLOURS[0], width=0.006, scale=60)
        axes.set(title=f"t = {time}", xticks=[], yticks=[])
    fault = _continuity(law, 0.5)
    return Shown(made, (f"largest residual of the continuity equation at t = .5, a share of the density: {fault:.1e}",))


def _continuity(law: Mixture, time: float) -> float:
    """|d rho/dt + div(rho u)| over the largest rho, by automatic differentiation."""
    x = law.draw(500).double()
    law = Mixture(law.weights.double(), law.means.double(), law.std)
    t = torch.full((500,), time, dtype=torch.float64)
    rate = torch.func.jvp(lambda s: law.density(Linear(), x, s), (t,), (torch.ones_like(t),))[1]
    flux = lambda y: law.density(Linear(), y, t)[:, None, None] * law.velocity(Linear(), y, t)  # noqa: E731
    div = torch.zeros_like(t)
    for axis in range(2):
        along = torch.zeros_like(x)
        along[..., axis] = 1
        div = div + torch.func.jvp(flux, (x,), (along,))[1][:, 0, axis]
    return float((rate + div).abs().max() / law.density(Linear(), x, t).max())


def diffusion() -> Shown:
    """The trajectories of two diffusions and of straight paths, from the same noise to the same two modes."""
    law, t = far_modes(), torch.linspace(0, 1, 101)
    x0 = torch.linspace(-2.2, 2.2, 34)[:, None, None]
    made, facts = figure(9.5, 3.1), []
    schedules = {"diffusion (VP)": VP(), "diffusion (cosine)": Cosine(), "straight (linear)": Linear()}
    for axes, (name, schedule) in zip(made.subplots(1, 3, sharey=True), schedules.items(), strict=True):
        places = ways(law.flow(schedule), x0, 100)
        axes.plot(t, places[:, :, 0], color=COLOURS[1], lw=0.7)
        axes.set(title=name, xlabel="time t")
        facts.append(f"{name}: straightness {straightness(places):.2f} (0 is straight)")
    return Shown(made, tuple(facts))


class Plane(nn.Module):
    """A small perceptron of points of the plane and time."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, 64, 64, 64)
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.net(torch.cat([x[:, 0], t[:, None]], 1))[:, None]


def _student(teacher: Flow, law: Mixture, seed: int, steps: int = 700, batch: int = 192) -> Flow:
    """A network that was trained on the pairs of a teacher."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        flow = Flow(Geodesic(Euclidean(2)), Normal(), Plane())
        return train(flow, FlowMatching(coupling=Reflow(teacher, RK4(), 8)), law, steps, batch, 4e-3)


def train(flow: Flow, objective: Objective, law: Mixture, steps: int, batch: int, rate: float) -> Flow:
    """Train a flow on fresh points of a law, with a learning rate that falls to zero along a cosine."""
    optimizer = torch.optim.Adam(flow.parameters(), rate)
    pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        losses = objective(flow, law.draw(batch, seed=step), Context.full(batch))
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum(0).mean().backward()
        optimizer.step()
        pace.step()
    return flow.eval()


def reflow() -> Shown:
    """The trajectories of a flow of independent pairs, and of those that learned its pairs once and twice."""
    law = ring()
    flows: list[Flow] = [law.flow(Linear())]
    for k in (1, 2):
        flows.append(_student(flows[-1], law, k))
    x0 = torch.randn(90, 1, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1000, 1, 2, generator=torch.Generator().manual_seed(1))
    made, facts = figure(9.5, 3.3), []
    for k, (axes, flow) in enumerate(zip(made.subplots(1, 3), flows, strict=True), 1):
        with torch.no_grad():
            places, once = ways(flow, x0, 40), ways(flow, noise, 1, Euler())[-1]
            whole = ways(flow, noise, 40)
        axes.plot(places[:, :, 0], places[:, :, 1], color=QUIET, lw=0.6)
        axes.plot(*once[:400].T, ".", ms=2, color=COLOURS[0], label="one step")
        axes.plot(*whole[-1, :400].T, ".", ms=2, color=COLOURS[1], label="40 steps")
        axes.set(title=f"k = {k}", xticks=[], yticks=[], aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
        gap = float((once - whole[-1]).square().sum(1).mean().sqrt())
        facts.append(f"k = {k}: straightness {straightness(whole):.3f}, one step is off by {gap:.2f}")
    made.axes[0].legend(loc="center", markerscale=3, fontsize=7)
    return Shown(made, tuple(facts))


PICTURES: dict[str, Any] = {"paths": paths, "density": density, "diffusion": diffusion, "reflow": reflow}
