"""Every prior keeps the laws of priors: its density integrates to one and is the density of its draws."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.priors import (
    IGSO3,
    RBF,
    Classes,
    Data,
    GaussianProcess,
    Harmonic,
    Matern,
    Normal,
    Periodic,
    ProductPrior,
    Uniform,
    Wrapped,
)
from fm_science.spaces import (
    SO3,
    SPD,
    Categorical,
    Centered,
    Euclidean,
    Functions,
    Hyperbolic,
    Product,
    Sphere,
    Torus,
    frames,
)
from fm_science.state import Context
from fm_science.symmetries import Rotations
from fm_science.testing import check_prior
from fm_science.testing.laws import origin

LAWS = [
    (Normal(0.7), Euclidean(2)), (Normal(0.7), Centered()), (Normal(0.7), Functions(2)), (Uniform(), Torus(2)),
    (Uniform(), Sphere(2)), (Uniform(), SO3()), (Wrapped(0.5), Torus(2)), (Wrapped(2.0), Torus(1)),
    (Wrapped(0.7), Sphere(1)), (Wrapped(0.7), Sphere(2)), (Wrapped(0.5), Sphere(3)), (Wrapped(0.7), Hyperbolic(2)),
    (Wrapped(0.5), Hyperbolic(3)), (Wrapped(0.5), SO3()), (Wrapped(0.5), SPD(2)), (Wrapped(0.4), SPD(3)),
    (Wrapped(0.5), Euclidean(2)), (IGSO3(0.3), SO3()), (IGSO3(1.5), SO3()), (IGSO3(2.5), SO3()),
    (Classes([0.2, 0.3, 0.5]), Categorical(3)), (Classes([0.2, 0.3, 0.5]), Categorical(3, on="edges")),
    (Classes([0.2, 0.8]), Categorical(2, on="graph")),
    (ProductPrior(translations=Normal(), rotations=IGSO3()), frames()),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("prior", "space"), LAWS, ids=repr)
def test_laws(prior, space):
    check_prior(prior, space, draws=5000)


def test_harmonic_laws():
    one = Context(torch.ones(1, 4, dtype=torch.bool))
    check_prior(Harmonic(0.5), Centered(), density=one, symmetries=[Rotations()], draws=10_000)


def test_harmonic_steps_are_independent_gaussians():
    x = Harmonic(0.5).sample(Centered(), Context.full(20_000, 5))
    steps = x.diff(dim=1)[..., 0]
    torch.testing.assert_close(steps.T.cov(), 0.25 * torch.eye(4), atol=0.015, rtol=0)
    chain = Centered().bind(Context.full(1, 5))
    free = chain.project(torch.randn(1, 5, 3))
    rough = chain.project(free + torch.tensor([1.0, -1, 1, -1, 1])[:, None])
    assert Harmonic(0.5).log_prob(chain, rough) < Harmonic(0.5).log_prob(chain, free)


def sensors(n: int, batch: int = 1, **more: torch.Tensor) -> Context:
    coords = (torch.arange(n) / n)[None, :, None].expand(batch, -1, -1)
    return Context(torch.ones(batch, n, dtype=torch.bool), {"coords": coords, **more})


KERNELS = [RBF(0.3), Matern(0.5, 0.3), Matern(1.5, 0.3, std=2.0), Matern(2.5, 0.3), Periodic(1.0)]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_process_laws(kernel):
    cond = {"coords": torch.rand(4, 5, 1)}
    check_prior(GaussianProcess(kernel, nugget=1e-3), Functions(2), cond=cond, density=sensors(2), draws=10_000)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_process_has_its_kernel_at_every_resolution(kernel):
    for n in (8, 16):
        context = sensors(n, 20_000)
        x = GaussianProcess(kernel).sample(Functions(1), context)[..., 0]
        gap = context.cond["coords"][0, :, None] - context.cond["coords"][0, None]
        error = x[:, :: n // 8].T.cov() - kernel.covariance(gap)[:: n // 8, :: n // 8]
        assert error.abs().max() < 6 * kernel.std**2 * (2 / 20_000) ** 0.5


def test_fourier_and_cholesky_agree_on_a_torus():
    prior, n = GaussianProcess(Periodic(0.8), nugget=1e-4), 6
    axis = torch.arange(n) / n
    coords = torch.cartesian_prod(axis, axis)[None].expand(3, -1, -1)
    mask = torch.ones(3, n * n, dtype=torch.bool)
    grid = Context(mask, {"coords": coords, "grid": torch.full((3, 2), n)})
    plain = Context(mask, {"coords": coords})
    x = prior.sample(Functions(2), grid).double()
    fast, slow = (prior.log_prob(Functions(2).bind(c), x) for c in (grid, plain))
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-2)
    many = Context(mask[:1].expand(20_000, -1), {"coords": coords[:1].expand(20_000, -1, -1),
                                                "grid": torch.full((20_000, 2), n)})  # fmt: skip
    covariance = prior.sample(Functions(1), many)[..., 0].T.cov()
    expected = prior.kernel.covariance(coords[0, :, None] - coords[0, None])
    assert (covariance - expected).abs().max() < 6 * (2 / 20_000) ** 0.5


def test_a_grid_that_is_not_one_whole_period_is_left_to_cholesky():
    prior = GaussianProcess(Periodic(1.0), nugget=1e-4)
    inclusive = {"coords": torch.linspace(0, 1, 8)[None, :, None], "grid": torch.tensor([[8]])}
    space = Functions(1).bind(Context(torch.ones(1, 8, dtype=torch.bool), inclusive))
    assert prior._torus(space, inclusive["coords"]) is None


def test_processes_scale():
    prior, context = GaussianProcess(RBF(0.3)), sensors(4, 3)
    torch.manual_seed(1)
    x = prior.sample(Functions(1), context)
    torch.manual_seed(1)
    torch.testing.assert_close(prior.scaled(3.0).sample(Functions(1), context), 3 * x)


OMEGA = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)
HAAR = (1 - OMEGA.cos()) / math.pi


@pytest.mark.parametrize("std", [0.02, 0.1, 0.5, 1.5, 1.99, 2.01, 4.0])
def test_isotropic_gaussian_integrates_to_one(std):
    density = IGSO3(std).log_kernel(OMEGA).exp()
    assert float(torch.trapezoid(density * HAAR, OMEGA)) == pytest.approx(1, abs=1e-9)


def test_isotropic_gaussian_is_one_law_in_both_sums():
    prior = IGSO3(1.8)
    torch.testing.assert_close(prior._series(OMEGA), prior._poisson(OMEGA), atol=1e-11, rtol=0)


def test_isotropic_gaussian_is_almost_uniform_at_width_three_halves():
    variation = 0.5 * torch.trapezoid((IGSO3(1.5).log_kernel(OMEGA).exp() - 1).abs() * HAAR, OMEGA)
    assert float(variation) == pytest.approx(0.130, abs=5e-4)


def test_narrow_isotropic_gaussian_is_a_gaussian():
    x = IGSO3(0.02).sample(SO3(), Context.full(20_000))
    w = SO3().log(torch.eye(3).expand_as(x), x)[:, 0]
    torch.testing.assert_close(w.T.cov() / 0.02**2, torch.eye(3), atol=0.05, rtol=0)


def test_wrapped_circle_is_the_sum_over_images():
    angle = torch.linspace(-3.1, 3.1, 50, dtype=torch.float64)[:, None, None]
    space, std = Torus(1).bind(Context.full(50)), 1.3
    images = angle[:, 0] + 2 * math.pi * torch.arange(-9, 10)
    expected = torch.exp(-0.5 * (images / std) ** 2).sum(1) / (std * math.sqrt(2 * math.pi))
    torch.testing.assert_close(Wrapped(std).log_prob(space, angle).exp(), expected)
    circle = torch.cat([angle.cos(), angle.sin()], -1)
    torch.testing.assert_close(Wrapped(std).log_prob(Sphere(1).bind(Context.full(50)), circle).exp(), expected)


@pytest.mark.parametrize(
    ("space", "volume"), [(Torus(2), 4 * math.pi**2), (Sphere(2), 4 * math.pi), (SO3(), 8 * math.pi**2)], ids=repr
)
def test_uniform_density_is_one_over_the_volume(space, volume):
    context = Context(torch.arange(3) < torch.tensor([3, 1])[:, None])
    x = Uniform().sample(space, context)
    expected = -math.log(volume) * torch.tensor([3.0, 1.0])
    torch.testing.assert_close(Uniform().log_prob(space.bind(context), x), expected)


def test_frozen_sites_hold_their_values_and_carry_no_density():
    known = torch.randn(2, 3, 2)
    free = torch.tensor([[True, False, True], [True, True, True]])
    context = Context(torch.ones(2, 3, dtype=torch.bool), free=free, known=known)
    x = Normal().sample(Euclidean(2), context)
    assert torch.equal(x[0, 1], known[0, 1])
    expected = -0.5 * (x.square().sum(-1) * free).sum(1) - free.sum(1) * math.log(2 * math.pi)
    torch.testing.assert_close(Normal().log_prob(Euclidean(2).bind(context), x), expected)


def test_data_as_a_source():
    mask = torch.arange(4) < torch.tensor([2, 4, 4])[:, None]
    states = {"x": torch.arange(24.0).reshape(3, 4, 2), "c": torch.eye(3)[torch.randint(3, (3, 4))]}
    prior, space = Data(states, mask), Product(x=Euclidean(2), c=Categorical(3))
    context = Context(torch.arange(5) < torch.tensor([2, 4, 4, 2])[:, None])
    x = prior.sample(space, context)
    assert x["x"].shape == (4, 5, 2)
    assert torch.equal(x["x"][0, :2], states["x"][0, :2])
    for drawn in x["x"][1:3]:
        assert any(torch.equal(drawn[:4], s) for s in states["x"][1:])
    with pytest.raises(ValueError, match="no state with"):
        prior.sample(space, Context.full(1, 3))
    with pytest.raises(TypeError, match="no density"):
        prior.log_prob(space.bind(context), x)


def test_data_without_a_mask_have_all_their_sites():
    states = torch.arange(24.0).reshape(3, 4, 2)
    x = Data(states).sample(Euclidean(2), Context.full(5, 4))
    assert all(any(torch.equal(drawn, s) for s in states) for drawn in x)
    for sites in (3, 5):  # neither cut nor filled with zeros
        with pytest.raises(ValueError, match=rf"no state with \[{sites}\] real sites"):
            Data(states).sample(Euclidean(2), Context.full(2, sites))
    whole = Data(torch.arange(3.0)[:, None]).sample(Euclidean(1, on="graph"), Context.full(5, 7))
    assert whole.shape == (5, 1)


@pytest.mark.parametrize(("prior", "space"), [law for law in LAWS if law[1].smooth], ids=repr)
def test_densities_have_finite_gradients_at_draws_and_at_the_origin(prior, space):
    if isinstance(prior, ProductPrior):
        return
    context = Context(torch.arange(3) < torch.tensor([3, 1])[:, None])
    bound = space.bind(context)
    for x in (prior.sample(space, context), origin(bound, torch.float32)):
        gradient = torch.func.grad(lambda y: prior.log_prob(bound, y).sum())(x)
        assert bool(torch.isfinite(gradient).all())


def test_the_score_of_a_process_is_minus_the_precision_times_the_values():
    prior, context = GaussianProcess(RBF(0.3), nugget=1e-2), sensors(5, 2)
    space, x = Functions(1).bind(context), torch.randn(2, 5, 1, dtype=torch.float64)
    gradient = torch.func.grad(lambda y: prior.log_prob(space, y).sum())(x)
    coords = context.cond["coords"][0].double()
    covariance = prior.kernel.covariance(coords[:, None] - coords[None]) + 1e-2 * torch.eye(5)
    torch.testing.assert_close(gradient, -torch.linalg.solve(covariance, x), rtol=1e-4, atol=1e-4)


def test_messages_say_what_to_write():
    context, molecule = Context.full(1, 2), Product(x=Centered(), kind=Categorical(2), spin=Sphere(), h=Hyperbolic())
    line = r"ProductPrior\(x=Normal\(\), kind=Classes\(\[1 / 2\] \* 2\), spin=Uniform\(\), h=Wrapped\(1.0\)\)"
    with pytest.raises(TypeError, match=line):
        Uniform().sample(molecule, context)
    with pytest.raises(TypeError, match=r"Uniform\(\)"):
        Normal().sample(SO3(), context)
    with pytest.raises(TypeError, match="volume is infinite"):
        Uniform().sample(Hyperbolic(2), context)
    with pytest.raises(TypeError, match="no density"):
        Uniform().log_prob(Hyperbolic(2).bind(context), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="add up to one"):
        Classes([0.2, 0.2])
    with pytest.raises(ValueError, match="2 probabilities"):
        Classes([0.5, 0.5]).sample(Categorical(3), context)
    with pytest.raises(TypeError, match="coords"):
        GaussianProcess(RBF(0.1)).sample(Functions(1), context)
    with pytest.raises(ValueError, match="must be positive"):
        Wrapped(0.0)


@pytest.mark.parametrize(
    ("prior", "space"),
    [
        (Normal(0.7), Euclidean(3)),
        (Harmonic(0.7), Centered()),
        (Uniform(), Sphere(2)),
        (Wrapped(0.7), Sphere(2)),
        (GaussianProcess(RBF(0.1)), Functions(1)),
    ],
    ids=repr,
)
def test_a_density_has_the_precision_of_its_point_whatever_the_default(prior, space):
    context = Context.full(2, 300, coords=torch.linspace(0, 1, 300)[None, :, None].expand(2, -1, -1))
    bound = space.bind(context)
    x = prior.sample(bound, context).double()
    single = prior.log_prob(bound, x)
    torch.set_default_dtype(torch.float64)
    try:
        double = prior.log_prob(bound, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert single.dtype == torch.float64
    assert torch.equal(single, double)
