"""Flows of Gaussian processes against their closed forms: velocity, map, density, posterior."""

from __future__ import annotations

import pytest
import torch

from fm_science import RBF, RK4, Context, Flow, Functions, GaussianProcess, Geodesic, Heun, Matern
from fm_science_domains.function.conditional import Corrected, LatentPosterior, show
from fm_science_domains.function.exact import (
    GaussianMixtureFlow,
    component,
    crps,
    gram,
    regression,
    score,
    score_samples,
)
from fm_science_domains.function.sensors import places, quadrature

BEFORE, AFTER = Matern(0.5, 0.3), RBF(0.25, std=1.5)
PRIOR = GaussianProcess(BEFORE, nugget=1e-6)


def sensors(n: int, count: int = 1) -> Context:
    x = places((n,), [False])
    cond = {"coords": x.expand(count, -1, -1), "weights": quadrature((n,), [False]).expand(count, -1)}
    return Context(torch.ones(count, n, dtype=torch.bool), cond)


def noise_covariance(x: torch.Tensor) -> torch.Tensor:
    return gram(BEFORE, x) + 1e-6 * torch.eye(len(x), dtype=torch.float64)


def exact_flow(n: int, means: tuple[float, ...] = (0.0,)) -> GaussianMixtureFlow:
    x = places((n,), [False])
    k1 = gram(AFTER, x) + 1e-5 * torch.eye(n, dtype=torch.float64)
    lines = [m * (x[:, 0] - 0.5) for m in means]
    return GaussianMixtureFlow([component(noise_covariance(x), k1, m, 1 / len(means)) for m in lines])


def test_a_component_keeps_both_covariances() -> None:
    x = places((9,), [False])
    k0, k1 = noise_covariance(x), gram(AFTER, x) + 1e-5 * torch.eye(9, dtype=torch.float64)
    c = component(k0, k1)
    torch.testing.assert_close(c.out @ c.out.T, k0)
    torch.testing.assert_close(c.out @ torch.diag(c.spread) @ c.out.T, k1, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(c.out @ c.back, torch.eye(9, dtype=torch.float64), atol=1e-8, rtol=0)


def test_integration_of_the_exact_velocity_gives_the_exact_map_and_density() -> None:
    n, context = 8, sensors(8, 3)
    network = exact_flow(n, (2.0,))
    flow = Flow(Geodesic(Functions(1)), PRIOR, network)
    torch.manual_seed(0)
    x0 = PRIOR.sample(Functions(1), context).double()
    x1 = flow.transport(x0, context, RK4(), steps=50)
    torch.testing.assert_close(x1, network.transport(x0), atol=1e-4, rtol=1e-4)
    covariance = gram(AFTER, places((n,), [False])) + 1e-5 * torch.eye(n, dtype=torch.float64)
    mean = 2.0 * (places((n,), [False])[:, 0] - 0.5)
    truth = torch.distributions.MultivariateNormal(mean, covariance)
    log = flow.log_prob(x1, context, RK4(), steps=50)
    torch.testing.assert_close(log, truth.log_prob(x1[..., 0]), atol=2e-3, rtol=1e-4)


def test_the_mixture_velocity_is_a_conditional_mean() -> None:
    """No function of x_t predicts x1 - x0 better: the error is orthogonal to any test function of x_t."""
    torch.manual_seed(0)
    context, count = sensors(4, 40_000), 40_000
    network = exact_flow(4, (3.0, -3.0))
    x0 = PRIOR.sample(Functions(1), context).double()
    sign = (torch.rand(count, 1) < 0.5).double() * 2 - 1
    shape = GaussianProcess(AFTER, nugget=1e-5 / 1.5**2).sample(Functions(1), context).double()[..., 0]
    x1 = (3.0 * sign * (places((4,), [False])[:, 0] - 0.5) + shape)[..., None]
    for time in (0.2, 0.6, 0.9):
        t = torch.full((count,), time, dtype=torch.float64)
        x = (1 - time) * x0 + time * x1
        error = (x1 - x0 - network(x, t, context))[..., 0]
        for probe in (torch.ones_like(error), x[..., 0], x[..., 0].tanh()):
            product = error * probe
            assert bool((product.mean(0).abs() < 5 * product.std(0) / count**0.5).all())


def test_samples_of_the_mixture_have_both_components() -> None:
    flow = Flow(Geodesic(Functions(1)), PRIOR, exact_flow(6, (8.0, -8.0)))
    x = flow.sample(sensors(6, 400), Heun(), steps=40, seed=0)[..., 0]
    up = x[:, -1] > x[:, 0]
    assert 0.4 < float(up.double().mean()) < 0.6  # four standard errors
    assert float((x[up].mean(0) - 8 * (places((6,), [False])[:, 0] - 0.5)).abs().max()) < 5 * 1.5 / 200**0.5


def test_regression_interpolates_and_forgets() -> None:
    x = places((30,), [False])
    at = torch.tensor([0, 10, 29])
    mean, covariance = regression(AFTER, x, x[at], torch.tensor([1.0, -1.0, 0.5]), noise=1e-4)
    torch.testing.assert_close(mean[at], torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64), atol=1e-4, rtol=0)
    assert float(covariance.diagonal()[at].max()) < 1e-6
    mean, covariance = regression(Matern(2.5, 0.01), x, x[:1], torch.tensor([3.0]), noise=0.1, mean=2.0)
    assert abs(float(mean[-1]) - 2) < 1e-6
    assert abs(float(covariance[-1, -1]) - 1) < 1e-6


