"""Families against the equations they claim to solve, and data with sensors of their own."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import RBF, Matern
from fm_science_domains.function.data import Data, load
from fm_science_domains.function.families import (
    burgers,
    burgers_solve,
    darcy,
    darcy_solve,
    draws,
    heat,
    mixture,
    stokes,
)
from fm_science_domains.function.sensors import places


def on(family, shape: tuple[int, ...], count: int) -> torch.Tensor:
    torch.manual_seed(0)
    x = places(shape, family.periodic).expand(count, -1, -1)
    return family.values(x, shape).unflatten(1, shape)


def test_heat_flows_as_it_should() -> None:
    """u_t = nu u_xx with nu of the sample, found from the decay; central differences are of second order."""
    u = on(heat(), (64, 65), 5)[..., 0]
    dx, dt = 2 * math.pi / 64, 1 / 64
    nu = -(u[:, :, 1:] / u[:, :, :-1]).log()[:, 5, :1, None] / dt
    assert bool(((nu > 1) & (nu < 5)).all())
    rate = (u[:, :, 2:] - u[:, :, :-2])[:, :, :] / (2 * dt)
    bend = (u.roll(-1, 1) - 2 * u + u.roll(1, 1))[:, :, 1:-1] / dx**2
    assert float((rate - nu * bend).abs().max()) < 0.02


def test_stokes_flow_satisfies_its_equation() -> None:
    """u_t = (w / 2 k²) u_yy: both derivatives are proportional, with one factor a sample."""
    u = on(stokes(), (201, 201), 4)[..., 0]
    h = 1 / 200
    rate = (u[:, 1:-1, 2:] - u[:, 1:-1, :-2]) / (2 * h)
    bend = (u[:, 2:, 1:-1] - 2 * u[:, 1:-1, 1:-1] + u[:, :-2, 1:-1]) / h**2
    factor = (rate * bend).sum((1, 2), keepdim=True) / bend.square().sum((1, 2), keepdim=True)
    assert float((rate - factor * bend).norm() / rate.norm()) < 0.02
    assert bool((u.abs() <= 2 + 1e-9).all())


def test_burgers_solver_agrees_with_the_transform_that_makes_it_linear() -> None:
    """Cole and Hopf: u = -2 nu phi_x / phi with phi the solution of the heat equation (Hopf 1950)."""
    n, nu, time = 256, 0.05, 0.5
    x = torch.arange(n, dtype=torch.float64) / n
    u = torch.sin(2 * math.pi * x)
    start = torch.exp((torch.cos(2 * math.pi * x) - 1) / (4 * math.pi * nu))  # exp(-(integral of u) / 2 nu)
    k = 2 * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64)
    later = torch.fft.rfft(start) * torch.exp(-nu * k * k * time)
    phi, slope = torch.fft.irfft(later, n), torch.fft.irfft(1j * k * later, n)
    exact = -2 * nu * slope / phi
    assert float((burgers_solve(u[None], nu, time)[0] - exact).abs().max()) < 1e-6


def test_burgers_keeps_the_mean_and_loses_energy() -> None:
    both = on(burgers(), (32,), 6)
    assert both.shape == (6, 32, 2)
    assert bool((both[..., 1].square().mean(1) < both[..., 0].square().mean(1)).all())
    start = draws(RBF(0.15, 0.5, 1.0), places((128,), [True]).expand(6, -1, -1), (128,))[..., 0]
    after = burgers_solve(start, 0.01, 0.3)
    torch.testing.assert_close(after.mean(1), start.mean(1), atol=1e-12, rtol=1e-9)


def test_darcy_flow_through_layers_is_known() -> None:
    """A medium that varies in one direction, between insulating far walls, has its solution by integration; on the
    square the constant medium has the sine series, whose value at the centre is 0.0736713."""
    u = darcy_solve(torch.ones(1, 65, 65, dtype=torch.float64))
    assert float(u[0, 32, 32]) == pytest.approx(0.0736713, rel=1e-3)
    double = darcy_solve(torch.full((1, 17, 17), 2.0, dtype=torch.float64))
    torch.testing.assert_close(2 * double, darcy_solve(torch.ones(1, 17, 17, dtype=torch.float64)))
    torch.manual_seed(0)
    a = torch.where(torch.randn(2, 12, 15).double() > 0, 4.0, 1.0).double()
    u = darcy_solve(a)
    h = 1 / 11, 1 / 14
    down, across = 2 / (1 / a[:, 1:] + 1 / a[:, :-1]), 2 / (1 / a[:, :, 1:] + 1 / a[:, :, :-1])
    out = -(down * u.diff(dim=1)).diff(dim=1)[:, :, 1:-1] / h[0] ** 2
    out = out - (across * u.diff(dim=2)).diff(dim=2)[:, 1:-1] / h[1] ** 2
    torch.testing.assert_close(out, torch.ones_like(out), atol=1e-5, rtol=0)
    assert on(darcy(), (9, 9), 3).shape == (3, 9, 9, 2)


def test_the_mixture_has_two_slopes() -> None:
    u = on(mixture(RBF(0.1, 0.4**0.5)), (33,), 2000)[..., 0]
    ends = u[:, -1] - u[:, 0]
    up = ends > 0
    assert abs(float(up.double().mean()) - 0.5) < 5 * 0.5 / 2000**0.5
    assert float(ends[up].mean()) == pytest.approx(10, abs=5 * (2 * 0.4) ** 0.5 / 1000**0.5)


@pytest.mark.parametrize("period", [None, 1.0])
def test_wrapped_kernels_are_covariances(period: float | None) -> None:
    """A wrapped kernel has a variance of std², no negative eigenvalue, and its period."""
    for kernel in (RBF(0.15, 2.0, period), Matern(0.5, 0.05, 2.0, period), Matern(2.5, 0.2, 2.0, period)):
        x = places((24,), [True])
        gap = x[:, None] - x[None]
        matrix = kernel.covariance(gap)
        torch.testing.assert_close(matrix.diagonal(), torch.full((24,), 4.0, dtype=torch.float64))
        assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-9
        if period:
            torch.testing.assert_close(kernel.covariance(gap), kernel.covariance(gap + 3 * period))


def test_functions_may_have_sensors_of_their_own() -> None:
    sets = load(Data(source="gp", sensors=20, train=30, held_out=5))
    assert not sets.train.shared
    assert not sets.train.gridded
    values, cond = sets.train[3]
    assert values.shape == (20, 1)
    assert set(cond) == {"coords", "weights"}
    assert float(cond["weights"].sum()) == pytest.approx(1, abs=1e-5)


def test_solutions_are_kept_for_the_next_time(tmp_path) -> None:
    data = Data(source="burgers", grid=16, train=6, held_out=2, cache=str(tmp_path))
    first = load(data)
    assert len(list(tmp_path.iterdir())) == 1
    again = load(data)
    torch.testing.assert_close(again.train[2][0], first.train[2][0])
