"""Posterior sampling against posteriors known in closed form: Gaussian data, linear observations."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace
from fm_science.paths import Gaussian, Geodesic, Interpolant, ProductPath
from fm_science.posterior import PosteriorGuided
from fm_science.predictions import Endpoint, Noise, Posterior, Score, Velocity
from fm_science.priors import (
    IGSO3,
    RBF,
    Classes,
    GaussianProcess,
    Harmonic,
    Matern,
    Normal,
    Periodic,
    ProductPrior,
)
from fm_science.schedules import VP, Linear, Trigonometric
from fm_science.solvers import RK4, Euler, Heun, Langevin
from fm_science.spaces import SO3, Categorical, Centered, Euclidean, Functions
from fm_science.state import Context, expand_like

MEAN, STD, NOISE, SEEN = 1.0, 0.6, 0.4, 2.5


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def levels(path, t):
    alpha, sigma = path.schedule(t)
    return alpha, 1 - alpha if isinstance(path, Geodesic) else sigma


def gaussian(path, mean, covariance, noise=None, shape=None):
    """The exact network of noise N(0, ``noise``) to data N(``mean``, ``covariance``), points flattened to (B, D)."""
    noise = torch.eye(len(mean)) if noise is None else noise

    def network(x, t, context):
        alpha, sigma = (v[:, None, None] for v in levels(path, t))
        rates = torch.func.jvp(lambda s: levels(path, s), (t.clone(),), (torch.ones_like(t),))[1]
        spread = alpha**2 * covariance + sigma**2 * noise
        white = torch.linalg.solve(spread, (x.flatten(1) - alpha[..., 0] * mean)[..., None])
        x1 = mean + (alpha * covariance @ white)[..., 0]
        x0 = (sigma * noise @ white)[..., 0]
        velocity = rates[0][:, None] * x1 + rates[1][:, None] * x0
        out = {Endpoint: x1, Noise: x0, Velocity: velocity, Score: -white[..., 0]}[type(path.predicts)]
        return out.reshape(x.shape)

    return network


def posterior(mean, covariance, operator, seen, noise):
    total = operator @ covariance @ operator.T + noise**2 * torch.eye(len(seen))
    gain = covariance @ operator.T @ torch.linalg.inv(total)
    return mean + gain @ (seen - operator @ mean), covariance - gain @ operator @ covariance


def close(x, mean, covariance, slack=0.0):
    """Means and covariances of ``x`` (B, D) within five standard errors of a Gaussian law, and the solver's error."""
    n, var = len(x), covariance.diagonal()
    assert bool(((x.mean(0) - mean).abs() < 5 * (var / n).sqrt() + slack).all())
    error = (var[:, None] * var + covariance**2) / n  # of an entry of an empirical covariance
    assert bool(((x.T.cov() - covariance).abs() < 5 * error.sqrt() + slack).all())


def observe(operator, seen):
    return lambda x1: x1.flatten(1) @ operator.T - seen


ONE = (torch.ones(1, 1).double(), torch.tensor([SEEN]).double())

