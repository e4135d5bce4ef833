"""Fitted noise has the covariance of the data on every grid; the kernel norm belongs to functions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fm_science.couplings import Transport
from fm_science.couplings.costs import cross, groups, table
from fm_science.priors import RBF, GaussianProcess, Matern
from fm_science.spaces import Functions
from fm_science.state import Context
from fm_science.testing import check_prior
from fm_science_domains.function import build
from fm_science_domains.function.data import Data, load
from fm_science_domains.function.noise import Factored, decompose, fitted
from fm_science_domains.function.norms import KernelNorm
from fm_science_domains.function.sensors import places, quadrature

FEW = {"train": 400, "held_out": 12, "batch": 8}


def on_grid(n: int, count: int = 1) -> Context:
    cond = {"coords": places((n,), [False]).float(), "weights": quadrature((n,), [False]).float()}
    cond["grid"] = torch.tensor([n])
    return Context(torch.ones(count, n, dtype=torch.bool), {k: v.expand(count, *v.shape) for k, v in cond.items()})


def test_functions_beside_a_kernel_are_found() -> None:
    """Data of a rough process plus one broad function with a random weight: both come back."""
    torch.manual_seed(0)
    x, law = places((40,), [False]), Matern(0.5, 0.1, 0.5)
    shape = 3 * torch.cos(math.pi * x[:, 0])
    rough = torch.linalg.cholesky(law.covariance(x[:, None] - x)) @ torch.randn(40, 4000, dtype=torch.float64)
    values = (rough + shape[:, None] * torch.randn(4000, dtype=torch.float64)).T[..., None]
    found = decompose(Matern(0.5, 0.1), x, values, None)
    assert found.shapes.shape == (40, 1, 1)
    assert abs(found.kernel.std / 0.5 - 1) < 5 / (2 * values.numel()) ** 0.5 + 0.01
    error = found.shapes[:, 0, 0].abs() - shape.abs()
    assert float(error.abs().max()) < 5 * 3 / (2 * 4000) ** 0.5 + 0.1  # 0.1: what one more weight takes from the kernel
    assert decompose(Matern(2.5, 0.4), x, values, None).score < found.score


@pytest.mark.parametrize("data", [{"source": "mogp", "grid": 33}, {"source": "burgers", "grid": 16, "train": 200}])
def test_noise_has_the_covariance_of_the_data(data: dict, tmp_path: Path) -> None:
    sets = load(Data(**{**FEW, **data, "cache": str(tmp_path)}))
    law = fitted(sets, 1.0 if all(sets.frame.periodic) else 2.0, 1.0, None)
    assert isinstance(law, Factored)
    values = torch.stack([v for v, _ in sets.train]).double().flatten(1)
    coords = sets.train[0][1]["coords"][None]
    covariance = law.covariance(coords, torch.ones(coords.shape[:2], dtype=torch.bool))[0]
    gap = covariance - values.T.cov()
    assert float(gap.norm() / covariance.norm()) < 0.05  # what is left are weak functions that do not pay


def test_a_draw_has_its_law_on_every_grid() -> None:
    sets = load(Data(**FEW, source="mogp", grid=33))
    law = fitted(sets, 2.0, 1.0, None)
    assert isinstance(law, Factored)
    fine, count = on_grid(65), 4000
    torch.manual_seed(0)
    x = law.sample(Functions(1), on_grid(65, count))[..., 0].double()
    live = torch.ones(1, 65, dtype=torch.bool)
    exact = law.covariance(fine.cond["coords"], live)[0]
    error = (x.T @ x / count - exact) / exact.diagonal().sqrt() / exact.diagonal().sqrt()[:, None]
    assert float(error.abs().max()) < 5 * (2 / count) ** 0.5
    coarse = law.covariance(on_grid(33).cond["coords"], live[:, :33])[0]
    torch.testing.assert_close(exact[::2, ::2], coarse, rtol=1e-6, atol=1e-6)
    between, around = exact[1::2, 1::2].diagonal(), coarse.diagonal().unfold(0, 2, 1).mean(1)
    assert float((between / around - 1).abs().max()) < 0.1  # no dips between the sensors that were fitted


def test_fitted_noise_is_a_prior_with_a_density() -> None:
    sets = load(Data(**FEW, source="mogp", grid=9))
    law = fitted(sets, 2.0, 1.0, 2)
    coords = torch.rand(4, 5, 1)
    assert isinstance(law, Factored)
    one = Context(torch.ones(1, 2, dtype=torch.bool), {"coords": coords[:1, :2]})
    check_prior(law, Functions(1), cond={"coords": coords}, density=one, draws=4000)
    context = on_grid(9, 6)
    x, bound = law.sample(Functions(1), context), Functions(1).bind(context)
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(9, dtype=torch.float64), law.covariance(bound.coords[:1], context.mask[:1])[0]
    )
    found = law.log_prob(bound, x)
    torch.testing.assert_close(found.double(), exact.log_prob(x[..., 0].double()), rtol=1e-5, atol=1e-3)
    twice = law.scaled(2.0)
    torch.testing.assert_close(twice.log_prob(bound, 2 * x), found - 9 * math.log(2), rtol=1e-5, atol=2e-3)


def test_sensors_of_ones_own_have_a_kernel_alone() -> None:
    law = build(data={**FEW, "sensors": 20, "train": 60, "nu": 1.5, "length": 0.3}).prior
    assert isinstance(law, GaussianProcess)
    assert law.kernel.nu == 1.5  # type: ignore[attr-defined]
    assert 0.8 < law.kernel.std < 1.25


def waves(n: int, count: int) -> tuple[Context, torch.Tensor]:
    """Functions of a few waves, the same on every grid."""
    torch.manual_seed(1)
    size, phase = torch.randn(2, count, 5, 1).unbind()
    x, k = places((n,), [False])[:, 0].float(), torch.arange(1, 6).float()
    return on_grid(n, count), (size * torch.sin(k[:, None] * math.pi * x + phase)).sum(1)[..., None]


@pytest.mark.parametrize("cost", [None, KernelNorm(0.1)], ids=["l2", "kernel"])
def test_doubling_the_sensors_doubles_no_cost(cost: KernelNorm | None) -> None:
    found = []
    for n in (65, 129):
        context, f = waves(n, 16)
        space, group = Functions(1).bind(context), groups(context)
        found.append(table(space, f[torch.arange(16).roll(3)], f, context, group, cost=cost))
        if cost is not None:
            paired = cost(space, f.roll(3, 0), f)
            torch.testing.assert_close(paired.double(), found[-1].diagonal(), rtol=1e-3, atol=1e-5)
    error = (found[0] - found[1]).abs().max() / found[1].median()
    assert float(error) < 5e-3  # the trapezoidal rule on 65 sensors errs by (5 pi / 64)² / 12 of the finest wave


def test_the_kernel_norm_is_a_double_integral() -> None:
    context, f = waves(129, 2)
    space, w = Functions(1).bind(context), context.cond["weights"][0].double()
    x = context.cond["coords"][0].double()
    k = RBF(0.1).covariance(x[:, None] - x)
    u = (f[1] - f[0])[:, 0].double()
    exact = (w[:, None] * w * k * u[:, None] * u).sum()
    assert float(KernelNorm(0.1)(space, f[[0, 0]], f[[1, 1]])[0]) == pytest.approx(float(exact), rel=1e-3)


def test_transport_by_the_weighted_norm_is_the_cheapest() -> None:
    """The table by matrix products equals the distances pair by pair, and the plan improves on the pairs as drawn."""
    context, f = waves(33, 12)
    space = Functions(1).bind(context)
    noise = torch.randn_like(f)
    both = table(space, noise, f, context, groups(context)), cross(space, noise, f, context)
    one = torch.stack([space.inner(f, noise[i : i + 1] - f, noise[i : i + 1] - f) for i in range(12)])
    torch.testing.assert_close(both[0], one.double(), rtol=1e-4, atol=1e-5)
    for cost in (None, KernelNorm(0.1)):
        law = Transport(ignore=("coords", "weights", "grid"), cost=cost)
        paired, _, _ = law.pair(space, noise, f, context)
        price = cost or (lambda s, a, b: s.inner(b, a - b, a - b))
        assert float(price(space, paired, f).sum()) < float(price(space, noise, f).sum())


def test_transport_in_the_kernel_norm_is_an_option() -> None:
    domain = build(data={**FEW, "grid": 16}, coupling={"norm": "kernel", "length": 0.2})
    assert isinstance(domain.objective.coupling.cost, KernelNorm)  # type: ignore[attr-defined]