def test_the_walk_on_noise_draws_from_the_exact_posterior() -> None:
    """Chains of a flow from noise to a Gaussian process, given two noisy values, against regression."""
    n, count, noise = 7, 250, 0.3
    x, context = places((n,), [False]), sensors(n, count)
    at, values = torch.tensor([1, 5]), torch.tensor([1.5, -1.0])
    given = torch.zeros(n).index_copy(0, at, values)[None, :, None].expand(count, -1, -1)
    seen = torch.zeros(n, dtype=torch.bool).index_fill(0, at, True).expand(count, -1)
    flow = Flow(Geodesic(Functions(1)), PRIOR, exact_flow(n))
    draws = flow.sample(show(context, seen, given), LatentPosterior(noise, moves=20, coarse=6), steps=6, seed=0)[..., 0]
    mean, covariance = regression(AFTER, x, x[at], values, noise)
    std = covariance.diagonal().sqrt()
    assert float(((draws.mean(0) - mean) / std).abs().max()) < 5 / count**0.5 + 0.07  # 0.07: six steps of Heun
    assert float((draws.std(0) / std - 1).abs().max()) < 5 / (2 * count) ** 0.5 + 0.07


def test_the_walk_begins_at_the_posterior_of_a_flow_that_keeps_noise() -> None:
    """No move at all is needed where functions are noise: what it begins with has the exact mean and spread."""
    n, count, noise = 17, 400, 0.1
    x, context = places((n,), [False]), sensors(n, count)
    at, values = torch.tensor([2, 8, 15]), torch.tensor([1.5, -1.0, 0.3])
    given = torch.zeros(n).index_copy(0, at, values)[None, :, None].expand(count, -1, -1)
    seen = torch.zeros(n, dtype=torch.bool).index_fill(0, at, True).expand(count, -1)
    flow = Flow(Geodesic(Functions(1)), GaussianProcess(AFTER), lambda y, t, c: torch.zeros_like(y))
    draws = flow.sample(show(context, seen, given), LatentPosterior(noise, moves=0, coarse=1), steps=1, seed=0)[..., 0]
    mean, covariance = regression(AFTER, x, x[at], values, noise)
    std = covariance.diagonal().sqrt()
    assert float(((draws.mean(0) - mean) / std).abs().max()) < 0.5  # the gain is that of 512 draws
    hidden = torch.ones(n, dtype=torch.bool).index_fill(0, at, False)
    assert float((draws.std(0) / std - 1)[hidden].abs().max()) < 5 / (2 * count) ** 0.5 + 0.1


def test_correction_honours_what_was_observed() -> None:
    n, count = 9, 64
    seen = torch.zeros(count, n, dtype=torch.bool)
    seen[:, 4] = True
    values = torch.full((count, n, 1), 2.5)
    flow = Flow(Geodesic(Functions(1)), PRIOR, exact_flow(n))
    x = flow.sample(show(sensors(n, count), seen, values), Corrected(), steps=20, seed=0)
    assert torch.equal(x[:, 4], values[:, 4])
    free = flow.sample(sensors(n, count), Heun(), steps=20, seed=0)
    assert float(x[:, 3].mean()) > float(free[:, 3].mean()) + 1  # its neighbours hear of it


def test_scores_of_the_truth_are_what_they_must_be() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20_000, generator=generator, dtype=torch.float64)
    truth = mean + 0.5 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    found = score(mean, torch.full_like(mean, 0.5), truth, (0.0, 1.25**0.5))
    assert found.coverage == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 20_000) ** 0.5)
    assert found.smse == pytest.approx(0.2, rel=0.05)
    assert found.msll == pytest.approx(0.5 * torch.tensor(0.25 / 1.25).log().item(), abs=0.03)
    assert found.crps == pytest.approx(0.5 / torch.pi**0.5, rel=0.03)  # of a Gaussian that is right
    samples = mean + 0.5 * torch.randn(100, 20_000, generator=generator, dtype=torch.float64)
    again = score_samples(samples, truth, (0.0, 1.25**0.5))
    assert again.crps == pytest.approx(found.crps, rel=0.02)
    assert again.coverage == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 20_000) ** 0.5)
    assert float(crps(torch.full((3, 1), 2.0), torch.tensor([5.0]))) == pytest.approx(3)


@pytest.mark.parametrize("count", [39, 50, 200])
def test_bands_of_few_samples_hold_what_they_say(count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(count + 1, 20_000, generator=generator, dtype=torch.float64)
    found = score_samples(draws[1:], draws[0], (0.0, 1.0))
    assert found.coverage == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 20_000) ** 0.5)