PATHS = {
    "line": Geodesic(Euclidean(1), Linear(), Velocity()),
    "clock": Geodesic(Euclidean(1), Trigonometric(), Endpoint()),
    "circle": Gaussian(Euclidean(1), Trigonometric(), Velocity()),
    "diffusion": Gaussian(Euclidean(1), VP(), Score()),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_posterior_of_a_number_is_exact_on_every_path(name):
    path = PATHS[name]
    network = gaussian(path, torch.tensor([MEAN]), torch.tensor([[STD**2]]))
    guided = PosteriorGuided(network, path, observe(*ONE), NOISE)
    steps = torch.linspace(0.01 if name == "diffusion" else 0, 1, 41)
    x = Flow(path, Normal(), guided).sample(Context.full(1000), Heun(), steps, seed=0)
    precision = 1 / STD**2 + 1 / NOISE**2
    mean = (MEAN / STD**2 + SEEN / NOISE**2) / precision
    close(x.flatten(1), torch.tensor([mean]), torch.tensor([[1 / precision]]), 0.005)


def case(observations, size=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator)
    mean, covariance = torch.randn(size, generator=generator), root @ root.T / size + 0.05 * torch.eye(size)
    operator = torch.randn(observations, size, generator=generator)
    return mean, covariance, operator, torch.randn(observations, generator=generator)


@pytest.mark.parametrize(("observations", "iterations"), [(2, 8), (6, 3), (12, 12), (12, 7)])
def test_vectors_given_few_and_many_linear_observations(observations, iterations):
    """Directly and by conjugate gradients: the matrix is one plus rank six, so seven steps solve it. Six observations
    in three steps are solved in part, which must still pull the right way."""
    mean, covariance, operator, seen = case(observations)
    path = Geodesic(Euclidean(6))
    network = gaussian(path, mean, covariance)
    guided = PosteriorGuided(network, path, observe(operator, seen), 0.5, iterations=iterations)
    x = Flow(path, Normal(), guided).sample(Context.full(500), RK4(), 20, seed=0).flatten(1)
    want = posterior(mean, covariance, operator, seen, 0.5)
    if iterations >= min(observations, 7):
        close(x, *want, slack=0.003)
    else:
        assert float((x.mean(0) - want[0]).norm()) < 0.5 * float((mean - want[0]).norm())


@pytest.mark.parametrize("kind", [Geodesic, Gaussian])
def test_every_prediction_is_guided_to_the_posteriors_own_field(kind):
    """The guided output is, in closed form, that of the Gaussian whose mean and covariance are the posterior's."""
    mean, covariance, operator, seen = case(2)
    t, x = torch.tensor([0.01, 0.2, 0.5, 0.9, 0.999]), torch.randn(5, 1, 6)
    after = posterior(mean, covariance, operator, seen, 0.3)
    for predicts in (Velocity(), Endpoint(), Noise(), *(() if kind is Geodesic else (Score(),))):
        path = kind(Euclidean(6), Trigonometric(), predicts)
        guided = PosteriorGuided(gaussian(path, mean, covariance), path, observe(operator, seen), torch.full((2,), 0.3))
        assert torch.allclose(guided(x, t, Context.full(5)), gaussian(path, *after)(x, t, None), rtol=1e-6, atol=1e-6)


def test_a_guided_flow_has_the_posteriors_density():
    mean, covariance, operator, seen = case(2)
    path = Geodesic(Euclidean(6))
    guided = PosteriorGuided(gaussian(path, mean, covariance), path, observe(operator, seen), 0.5)
    after = torch.distributions.MultivariateNormal(*posterior(mean, covariance, operator, seen, 0.5))
    x = after.sample((5,))
    got = Flow(path, Normal(), guided).log_prob(x[:, None], Context.full(5), RK4(), 40, ExactTrace())
    assert torch.allclose(got, after.log_prob(x), atol=1e-3)


def covariance_of(prior, space, context):
    size = math.prod(space.shape[1:])
    unit = torch.eye(size).reshape(size, *space.shape[1:])
    return prior.correlate(space, unit).reshape(size, size)


COORDS = torch.linspace(0, 1, 9)[:-1]  # eight places of a period
NOISES = {
    "smooth": GaussianProcess(RBF(0.3), nugget=1e-3),
    "rough": GaussianProcess(Matern(0.5, 0.4)),
    "torus": GaussianProcess(Matern(1.5, 0.2, period=1.0), nugget=1e-3),
    "part": GaussianProcess(Matern(1.5, 0.2, period=2.0), nugget=1e-3),
    "waves": GaussianProcess(Periodic(0.8), nugget=1e-3),
}


def sensors(n):
    cond = {"coords": COORDS[None, :, None].expand(n, -1, -1), "grid": torch.full((n, 1), 8)}
    return Context(torch.ones(n, 8, dtype=torch.bool), cond)


@pytest.mark.parametrize("name", NOISES)
def test_functions_seen_at_some_sensors_under_correlated_noise(name):
    prior, path = NOISES[name], Geodesic(Functions(1))
    noise = covariance_of(prior, Functions(1).bind(sensors(8)), sensors(8))
    gap = COORDS[:, None] - COORDS
    data = 0.7 * torch.exp(-0.5 * (gap / 0.2) ** 2) + 0.02 * torch.eye(8)
    operator, seen = torch.eye(8)[[1, 5]], torch.tensor([1.0, -0.5])
    guided = PosteriorGuided(gaussian(path, torch.zeros(8), data, noise), path, observe(operator, seen), 0.1)
    x = Flow(path, prior, guided).sample(sensors(500), RK4(), 20, seed=0).flatten(1)
    close(x, *posterior(torch.zeros(8), data, operator, seen, 0.1), slack=0.005)


@pytest.mark.parametrize("name", ["normal", "chain", *NOISES])
def test_the_covariance_of_a_prior_is_that_of_its_draws(name):
    n = 10_000
    if name in NOISES:
        prior, space, context = NOISES[name], Functions(1), sensors(n)
    else:
        mask = torch.ones(n, 5, dtype=torch.bool)
        mask[:, 4] = False
        prior, space = {"normal": Normal(1.5), "chain": Harmonic(0.7)}[name], Centered(1)
        context = Context(mask)
    x = prior.sample(space, context).flatten(1)
    size = x.shape[1]
    exact = covariance_of(prior, space.bind(context.take(torch.arange(size))), context)
    var = exact.diagonal()
    error = ((var[:, None] * var + exact**2) / n).sqrt()
    assert bool(((x.T.cov() - exact).abs() < 5 * error + 1e-9).all())


def test_images_and_clouds_are_guided_and_padding_stays():
    path = Geodesic(Euclidean((1, 2, 2)), Linear(), Endpoint())
    mean, covariance, _, _ = case(1, 4)
    network = gaussian(path, mean, covariance)
    coarse = lambda x1: torch.nn.functional.avg_pool2d(x1[:, 0], 2) - 0.5  # noqa: E731
    flow = Flow(path, Normal(), PosteriorGuided(network, path, coarse, 0.1))
    x = flow.sample(Context.full(1000), Euler(), 60, seed=0)
    close(x.flatten(1), *posterior(mean, covariance, torch.full((1, 4), 0.25), torch.tensor([0.5]), 0.1), slack=0.02)

    mask = torch.tensor([[True] * 3, [True, True, False]])
    cloud = Geodesic(Centered(2), Linear(), Endpoint())
    shrunk = lambda x, t, c: expand_like(t / (t**2 + (1 - t) ** 2), x) * x  # noqa: E731  # data: standard normal clouds
    apart = lambda x1: (x1[:, 0] - x1[:, 1]) - torch.tensor([3.0, 0.0])  # noqa: E731
    y = Flow(cloud, Normal(), PosteriorGuided(shrunk, cloud, apart, 0.1)).sample(Context(mask), Euler(), 50, seed=0)
    assert bool((y[1, 2] == 0).all())
    assert torch.allclose(y.sum(1), torch.zeros(2, 2), atol=1e-9)
    assert torch.allclose(y[:, 0] - y[:, 1], torch.tensor([3.0, 0.0]).expand(2, 2), atol=0.5)


def test_parts_on_linear_spaces_are_guided_together_and_others_are_left_out():
    """Two parts that depend on each other, seen through their sum; rotations and classes beside them stay free."""
    mean, covariance, _, _ = case(1, 2)
    clock = {"a": Linear(), "b": Trigonometric()}

    def network(x, t, context):
        alpha = torch.stack([clock[k](t)[0] for k in "ab"], 1)
        z = torch.cat([x["a"], x["b"]], -1)[:, 0] - alpha * mean
        spread = alpha[:, :, None] * covariance * alpha[:, None] + torch.diag_embed((1 - alpha) ** 2)
        x1 = mean + (covariance * alpha[:, None] @ torch.linalg.solve(spread, z[..., None]))[..., 0]
        raw = {"a": x1[:, None, :1], "b": x1[:, None, 1:]}
        return {**raw, "r": torch.zeros_like(x["r"][..., 0]), "c": torch.zeros_like(x["c"])}

    path = ProductPath(
        a=Geodesic(Euclidean(1), Linear(), Endpoint()), b=Geodesic(Euclidean(1), Trigonometric(), Endpoint()),
        r=Geodesic(SO3()), c=Geodesic(Categorical(2), predicts=Posterior()),
    )  # fmt: skip
    prior = ProductPrior(a=Normal(), b=Normal(), r=IGSO3(1.0), c=Classes([0.5, 0.5]))
    both = lambda x1: (x1["a"] + x1["b"])[:, 0] - 2.0  # noqa: E731
    x = Flow(path, prior, PosteriorGuided(network, path, both, 0.2)).sample(Context.full(1000), Euler(), 60, seed=0)
    want = posterior(mean, covariance, torch.ones(1, 2), torch.tensor([2.0]), 0.2)
    close(torch.cat([x["a"], x["b"]], -1)[:, 0], *want, slack=0.02)
    turned = Flow(path, prior, PosteriorGuided(network, path, lambda x1: x1["r"].flatten(1), 0.2))
    with pytest.raises(TypeError, match=r"part 'r'.*\['a', 'b'\]"):
        turned.sample(Context.full(2), Euler(), 2)


def test_noise_is_exchanged_by_the_posteriors_score():
    path = PATHS["line"]
    network = gaussian(path, torch.tensor([MEAN]), torch.tensor([[STD**2]]))
    guided = PosteriorGuided(network, path, observe(*ONE), NOISE)
    x = Flow(path, Normal(), guided).sample(Context.full(1000), Langevin(1.0), 150, seed=0)
    precision = 1 / STD**2 + 1 / NOISE**2
    mean = (MEAN / STD**2 + SEEN / NOISE**2) / precision
    close(x.flatten(1), torch.tensor([mean]), torch.tensor([[1 / precision]]), 0.01)


def test_what_cannot_be_guided_is_refused_in_one_sentence():
    network, path = lambda x, t, c: x, Geodesic(Euclidean(1))
    for other in (Geodesic(SO3()), Interpolant(Euclidean(1)), Geodesic(Categorical(2), predicts=Posterior())):
        with pytest.raises(TypeError, match="linear spaces with Gaussian noise"):
            PosteriorGuided(network, other, observe(*ONE), 1.0)
    for noise in (0.0, -1.0, torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="positive"):
            PosteriorGuided(network, path, observe(*ONE), noise)
    with pytest.raises(ValueError, match="at least one product"):
        PosteriorGuided(network, path, observe(*ONE), 1.0, iterations=0)
    for residual in (lambda x1: x1.mean(), lambda x1: x1[:1], lambda x1: 0.0):
        with pytest.raises(ValueError, match="one row of observations per sample"):
            PosteriorGuided(network, path, residual, 1.0)(torch.zeros(3, 1, 1), torch.ones(3), Context.full(3))
    flow = Flow(path, Normal(), PosteriorGuided(network, path, observe(*ONE), 1.0))
    flow.independent = False
    with pytest.raises(TypeError, match="ties noise to data"):
        flow.sample(Context.full(2), Euler(), 2)
