"""A flow through several marginals: Gaussians, whose displacement interpolation is known in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fm_science import (
    Context,
    Endpoint,
    Euclidean,
    Euler,
    Flow,
    FlowMatching,
    Geodesic,
    Heun,
    Independent,
    Interpolant,
    Midpoint,
    Piecewise,
    PointField,
    Product,
    ProductPath,
    Snapshots,
    Sphere,
    Transport,
    Unbalanced,
)

TIMES = (2.0, 3.0, 6.0)  # days; on the clock 0, 1/4, 1
CLOCK = (0.0, 0.25, 1.0)
MEANS, STDS = (0.0, 0.5, -1.0), (1.0, 0.5, 1.5)


def moment(values: tuple[float, ...], t: Tensor, right: bool = True) -> tuple[Tensor, Tensor]:
    """The piecewise linear function of the clock through ``values``, and its rate after ``t``, or before it."""
    knots, heights = torch.tensor(CLOCK, dtype=t.dtype), torch.tensor(values, dtype=t.dtype)
    k = (torch.searchsorted(knots, t.contiguous(), right=right) - 1).clamp(0, len(knots) - 2)
    rate = (heights[k + 1] - heights[k]) / (knots[k + 1] - knots[k])
    return heights[k] + rate * (t - knots[k]), rate


def exact(x: Tensor, t: Tensor, context: Context, right: bool = True) -> Tensor:
    """The velocity of the displacement interpolation of N(m_k, s_k²): m' + s'/s (x - m) (McCann 1997)."""
    (m, dm), (s, ds) = (moment(values, t, right) for values in (MEANS, STDS))
    m, dm, s, ds = (v[:, None, None] for v in (m, dm, s, ds))
    return dm + ds / s * (x - m)


def exact_before(x: Tensor, t: Tensor, context: Context) -> Tensor:
    """The same, where at a knot the interval before it counts."""
    return exact(x, t, context, right=False)


def gaussians(n: int, dim: int = 1, seed: int = 0) -> Snapshots:
    generator = torch.Generator().manual_seed(seed)
    states = [m + s * torch.randn(n, 1, dim, generator=generator) for m, s in zip(MEANS, STDS, strict=True)]
    return Snapshots(states, TIMES)


def flow(network: object = exact, snapshots: Snapshots | None = None) -> Flow:
    snapshots = gaussians(2000) if snapshots is None else snapshots
    return Flow(Piecewise(Geodesic(Euclidean(1)), snapshots.clock_times), snapshots, network)


def test_the_clock_runs_from_the_first_snapshot_to_the_last() -> None:
    assert gaussians(3).clock_times == CLOCK
    assert gaussians(3).clock(4.0) == 0.5


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.25), (0.1, 0.6), (0.25, 1.0), (0.0, 1.0), (0.4, 0.9)])
def test_samples_go_from_any_time_to_any_other_and_back(start: float, end: float) -> None:
    # along x = m(t) + s(t) z the velocity is constant in each interval, so the midpoint rule is exact to rounding
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None]
    (m0, m1), (s0, s1) = ([moment(v, torch.tensor([t]).double())[0] for t in (start, end)] for v in (MEANS, STDS))
    inner = [t for t in CLOCK if start < t < end]
    grid, context = torch.tensor([start, *inner, end], dtype=torch.float64), Context.full(9)
    there = flow().transport(m0 + s0 * z, context, Midpoint(), grid)
    assert torch.allclose(there, m1 + s1 * z, atol=1e-12)
    back = flow(exact_before).transport(there, context, Midpoint(), grid, reverse=True)
    assert torch.allclose(back, m0 + s0 * z, atol=1e-12)


@pytest.mark.parametrize("solver", [Euler(), Heun()])
def test_a_fine_grid_needs_no_knots(solver: object) -> None:
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None]
    x = flow().transport(MEANS[0] + STDS[0] * z, Context.full(9), solver, 101)
    # one step straddles the knot, where m' jumps by 4 and s' by 10/3: its error, which then grows by s_3 / s_2
    jump = (4 + 2 * 10 / 3) / 101
    assert (x - (MEANS[-1] + STDS[-1] * z)).abs().max() < STDS[-1] / STDS[1] * jump


def test_noise_comes_from_the_snapshot_before() -> None:
    snapshots = Snapshots([torch.full((5, 1, 1), float(k)) for k in range(3)], TIMES)
    x1, context = snapshots.draw(4000)
    x0 = snapshots.sample(Euclidean(1), context)
    assert torch.equal(x0, x1 - 1)
    assert torch.equal(context.cond["time"], torch.where(x1[:, 0, 0] == 1, 0.25, 1.0))
    share = float((x1 == 1).float().mean())
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)  # intervals are drawn by their length
    assert torch.equal(snapshots.sample(Euclidean(1), Context.full(7)), torch.zeros(7, 1, 1))


def test_the_path_joins_neighbours_at_their_times() -> None:
    path = Piecewise(Geodesic(Euclidean(1)), CLOCK).bind(Context.full(2, time=torch.tensor([0.25, 1.0])))
    x0, x1 = torch.tensor([0.0, 5.0])[:, None, None], torch.tensor([1.0, 9.0])[:, None, None]
    s = torch.tensor([0.0, 0.0])
    assert torch.equal(path.place_times(s), torch.tensor([0.0, 0.25]))
    assert torch.allclose(path.sample(x0, x1, path.place_times(s + 0.5)), 0.5 * (x0 + x1))
    speed = (x1 - x0) / torch.tensor([0.25, 0.75])[:, None, None]
    assert torch.allclose(path.loss(speed, x0, x1, 0.5 * (x0 + x1), path.place_times(s + 0.5)), torch.zeros(2))
    wrong = path.loss(speed + 2, x0, x1, 0.5 * (x0 + x1), path.place_times(s + 0.5))
    assert torch.allclose(wrong, torch.full((2,), 4.0))  # squared errors are those of the whole clock


def test_exact_transport_leaves_the_closed_form_nothing_to_learn() -> None:
    torch.manual_seed(0)
    snapshots, n = gaussians(20_000), 512
    x1, context = snapshots.draw(n)
    objective = FlowMatching(Transport(within=("time",)))
    left = objective(flow(snapshots=snapshots), x1, context)["loss"].mean()
    # of k sorted draws of N(0, s²) the mean squared error is about s² log(log k) / k each (Bobkov & Ledoux 2019)
    noise = sum(
        length * (a * a + b * b) * 2 * math.log(math.log(length * n)) / (length * n) / length**2
        for length, (a, b) in zip((0.25, 0.75), pairwise(STDS), strict=True)
    )
    assert left < 2 * noise
    apart = FlowMatching(Independent())(flow(snapshots=snapshots), x1, context)["loss"].mean()
    assert apart > 50 * left


def test_a_network_learns_all_intervals() -> None:
    torch.manual_seed(0)
    snapshots = gaussians(2000)
    network = PointField(Euclidean(1), 32, 2, scales=())
    model, objective = flow(network, snapshots), FlowMatching(Transport(within=("time",)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 250)
        loss = objective(model, *snapshots.draw(128))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for time in (0.25, 0.6, 1.0):
        x = MEANS[0] + STDS[0] * torch.randn(2000, 1, 1)
        x = model.transport(x, Context.full(2000), Heun(), torch.linspace(0, time, 11)).detach()
        m, s = (float(moment(v, torch.tensor([time]))[0]) for v in (MEANS, STDS))
        # the error of 250 steps: a tenth of what the mean moves, and the network rounds off the jump at the knot
        assert abs(float(x.mean()) - m) < 0.2
        assert abs(float(x.std()) - s) < 0.2


def test_unbalanced_plans_weigh_pairs_of_an_interval() -> None:
    torch.manual_seed(0)
    snapshots = gaussians(500)
    x1, context = snapshots.draw(64)
    coupling = Transport(within=("time",), plan=Unbalanced(0.5, 1.0))
    losses = FlowMatching(coupling)(flow(snapshots=snapshots), x1, context)["loss"]
    assert losses.shape == (64,)
    assert bool(losses.isfinite().all())


def test_products_and_spheres_have_snapshots_too() -> None:
    torch.manual_seed(0)
    space = Product(where=Sphere(2), size=Euclidean(1))
    shots = [{"where": Sphere(2).project(torch.randn(50, 2, 3)), "size": torch.randn(50, 2, 1)} for _ in range(3)]
    snapshots = Snapshots(shots, (0, 1, 2))
    path = Piecewise(ProductPath(where=Geodesic(Sphere(2)), size=Geodesic(Euclidean(1))), snapshots.clock_times)
    model = Flow(path, snapshots, PointField(space, 8, 2, pooled=True))
    x1, context = snapshots.draw(16, sites=2)
    losses = FlowMatching(Transport(within=("time",)))(model, x1, context)
    assert set(losses) == {"where", "size"}
    x = model.transport(x1, Context.full(16, 2), Heun(), torch.tensor([0.5, 0.7, 1.0]))
    assert torch.allclose(x["where"], x1["where"], atol=1e-6)  # the untrained velocity is zero


def test_what_makes_no_sense_is_refused() -> None:
    shot = torch.zeros(3, 1, 1)
    with pytest.raises(ValueError, match="must increase"):
        Snapshots([shot, shot], (1.0, 1.0))
    with pytest.raises(ValueError, match="a time each"):
        Snapshots([shot, shot], (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Piecewise(Geodesic(Euclidean(1)), TIMES)
    with pytest.raises(TypeError, match="predicts velocities"):
        Piecewise(Geodesic(Euclidean(1), predicts=Endpoint()), CLOCK)
    with pytest.raises(TypeError, match="predicts velocities"):
        Piecewise(Interpolant(Euclidean(1)), CLOCK)
    with pytest.raises(ValueError, match="none of"):
        FlowMatching()(flow(), shot, Context.full(3, time=torch.full((3,), 0.5)))
    with pytest.raises(ValueError, match="condition 'time'"):
        FlowMatching()(flow(), shot, Context.full(3))
    path = Piecewise(Geodesic(Euclidean(1)), CLOCK).bind(Context.full(3, time=torch.ones(3)))
    with pytest.raises(ValueError, match="outside its interval"):
        path.sample(shot, shot, torch.zeros(3))
    with pytest.raises(TypeError, match="no density"):
        flow().log_prob(shot, Context.full(3))
