"""Particles against posteriors and evidences in closed form; their chain of steps is affine, so its law is exact."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fm_science import (
    Categorical,
    Classes,
    Context,
    Euclidean,
    Flow,
    Gaussian,
    Geodesic,
    Normal,
    Particles,
    Posterior,
    Product,
    ProductPath,
    ProductPrior,
    Sphere,
    Torus,
    Uniform,
    Velocity,
    ancestral,
)
from fm_science.population import effective_size, normalised, systematic
from fm_science.predictions import Endpoint, Noise
from fm_science.schedules import VP, Linear, Trigonometric
from fm_science.solvers import DDPM, Euler
from fm_science.spaces import SO3
from fm_science.state import expand_like

MEAN, STD = 1.0, 0.6


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def endpoint(x, t, context):
    """E[x1 | x_t] for data N(1, 0.6²) on the straight path."""
    t = expand_like(t, x)
    gain = STD**2 * t / (STD**2 * t**2 + (1 - t) ** 2)
    return MEAN + gain * (x - t * MEAN)


def chain(path, network, steps):
    """Mean and covariance of what the chain itself makes, from its affine steps: those that particles weigh."""
    context = Context.full(1)
    bound = path.bind(context, Normal())
    times = torch.linspace(0, 1, steps + 1)
    mean, variance = torch.zeros(()), torch.ones(())
    for t, s in itertools.pairwise(times):
        law = [
            ancestral.transitions(bound, network(x, t[None], context), x, t[None], s[None])
            for x in (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        ]
        slope = (law[1].mean - law[0].mean).squeeze()
        mean, variance = law[0].mean.squeeze() + slope * mean, slope**2 * variance + law[0].std[0] ** 2
    return float(mean), float(variance)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_number_given_a_noisy_observation_of_it(guidance):
    """Data N(1, 0.6²), seen 2 with noise 0.5: mean, variance and evidence. A standard error is that of an independent
    sample of the effective size, and the evidence's that of its spread over the batch, since it has no bias."""
    batch, count, steps, seen, noise = 32, 128, 12, 2.0, 0.5
    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), endpoint)
    mean, variance = chain(flow.path, endpoint, steps)

    def log_likelihood(x1):
        return torch.distributions.Normal(x1[:, 0, 0], noise).log_prob(torch.tensor(seen))

    found = Particles(log_likelihood, count, guidance)(flow, Context.full(batch), steps, seed=0)
    after = 1 / (1 / variance + 1 / noise**2)
    want = after * (mean / variance + seen / noise**2)
    evidence = math.exp(
        torch.distributions.Normal(mean, math.sqrt(variance + noise**2)).log_prob(torch.tensor(seen)).item()
    )
    means = found.mean()[:, 0, 0]
    spread = found.mean(lambda x: (x - want).square())[:, 0, 0]
    draws = found.log_evidence.exp()
    assert abs(means.mean() - want) < 5 * float(means.std()) / batch**0.5 + 1 / count
    assert abs(spread.mean() - after) < 5 * float(spread.std()) / batch**0.5 + 1 / count
    assert abs(draws.mean() - evidence) < 5 * float(draws.std()) / batch**0.5
    assert float(means.std()) < 3 * math.sqrt(after / count)  # near that of independent samples
    assert found.effective_sizes.shape == (steps + 1, batch)


def test_guidance_keeps_more_particles_alive_than_weights_alone():
    flow = Flow(Geodesic(Euclidean(4), predicts=Endpoint()), Normal(), endpoint)
    sizes = [
        Particles(lambda x: -8 * (x - 2).square().sum((1, 2)), 64, guidance, threshold=0.0)(
            flow, Context.full(8), 20, seed=0
        ).effective_size.mean()
        for guidance in (0.0, 1.0)
    ]
    assert sizes[1] > 2 * sizes[0]


