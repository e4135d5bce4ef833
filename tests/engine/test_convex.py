"""Convex networks, and optimal transport by their gradients."""

from __future__ import annotations

import pytest
import torch

from fm_science.flow import Flow, Sampler
from fm_science.networks import ICNN, ConvexMap
from fm_science.objectives import KantorovichDual
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import FlowMap
from fm_science.spaces import Euclidean
from fm_science.state import Context

pytestmark = pytest.mark.usefixtures("double")
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)


def stirred(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.5 * torch.randn_like(p)
    return network.double()


def test_a_convex_network_lies_below_its_chords_whatever_its_weights():
    network, (x, y) = stirred(ICNN(3, 16, 3)), 3 * torch.randn(2, 500, 3)
    share = torch.rand(500, 1)
    middle = network(share * x + (1 - share) * y)
    chord = share[:, 0] * network(x) + (1 - share[:, 0]) * network(y)
    assert (middle <= chord + 1e-12).all()
    assert torch.allclose(ICNN(3, 0).double()(x), 0.5 * x.square().sum(1))  # it begins as |x|² / 2


def test_the_gradient_of_a_convex_network_is_a_map_with_an_inverse_and_a_volume():
    network, z = stirred(ConvexMap(3, 16, 2)), torch.randn(6, 3)
    x, volume = network.push(z)
    back, gain = network.pull(x)
    assert torch.allclose(back, z, atol=1e-9)
    assert torch.allclose(gain, -volume, atol=1e-9)
    derivative = torch.autograd.functional.jacobian(lambda v: network.carry(v[None])[0], z[0])
    assert torch.allclose(torch.linalg.slogdet(derivative)[1], volume[0])
    far = network.float().pull(torch.tensor([[50.0, -50.0, 0.0]], dtype=torch.float32))
    assert all(value.isfinite().all() for value in far)


def exact(covariance: torch.Tensor, mean: torch.Tensor) -> ConvexMap:
    """The optimal map mean + C^1/2 z from the standard normal law to N(mean, C), and its inverse."""
    network = ConvexMap(2, 0).double()
    values, vectors = torch.linalg.eigh(covariance)
    with torch.no_grad():
        for part, power in ((network.g, 0.5), (network.f, -0.5)):
            root = vectors @ torch.diag((values**power - 0.1).sqrt()) @ vectors.T
            part.root.copy_(root)
        network.g.slope.copy_(mean)
        network.f.slope.copy_(-(vectors @ torch.diag(values**-0.5) @ vectors.T) @ mean)
    return network


def test_the_dual_value_of_gaussians_is_their_squared_distance():
    """|mean|² + tr(1 + C - 2 C^1/2), the squared Bures distance, where both potentials are optimal; the constants of
    f and of its conjugate cancel. Points and their images are the same, so that no error of a finite sample is left."""
    network, n = exact(COVARIANCE, MEAN), 200
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T, correction=0)).T)
    x = network.carry(z)
    root = torch.linalg.eigvalsh(COVARIANCE).sqrt()
    distance = MEAN.square().sum() + 2 + COVARIANCE.trace() - 2 * root.sum()
    assert torch.allclose(network.dual_value(z, x), distance, atol=1e-9)
    assert torch.allclose(network.dual_value(z, x), (z - x).square().sum(1).mean(), atol=1e-9)
    exact_law = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network, Sampler(FlowMap(), 1))
    assert torch.allclose(flow.log_prob(x[:, None], Context.full(n)), exact_law.log_prob(x), atol=1e-9)


def test_the_optimum_is_a_saddle_of_the_two_losses():
    """On exact pairs of moments neither network has a slope there."""
    network, n = exact(COVARIANCE, MEAN).eval(), 400
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T, correction=0)).T)
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network, Sampler(FlowMap(), 1)).eval()
    losses = KantorovichDual()(flow, network.carry(z).detach()[:, None], Context.full(n), z[:, None])
    for slope in torch.autograd.grad(sum(loss.mean() for loss in losses.values()), list(network.parameters())):
        assert slope.abs().max() < 1e-9


def test_training_finds_the_map_between_gaussians():
    """From the identity to N(mean, COVARIANCE) by quadratic potentials, in turns of four steps and one."""
    torch.manual_seed(0)
    mean = MEAN / 4
    network = ConvexMap(2, 0).double()
    flow = Flow(Geodesic(Euclidean(2)), Normal(), network, Sampler(FlowMap(), 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    root = torch.linalg.cholesky(COVARIANCE)
    for step in range(800):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 800)
        x = mean + torch.randn(128, 2, dtype=torch.float64) @ root.T
        losses = KantorovichDual(4)(flow, x[:, None], Context.full(128))
        optimizer.zero_grad()
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()
    drawn = network.carry(torch.randn(4000, 2)).detach()
    assert (drawn.mean(0) - mean).abs().max() < 0.15
    assert (torch.cov(drawn.T) - COVARIANCE).abs().max() < 0.15


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        KantorovichDual(0)
    plain = Flow(Geodesic(Euclidean(2)), Normal(), lambda x, t, c: x)
    with pytest.raises(TypeError, match="ConvexMap"):
        KantorovichDual()(plain, torch.zeros(3, 1, 2), Context.full(3))
