"""Maps from noise to data in the place of a network: inverses, volumes and densities."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.errors import UserError
from fm_science.flow import Flow, Sampler
from fm_science.networks import PlanarMap, TransportMap, ZukoMap
from fm_science.objectives import MaximumLikelihood
from fm_science.paths import Geodesic
from fm_science.priors import Normal
from fm_science.solvers import FlowMap, Heun
from fm_science.spaces import Euclidean
from fm_science.state import Context

pytestmark = pytest.mark.usefixtures("double")


class AffineMap(TransportMap):
    """x = mean + std z in each coordinate."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.log_std = torch.nn.Parameter(torch.tensor(mean)), torch.nn.Parameter(torch.tensor(std).log())

    def push(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean + self.log_std.exp() * z, self.log_std.expand(len(z)) * z.shape[1]

    def pull(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x - self.mean) / self.log_std.exp(), -self.log_std.expand(len(x)) * x.shape[1]


def flow_of(network: TransportMap, dim: int) -> Flow:
    return Flow(Geodesic(Euclidean(dim)), Normal(), network, Sampler(FlowMap(), 1))


MAPS = {
    "planar": lambda: PlanarMap(3, 6), "realnvp": lambda: ZukoMap("realnvp", 3, 3, 16),
    "spline": lambda: ZukoMap("spline", 3, 2, 16),
}  # fmt: skip


def disturbed(kind: str) -> TransportMap:
    torch.manual_seed(0)
    network = MAPS[kind]().double()
    with torch.no_grad():
        for p in network.parameters():
            p += 0.3 * torch.randn_like(p)
    return network


@pytest.mark.parametrize("kind", MAPS)
def test_a_map_has_an_inverse_and_the_determinant_of_its_derivative(kind: str) -> None:
    network, z = disturbed(kind), torch.randn(5, 3)
    x, volume = network.push(z)
    back, gain = network.pull(x)
    assert torch.allclose(back, z, atol=1e-6)  # splines: the root of a quadratic
    assert torch.allclose(gain, -volume, atol=1e-6)
    for k in range(5):
        derivative = torch.autograd.functional.jacobian(lambda v: network.push(v[None])[0][0], z[k])
        assert torch.allclose(torch.linalg.slogdet(derivative)[1], volume[k], atol=1e-6)


@pytest.mark.parametrize("kind", MAPS)
def test_draws_have_the_density_that_is_told(kind: str) -> None:
    """E[q(x) / p(x)] = 1 under p, for a Gaussian q within the reach of p: here by draws of p."""
    flow, n = flow_of(disturbed(kind), 3), 4000
    x, logp = flow.sample_with_log_prob(Context.full(n), seed=0)
    assert torch.allclose(flow.log_prob(x, Context.full(n)), logp, atol=1e-5)
    centre, std = x.median(0).values, 0.5 * (x - x.median(0).values).abs().median(0).values
    logq = -0.5 * ((x - centre) / std).square().sum((1, 2)) - std.log().sum() - 1.5 * math.log(2 * math.pi)
    ratio = (logq - logp).exp().detach()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=5 * float(ratio.std()) / n**0.5)
    assert torch.allclose(x, flow.sample(Context.full(n), seed=0), atol=1e-9)
    back = flow.transport(x.detach(), Context.full(n), reverse=True)
    assert torch.allclose(flow.transport(back, Context.full(n)), x, atol=1e-5)


def test_the_exact_likelihood_of_gaussian_data_is_least_where_their_moments_are() -> None:
    """Of N(2, 1/4) data the least loss is the entropy of the data's own moments, log std + (1 + log 2 pi) / 2."""
    torch.manual_seed(0)
    x = 2 + 0.5 * torch.randn(500, 1, 2)
    x = (x - x.mean()) / x.std(correction=0) * 0.5 + 2
    flow = flow_of(AffineMap(2.0, 0.5), 2)
    loss = MaximumLikelihood()(flow, x, Context.full(500))["likelihood"]
    assert float(loss.detach().mean()) == pytest.approx(math.log(0.5) + 0.5 * (1 + math.log(2 * math.pi)), abs=1e-9)
    for slope in torch.autograd.grad(loss.mean(), list(flow.parameters())):
        assert abs(float(slope)) < 1e-9


def test_the_gradient_of_a_planar_inverse_is_that_of_its_root() -> None:
    network, z = disturbed("planar"), torch.randn(3, 3)
    assert torch.autograd.gradcheck(lambda v: network.push(v)[0], z.requires_grad_(), atol=1e-6)


def test_a_map_has_no_velocity_on_the_way() -> None:
    flow = flow_of(AffineMap(2.0, 0.5), 2)
    with pytest.raises(UserError, match="one step"):
        flow.sample(Context.full(3), steps=4)
    with pytest.raises(TypeError, match="at once"):
        flow.sample(Context.full(3), Heun())
    with pytest.raises(ValueError, match="realnvp or spline"):
        ZukoMap("cubic", 2)


def test_numbers_are_finite_in_single_precision() -> None:
    for kind in MAPS:
        network = disturbed(kind).float()
        z = torch.tensor([[0.0, 0.0, 0.0], [1e3, -1e3, 30.0]], dtype=torch.float32)
        for value in (*network.push(z), *network.pull(z)):
            assert value.isfinite().all()