@pytest.mark.parametrize(
    "path",
    [Gaussian(Euclidean(2), Trigonometric(), Velocity()), Gaussian(Euclidean(2), VP(), Noise())],
    ids=["circle", "diffusion"],
)
def test_the_steps_are_those_of_the_ancestral_sampler(path):
    """Their mean and spread are DDPM's, and a moved law is the Gaussian that Tweedie's shift asks for."""
    x, t, s = torch.randn(4, 1, 2), torch.full((4,), 0.4), torch.full((4,), 0.45)
    bound, raw = path.bind(Context.full(4), Normal()), torch.randn(4, 1, 2)
    law = ancestral.transitions(bound, raw, x, t, s)
    torch.manual_seed(1)
    other = DDPM().step(bound, lambda x, t: raw, x, t, s - t)
    torch.manual_seed(1)
    assert torch.allclose(law.draw().float(), other.float(), atol=1e-6)
    gradient = 0.1 * torch.randn(4, 1, 2)
    alpha, sigma = (v[0] for v in path.schedule(t))
    shift = bound.endpoint(raw, x, t) + sigma**2 / alpha * gradient
    noise = (x - alpha * shift) / sigma
    keep = ancestral.signal_ratio(bound, t, s)[0]
    later, rest = (v[0] for v in path.schedule(s))
    assert torch.allclose(law.moved(gradient).mean, later * shift + keep * rest * noise)
    same = torch.distributions.Normal(law.mean, expand_like(law.std, x))
    y = law.draw()
    gap = law.moved(gradient).log_prob(y) - law.log_prob(y)
    moved = torch.distributions.Normal(law.moved(gradient).mean, expand_like(law.std, x))
    assert torch.allclose(gap, (moved.log_prob(y) - same.log_prob(y)).sum((1, 2)))
    exact = torch.distributions.kl_divergence(moved, same).sum((1, 2))
    assert torch.allclose(law.moved(gradient).divergence(law), exact)
    far = law.moved(1e6 * gradient).mean - law.mean  # no further than the noise, whatever the gradient
    assert torch.allclose(far.square().mean((1, 2)).sqrt(), law.std)


@pytest.mark.parametrize("noise", [(0.5, 0.5, 0.0), (0.2, 0.3, 0.5), (0.0, 0.0, 1.0)], ids=["even", "uneven", "mask"])
def test_ancestral_steps_of_classes_are_bayes_rule(noise):
    """The law of x_s given x_t and x1, from the joint law of the noising chain backwards; ends are independent."""
    path = Geodesic(Categorical(3), Linear(), Posterior()).bind(Context.full(1), Classes(noise))
    pi, eye, t, s = torch.tensor(noise), torch.eye(3), torch.tensor([0.3]), torch.tensor([0.55])
    now, then, ratio = 0.3, 0.55, 0.3 / 0.55
    predicted = torch.tensor([0.6, 0.4, 0.0])
    for k in range(3):
        if not pi[k] and k == 2:
            continue
        law = ancestral.transitions(path, predicted.log().reshape(1, 1, 3), eye[k].reshape(1, 1, 3), t, s)
        end = eye[k] if pi[k] == 0 else predicted  # such a class cannot come from noise, so it is the datum
        want = torch.zeros(3)
        for j in range(3):  # x1
            seen = now * eye[j, k] + (1 - now) * pi[k]
            for i in range(3):  # x_s
                forward = ratio * eye[i, k] + (1 - ratio) * pi[k]
                want[i] += end[j] * forward * (then * eye[j, i] + (1 - then) * pi[i]) / seen if end[j] > 0 else 0
        assert torch.allclose(law.probabilities[0, 0], want, atol=1e-7)
    first = ancestral.transitions(
        path, predicted.log().reshape(1, 1, 3), eye[noise.index(max(noise))].reshape(1, 1, 3), 0 * t, s
    )
    assert torch.allclose(first.probabilities[0, 0], then * predicted + (1 - then) * pi, atol=1e-7)


@pytest.mark.parametrize("noise", [(0.5, 0.5), (0.0, 0.0, 1.0)], ids=["even", "mask"])
def test_two_classes_given_a_likelihood(noise):
    """p (.8, .2) with the likelihood (.1, .9): (.08, .18) / .26, from a network that is exact."""
    law = torch.tensor([0.8, 0.2] + [0.0] * (len(noise) - 2))
    path = Geodesic(Categorical(len(noise)), Linear(), Posterior(mask=2 if len(noise) > 2 else None))
    pi = torch.tensor(noise)

    def network(x, t, context):
        k = expand_like(t, x)
        seen = (x * pi).sum(-1, keepdim=True)
        return (law * (k * x + (1 - k) * seen)).log()

    flow = Flow(path, Classes(noise), network)
    likelihood = torch.tensor([0.1, 0.9] + [1.0] * (len(noise) - 2))
    batch, count = 64, 64
    found = Particles(lambda x1: (x1[:, 0] @ likelihood.to(x1)).log(), count)(flow, Context.full(batch), 6, seed=0)
    share, evidence = found.mean()[:, 0, 1], found.log_evidence.exp()
    assert abs(share.mean() - 0.18 / 0.26) < 5 * float(share.std()) / batch**0.5 + 1 / count
    assert abs(evidence.mean() - 0.26) < 5 * float(evidence.std()) / batch**0.5
    assert float(share.std()) < 3 * math.sqrt(0.25 / count)


