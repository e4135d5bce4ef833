"""What training minimises: identities between objectives, by quadrature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.couplings import Paired
from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace
from fm_science.networks import Potential
from fm_science.objectives import ActionMatching
from fm_science.paths import Gaussian, Geodesic
from fm_science.priors import Normal, Prior, Uniform, Wrapped
from fm_science.schedules import Linear
from fm_science.solvers import EulerMaruyama
from fm_science.spaces import SO3, Euclidean, Hyperbolic, Sphere, Torus
from fm_science.state import Context, expand_like
from tests.oracles.table import largest, oracle


@oracle("gradient of conditional flow matching equals that of flow matching", 1e-10)
def gradients_agree() -> float:
    """Theorem 2 of Lipman et al. (2023), on two data in one dimension, by quadrature over the noise."""
    import numpy as np

    node, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(120))
    weight = weight / weight.sum()
    network = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    data = torch.tensor([-1.0, 0.7])
    x1 = data.repeat_interleave(120).reshape(-1, 1, 1)
    x0 = node.repeat(2).reshape(-1, 1, 1)
    t = torch.full((240,), 0.4)
    path = Gaussian(Euclidean(1), Linear()).bind(Context.full(240), Normal())
    x = path.sample(x0, x1, t)
    raw = network(torch.cat([x, expand_like(t, x).expand_as(x)], -1))
    shares = (-0.5 * (x - 0.4 * data).square() / 0.36).softmax(-1)
    marginal = path.drift(x, (shares * data).sum(-1, keepdim=True), t)
    conditional = (weight.repeat(2) * 0.5 * path.loss(raw, x0, x1, x, t)).sum()
    whole = (weight.repeat(2) * 0.5 * (raw - marginal).square().flatten()).sum()
    gradients = [torch.autograd.grad(v, list(network.parameters()), retain_graph=True) for v in (conditional, whole)]
    return max(largest(a - b) for a, b in zip(*gradients, strict=True))


def _wave(x: Tensor, t: Tensor, context: Context) -> Tensor:
    """A smooth scalar function of points of any leaf space, with no symmetry."""
    flat = x.flatten(1)
    a = torch.linspace(-1.0, 1.3, flat.shape[1])
    return torch.sin(flat @ a + 0.7 * t) + 0.3 * torch.cos(2 * t) * (flat @ a.flip(0)).square()


@oracle("action matching is flow matching with a gradient, on R², T², S², SO(3), H²: along each path", 1e-9)
def action_is_regression() -> float:
    """int (|grad s|² / 2 + ds/dt) dt + s_0 - s_1 = int (|grad s|² / 2 - <grad s, dx/dt>) dt, by Gauss's rule."""
    import numpy as np

    node, weight = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(40))
    times, worst, context = 0.5 * (node + 1), 0.0, Context.full(16)
    for leaf in (Euclidean(2), Torus(2), Sphere(2), SO3(), Hyperbolic(2)):
        space = leaf.bind(context)
        prior: Prior = Normal() if leaf.linear else Uniform() if leaf.volume < math.inf else Wrapped(0.5)
        x0, x1 = prior.sample(leaf, context), prior.sample(leaf, context)
        if leaf == Torus(2):
            x0, x1 = 0.4 * x0, 0.4 * x1  # the wave jumps where angles wrap
        flow = Flow(Geodesic(leaf), prior, Potential(_wave, leaf))
        path = flow.path.bind(context, prior)
        found, exact = torch.zeros(16), torch.zeros(16)
        for t, w in zip(times, 0.5 * weight, strict=True):
            at = t.expand(16).clone()
            objective = ActionMatching(Paired(), times=lambda n, at=at: at)
            found += w * objective(flow, x1, context, x0)["action"] * space.dimension
            x = path.sample(x0, x1, at)
            u = flow.network(x, at, context)
            exact += w * (0.5 * space.inner(x, u, u) - space.inner(x, u, path.motion(x0, x1, x, at)))
        worst = max(worst, largest(found - exact))
    return worst


@oracle("action matching, plain and entropic, from N(0, 1) to N(0, 1/4): the known potential is the minimum", 1e-9)
def action_minimum() -> float:
    """ds/dx = (v' - sigma²) / (2 v) x for snapshots N(0, v(t)): the gradient of the loss by Hermite's and Gauss's
    rules over noise, datum and time."""
    import numpy as np

    (z, p), (node, q) = (
        [torch.from_numpy(v) for v in rule(n)]
        for rule, n in ((np.polynomial.hermite_e.hermegauss, 6), (np.polynomial.legendre.leggauss, 40))
    )
    x0, x1, times = (v.flatten() for v in torch.meshgrid(z, 0.5 * z, 0.5 * (node + 1), indexing="ij"))
    weight = torch.einsum("i,j,k->ijk", p / p.sum(), p / p.sum(), 0.5 * q).flatten()
    context, free = Context.full(len(weight)), torch.zeros(3, requires_grad=True)
    worst = 0.0
    for sigma in (0.0, 0.6):

        def potential(x: Tensor, t: Tensor, context: Context, sigma: float = sigma) -> Tensor:
            x, v, rate = x[:, 0, 0], (1 - t) ** 2 + 0.25 * t**2, 0.5 * t - 2 * (1 - t)
            known = (rate - sigma**2) / (4 * v) * x**2
            return known + free[0] * x**2 + free[1] * t * x**2 + free[2] * x

        flow = Flow(Geodesic(Euclidean(1)), Normal(), Potential(potential, Euclidean(1)))
        objective = ActionMatching(Paired(), times=lambda n: times, sigma=sigma, divergence=ExactTrace())
        loss = objective(flow, x1.reshape(-1, 1, 1), context, x0.reshape(-1, 1, 1))["action"]
        worst = max(worst, largest(torch.autograd.grad((weight * loss).sum(), free)[0]))
    return worst


@oracle("entropic action matching from N(0, 1) to N(0, 1/4): moments of 40,000 samples of its dynamics", 0.025)
def action_samples() -> float:
    """Standard error 0.005, and the weak error of 100 steps."""
    sigma = 0.6

    def potential(x: Tensor, t: Tensor, context: Context) -> Tensor:
        v, rate = (1 - t) ** 2 + 0.25 * t**2, 0.5 * t - 2 * (1 - t)
        return (rate - sigma**2) / (4 * v) * x[:, 0, 0] ** 2

    flow = Flow(Geodesic(Euclidean(1)), Normal(), Potential(potential, Euclidean(1)))
    x = flow.sample(Context.full(40_000), EulerMaruyama(sigma), 100)
    return max(abs(float(x.mean())), abs(float(x.std()) - 0.5)) / 0.5
