"""The laws of spaces, noise and paths, checked for this one, and results in closed form."""

import torch
from fm_ratios import Ratios

from fm_science import RK4, Context, Flow, Geodesic, Wrapped
from fm_science.testing import check_path, check_prior, check_space


def test_the_laws_of_spaces():
    check_space(Ratios(), seeds=(0,))


def test_the_laws_of_noise_and_paths():
    check_prior(Wrapped(0.5), Ratios(), draws=5000)
    check_path(Geodesic(Ratios()), Wrapped(0.5), seeds=(0,))


def test_halfway_lies_the_geometric_mean():
    x, y = torch.tensor([0.1]), torch.tensor([10.0])
    torch.testing.assert_close(Ratios().exp(x, 0.5 * Ratios().log(x, y)), torch.tensor([1.0]))


def test_a_density_that_is_known():
    # dx/dt = x log x / 2 scales log x by e^(1/2) in unit time
    flow = Flow(Geodesic(Ratios()), Wrapped(0.5), lambda x, t, context: 0.5 * x * x.log())
    x = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64).reshape(3, 1, 1)
    exact = torch.distributions.Normal(0, 0.5 * torch.tensor(0.5).exp().double()).log_prob(x.log()).flatten()
    torch.testing.assert_close(flow.log_prob(x, Context.full(3), RK4(), steps=20), exact, atol=1e-6, rtol=0)