def still(x, t, context):
    return torch.zeros_like(x) if x.shape[-2:] != (3, 3) else x.new_zeros(*x.shape[:-2], 3)


def test_a_tilt_of_the_sphere_is_von_mises_and_fishers():
    """Uniform points with the likelihood exp(5 z): the mean of z is coth 5 - 1/5, and the evidence sinh(5) / 5, here
    by quadrature of the tilt over z, which is even on [-1, 1]."""
    flow = Flow(Geodesic(Sphere(2)), Uniform(), still)
    z = torch.linspace(-1, 1, 20_001)
    weight = (5 * z).exp()
    want, evidence = float((z * weight).sum() / weight.sum()), float(weight.mean())
    batch, count = 16, 128
    law = Particles(lambda x1: 5 * x1[:, 0, 2], count)
    found = law(flow, Context.full(batch), 6, seed=0)
    mean = found.mean()[:, 0, 2]
    draws = found.log_evidence.exp()
    assert abs(mean.mean() - want) < 5 * float(mean.std()) / batch**0.5 + 1 / count
    assert abs(draws.mean() - evidence) < 5 * float(draws.std()) / batch**0.5 + evidence * 2 / count
    alone = Particles(lambda x1: 5 * x1[:, 0, 2], count, threshold=0.0)(flow, Context.full(batch), 6, seed=0)
    assert found.effective_size.mean() > 2 * alone.effective_size.mean()


SPACES = {
    "angles": (Geodesic(Torus(1)), Uniform(), lambda x: 2 * x[:, 0, 0].cos()),
    "rotations": (Geodesic(SO3()), Uniform(), lambda x: x[:, 0].diagonal(dim1=-2, dim2=-1).sum(-1)),
    "numbers after a coupling": (Geodesic(Euclidean(1)), Normal(), lambda x: 1.5 * x[:, 0, 0]),
}


@pytest.mark.parametrize("name", SPACES)
def test_particles_on_other_spaces_agree_with_many_weighted_samples(name):
    """The mean reward under the posterior, against 100,000 samples of the flow with their weights."""
    path, prior, reward = SPACES[name]
    flow = Flow(path, prior, still, independent=False)
    x = flow.sample(Context.full(100_000), Euler(), 1, seed=1)
    weights = reward(x).softmax(0)
    want = float((weights * reward(x)).sum())
    error = math.sqrt(float((weights**2 * (reward(x) - want) ** 2).sum()))
    found = Particles(reward, 128)(flow, Context.full(16), 5, seed=0)
    mean = found.mean(reward)
    assert abs(mean.mean() - want) < 5 * (float(mean.std()) / 4 + error) + 2 / 128
    evidence = reward(x).exp().mean().log()
    assert abs(found.log_evidence.exp().mean().log() - evidence) < 0.1


def test_products_of_all_kinds_of_parts():
    """Independent parts, one tilted each: the tilts stay independent, and the evidence is the product."""
    parts = {
        "a": Geodesic(Euclidean(1), predicts=Endpoint()),
        "b": Geodesic(Torus(1)),
        "c": Geodesic(Categorical(2), predicts=Posterior()),
    }
    prior = ProductPrior(a=Normal(), b=Uniform(), c=Classes([0.5, 0.5]))

    def network(x, t, context):
        k = expand_like(t, x["c"])
        return {
            "a": endpoint(x["a"], t, context),
            "b": torch.zeros_like(x["b"]),
            "c": (k * x["c"] + 0.5 * (1 - k)).log(),
        }

    def reward(x):
        return x["a"][:, 0, 0] + x["b"][:, 0, 0].cos() + 1.5 * x["c"][:, 0, 1]

    flow = Flow(ProductPath(**parts), prior, network)
    found = Particles(reward, 256)(flow, Context.full(16), 8, seed=0)
    mean, variance = chain(parts["a"], endpoint, 8)
    evidence = mean + variance / 2 + math.log(float(torch.special.i0(torch.ones(())))) + math.log((1 + math.e**1.5) / 2)
    draws = (found.log_evidence - evidence).exp()
    assert abs(draws.mean() - 1) < 5 * float(draws.std()) / 4
    numbers = found.mean(lambda x: x["a"])[:, 0, 0]
    assert abs(numbers.mean() - mean - variance) < 5 * float(numbers.std()) / 4 + 1 / 256
    kinds = found.mean(lambda x: x["c"])[:, 0, 1]
    assert abs(kinds.mean() - 1 / (1 + math.exp(-1.5))) < 5 * float(kinds.std()) / 4 + 1 / 256


