"""Operators on functions: their laws, and what makes them operators rather than networks on grids."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fm_science import FNO, RK4, Context, Endpoint, Flow, Functions, GaussianProcess, Geodesic, LatentOperator, Matern
from fm_science.networks.fno import SpectralConvolution
from fm_science.symmetries import Permutations, Shifts
from fm_science.testing import check_network


def grids(*shapes: tuple[int, ...], periodic: bool = True) -> Context:
    """A batch of functions on regular grids of the unit box, padded to the largest."""
    most, rows = max(math.prod(s) for s in shapes), []
    for shape in shapes:
        axes = [torch.arange(n, dtype=torch.float64) / (n if periodic else n - 1) for n in shape]
        rows.append(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2))
    coords = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(most) < torch.tensor([math.prod(s) for s in shapes])[:, None]
    return Context(mask, {"coords": coords, "grid": torch.tensor(shapes), "weights": mask / mask.sum(1, keepdim=True)})


def scattered(*sizes: int, dim: int = 2) -> Context:
    mask = torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(*mask.shape, dim, generator=generator, dtype=torch.float64)
    return Context(mask, {"coords": coords, "weights": mask / mask.sum(1, keepdim=True)})


PATH, PRIOR = Geodesic(Functions(2), predicts=Endpoint()), GaussianProcess(Matern(0.5, 0.2), nugget=1e-3)


@pytest.mark.parametrize("clock", ["film", "channel"])
@pytest.mark.parametrize("shapes", [[(9,), (12,), (9,)], [(5, 6), (4, 4)], [(4, 3, 5), (3, 3, 3)]], ids=len)
def test_the_fourier_operator_keeps_the_laws_of_networks(shapes: list, clock: str) -> None:
    network = FNO(2, [2] * len(shapes[0]), 8, 2, period=[1.25] * len(shapes[0]), reads={"seen": 1}, clock=clock)
    check_network(network, PATH, PRIOR, grids(*shapes, periodic=False))


def test_the_operator_on_scattered_sensors_keeps_the_laws_of_networks() -> None:
    shape = {"width": 8, "layers": 2, "heads": 2, "tokens": 3, "fourier_features": 2}
    network = LatentOperator(2, 2, **shape, reads={"seen": 1, "shown": 2})
    order = Permutations(along=("coords", "weights"))
    check_network(network, PATH, PRIOR, scattered(7, 4, 9), [order])


@pytest.mark.parametrize("shapes", [[(9,), (12,)], [(5, 6), (4, 4)]], ids=len)
def test_without_places_the_fourier_operator_commutes_with_shifts(shapes: list) -> None:
    """On a torus alone: with coordinates, or with padding beyond the end of an axis, it does not."""
    ways = len(shapes[0])
    network = FNO(2, [2] * ways, 8, 2, places=False)
    check_network(network, PATH, PRIOR, grids(*shapes), [Shifts()])
    for seeing in (FNO(2, [2] * ways, 8, 2), FNO(2, [2] * ways, 8, 2, places=False, period=[1.5] * ways)):
        with pytest.raises(AssertionError, match="commutes with Shifts"):
            check_network(seeing, PATH, PRIOR, grids(*shapes), [Shifts()])


def test_shifts_move_an_observed_field_along() -> None:
    network = FNO(2, [2, 2], 8, 2, places=False, reads={"field": 1})
    context = grids((5, 6), (4, 4))
    field = torch.randn(2, 30, dtype=torch.float64) * context.mask
    context = Context(context.mask, {**context.cond, "field": field})
    check_network(network, PATH, PRIOR, context, [Shifts(along=("field",))])
    with pytest.raises(ValueError, match="leave the condition 'field'"):
        check_network(network, PATH, PRIOR, context, [Shifts()])


@pytest.mark.parametrize("shape", [(9,), (10,), (6, 8), (5, 4, 7)], ids=str)
def test_the_spectral_convolution_is_a_product_of_fourier_coefficients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, dim, most = SpectralConvolution(3, [2] * len(shape)).double(), len(shape), 2
    h = torch.randn(2, *shape, 3, dtype=torch.float64)
    axes = tuple(range(1, dim + 1))
    before, after = (torch.fft.fftn(f, dim=axes, norm="forward") for f in (h, layer(h)))
    weight = torch.view_as_complex(layer.weight.detach())
    expected = torch.zeros_like(before)
    for k in torch.cartesian_prod(*[torch.arange(-most, most + 1)] * dim).reshape(-1, dim).tolist():
        if any(2 * abs(a) >= n for a, n in zip(k, shape, strict=True)):
            continue
        there = k if k[-1] >= 0 else [-a for a in k]  # real functions: the other half is conjugate
        index = (there[-1], *(a + most for a in there[-2::-1]))
        matrix = weight[index] if k[-1] >= 0 else weight[index].conj()
        place = (slice(None), *k)
        expected[place] = before[place] @ matrix
    if dim > 1:  # on the plane k = 0 of the last axis only what a real function can have is kept
        flat = (slice(None), *[slice(None)] * (dim - 1), 0)
        mirror = expected.flip(axes).roll([1] * dim, axes)
        expected[flat] = 0.5 * (expected + mirror.conj())[flat]
    else:
        expected[:, 0] = expected[:, 0].real.to(expected)
    torch.testing.assert_close(after, expected)


def wave(context: Context, channels: int = 1) -> torch.Tensor:
    """A function with waves up to number 3 at the sensors of a context."""
    x = 2 * math.pi * context.cond["coords"]
    one = (x.sin() + 0.5 * (2 * x).cos() - 0.3 * (3 * x + 1).sin()).sum(-1, keepdim=True)
    return one.expand(-1, -1, channels)


def test_the_same_function_on_finer_grids_gives_the_same_function() -> None:
    """A layer is exact on waves below Nyquist; only products of waves in the pointwise maps fold back, and what folds
    back dies quickly as the grid gets finer."""
    torch.manual_seed(0)
    network = FNO(1, [6], 16, 3).double()
    t, outputs = torch.full((1,), 0.4, dtype=torch.float64), {}
    for n in (16, 32, 64, 512):
        context = grids((n,))
        outputs[n] = network(wave(context), t, context)[:, :: n // 16]
    errors = [float((outputs[n] - outputs[512]).detach().abs().max()) for n in (16, 32, 64)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 1e-4 * float(outputs[512].detach().abs().max())


def test_the_waves_live_on_a_torus_that_does_not_depend_on_the_grid() -> None:
    """With zeros beyond the ends, grids with both ends agree up to their spacing."""
    torch.manual_seed(0)
    network = FNO(1, [6], 16, 3, period=[1.25]).double()
    t, outputs = torch.full((1,), 0.4, dtype=torch.float64), {}
    for n in (17, 33, 65, 1025):
        context = grids((n,), periodic=False)
        outputs[n] = network(wave(context), t, context)[:, :: (n - 1) // 16]
    errors = [float((outputs[n] - outputs[1025]).detach().abs().max()) for n in (17, 33, 65)]
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_without_places_the_operator_commutes_with_shifts() -> None:
    torch.manual_seed(0)
    network, context = FNO(1, [3, 3], 8, 2, places=False).double(), grids((8, 6))
    x, t = torch.randn(1, 48, 1, dtype=torch.float64), torch.full((1,), 0.3, dtype=torch.float64)

    def moved(v: torch.Tensor) -> torch.Tensor:
        return v.unflatten(1, (8, 6)).roll((3, 1), (1, 2)).flatten(1, 2)

    torch.testing.assert_close(network(moved(x), t, context), moved(network(x, t, context)))


def test_sensors_that_stand_twice_count_once() -> None:
    """Splitting a sensor in two of half the weight changes nothing: attention is an integral."""
    torch.manual_seed(0)
    network, context = LatentOperator(1, 2, width=8, layers=2, heads=2, tokens=4).double(), scattered(6)
    x, t = torch.randn(1, 6, 1, dtype=torch.float64), torch.full((1,), 0.3, dtype=torch.float64)
    order = torch.tensor([0, 0, 1, 2, 3, 4, 5])
    share = torch.tensor([0.5, 0.5, 1, 1, 1, 1, 1], dtype=torch.float64)
    coords, weights = (context.cond[k][:, order] for k in ("coords", "weights"))
    twice = Context(context.mask[:, order], {"coords": coords, "weights": weights * share})
    torch.testing.assert_close(network(x[:, order], t, twice), network(x, t, context)[:, order])


@torch.no_grad()
def dependence(build: Callable[[], torch.nn.Module]) -> float:
    """How far the output moves over the walk, as a part of its size: the median of eleven untrained networks."""
    context, x, shares = grids((16,)), torch.randn(1, 16, 1), []
    for _ in range(11):
        network = build()
        outputs = torch.cat([network(x, torch.full((1,), t), context) for t in (0.0, 0.5, 1.0)])
        shares.append(outputs.std(0).mean() / outputs.abs().mean())
    return float(torch.stack(shares).median())


@pytest.mark.parametrize(
    "build", [lambda: FNO(1, [4], 16, 2), lambda: LatentOperator(1, 1, 16, 2)], ids=["fno", "latent"]
)
def test_time_really_reaches_the_network(build: Callable[[], torch.nn.Module]) -> None:
    """The output moves by a good part of itself over the walk; divided by 1000, the same time is invisible."""
    assert dependence(build) > 0.05
    assert dependence(lambda: FNO(1, [4], 16, 2, clock="channel", slow=1000.0)) < 1e-3


@pytest.mark.parametrize("dim", [1, 2])
def test_densities_see_through_the_operators(dim: int) -> None:
    """Forward-mode derivatives of the transforms: the exact trace is that of the Jacobian."""
    torch.manual_seed(0)
    context = grids((4,) * dim)
    path = Geodesic(Functions(1))
    for network in (FNO(1, [1] * dim, 4, 1), LatentOperator(1, dim, 4, 1, heads=1, tokens=2)):
        flow = Flow(path, GaussianProcess(Matern(0.5, 0.3)), network).double()
        x = torch.randn(1, 4**dim, 1, dtype=torch.float64)
        log = flow.log_prob(x, context, RK4(), steps=4)
        assert bool(log.isfinite().all())


def test_functions_without_a_grid_are_told_what_to_use() -> None:
    with pytest.raises(ValueError, match="LatentOperator"):
        FNO(1, [2])(torch.zeros(1, 5, 1), torch.zeros(1), scattered(5))
    with pytest.raises(ValueError, match="places of the sensors"):
        LatentOperator(1, 2)(torch.zeros(1, 5, 1), torch.zeros(1), Context.full(1, 5))
    with pytest.raises(ValueError, match="no multiple"):
        LatentOperator(1, 2, width=10, heads=4)


def test_the_fourier_transform_keeps_single_precision_where_layers_run_in_half() -> None:
    torch.manual_seed(0)
    network, h = SpectralConvolution(8, (3, 3)), torch.randn(2, 8, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, coarse = network(h), network(h.bfloat16())
    assert torch.equal(mixed, network(h))
    assert (coarse.dtype, bool(torch.isclose(coarse, mixed, atol=0.05).all())) == (torch.float32, True)
    full, context = FNO(1, [2, 2], 8, 2), grids((6, 8))
    context = Context(context.mask, {k: v.float() if v.is_floating_point() else v for k, v in context.cond.items()})
    x, t = torch.randn(1, 48, 1), torch.rand(1)
    with torch.autocast("cpu", torch.bfloat16):
        out = full(x, t, context)
    assert (out.float() - full(x, t, context)).abs().max() < 0.05