def test_frozen_sites_and_padding_stay_where_they_are():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    free, known = torch.tensor([[False, True, True], [True, True, True]]), torch.full((2, 3, 1), 7.0)
    context = Context(mask, free=free, known=known)
    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), endpoint)
    found = Particles(lambda x: -x.square().sum((1, 2)), 8)(flow, context, 4, seed=0)
    x = found.particles.reshape(2, 8, 3)
    assert bool((x[0, :, 0] == 7).all())
    assert bool((x[1, :, 2] == 0).all())
    assert found.draw(seed=1).shape == (2, 3, 1)


def test_systematic_draws_take_each_particle_as_often_as_its_weight_says():
    weights = torch.rand(50, 16).softmax(1).square()
    weights = weights / weights.sum(1, keepdim=True)
    index = systematic(weights.log())
    times = torch.nn.functional.one_hot(index, 16).sum(1)
    assert bool(((times - 16 * weights).abs() < 1 + 1e-9).all())
    assert effective_size(normalised(torch.zeros(2, 5))).tolist() == pytest.approx([5, 5])
    one = normalised(torch.tensor([[0.0, -math.inf, -math.inf]]))
    assert effective_size(one).tolist() == [1]
    assert bool((systematic(one) == 0).all())
    assert effective_size(normalised(torch.full((1, 4), -math.inf))).tolist() == pytest.approx([4])


def test_the_same_seed_gives_the_same_particles_and_leaves_the_generator_alone():
    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), endpoint)
    law = Particles(lambda x: x[:, 0, 0], 8)
    state = torch.get_rng_state()
    a, b = (law(flow, Context.full(3), 5, seed=4) for _ in range(2))
    assert torch.equal(a.particles, b.particles)
    assert torch.equal(torch.get_rng_state(), state)
    assert a.resampled(seed=0).shape == (24, 1, 1)


def test_what_particles_cannot_follow_is_refused():
    flow = Flow(Geodesic(Euclidean(1), predicts=Endpoint()), Normal(), endpoint)
    with pytest.raises(ValueError, match="at least one particle"):
        Particles(lambda x: x, count=0)
    with pytest.raises(ValueError, match="one number a sample"):
        Particles(lambda x: x)(flow, Context.full(2), 3)
    with pytest.raises(ValueError, match="NaN"):
        Particles(lambda x: x[:, 0, 0] * math.nan)(flow, Context.full(2), 3)
    with pytest.raises(ValueError, match="guidance=0"):
        Particles(lambda x: x[:, 0, 0].detach())(flow, Context.full(2), 3)
    with pytest.raises(ValueError, match="end at 1"):
        Particles(lambda x: x[:, 0, 0])(flow, Context.full(2), torch.linspace(0, 0.5, 4))
    flow.network.self_conditioned = True
    with pytest.raises(TypeError, match="self-conditioned"):
        Particles(lambda x: x[:, 0, 0])(flow, Context.full(2), 3)


def test_a_product_of_curved_parts_walks_along_its_flow():
    path = ProductPath(a=Geodesic(Sphere(2)), b=Geodesic(Torus(1)))
    assert isinstance(path.space, Product)
    flow = Flow(path, ProductPrior(a=Uniform(), b=Uniform()), lambda x, t, c: {k: 0 * v for k, v in x.items()})
    found = Particles(lambda x: 4 * x["a"][:, 0, 2] + 3 * x["b"][:, 0, 0].cos(), 128)(flow, Context.full(8), 5, seed=0)
    want = math.log(math.sinh(4) / 4) + math.log(float(torch.special.i0(torch.tensor(3.0))))
    draws = (found.log_evidence - want).exp()
    assert abs(draws.mean() - 1) < 5 * float(draws.std()) / 8**0.5 + 0.02
