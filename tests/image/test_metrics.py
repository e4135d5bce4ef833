"""Metrics against closed forms: Gaussians, disjoint sets, copies; bits per dimension against a known density."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science.couplings import Independent
from fm_science.flow import Flow
from fm_science.paths import Gaussian
from fm_science.priors import Normal
from fm_science.schedules import Linear
from fm_science.spaces import Euclidean
from fm_science.state import Context, expand_like
from fm_science_domains.image import build
from fm_science_domains.image.data import Data, sets
from fm_science_domains.image.features import Features
from fm_science_domains.image.files import Image, rounded
from fm_science_domains.image.likelihood import appraise, bits
from fm_science_domains.image.metrics import Measures, Metrics, kernel_distance, share_finite, support
from fm_science_domains.image.recipe import Dithered


@pytest.fixture(scope="module")
def digits():
    return sets(Data())


def test_kernel_distance_is_unbiased() -> None:
    """Over 200 pairs of sets of one law the mean is 0 within five of its standard errors."""
    x = torch.randn(200, 2, 30, 3, dtype=torch.float64)
    found = torch.tensor([kernel_distance(a, b) for a, b in x])
    assert found.mean().abs() < 5 * found.std() / 200**0.5
    assert kernel_distance(x[0, 0], x[0, 1] + 3) > 10 * found.std()


def test_precision_and_recall() -> None:
    x = torch.randn(100, 3).double()
    assert support(x, x) == {"precision": 1.0, "recall": 1.0, "coverage": 1.0}
    assert support(x, x + 100) == {"precision": 0.0, "recall": 0.0, "coverage": 0.0}
    one_mode = support(x, torch.cat([x, x + 100]))  # all samples are good, half of the data is missed
    assert (one_mode["precision"], one_mode["recall"], one_mode["coverage"]) == (1.0, 0.5, 0.5)


def test_copies_are_found(digits) -> None:
    measures = Measures(digits, Features(digits), mirrored=True)
    held_out, train = digits.held_out.images(), digits.train.images(50)
    mirrored = [Image(image.pixels.flip(-1)) for image in train]
    assert measures.copies(train, held_out) == {"nearest_training": 0.0, "copies": 1.0}
    assert measures.copies(mirrored, held_out)["copies"] == 1.0
    assert measures.copies(held_out, held_out)["copies"] == pytest.approx(0.01, abs=0.005)
    assert torch.equal(measures.neighbours(train[:3])[2].pixels, train[2].pixels)
    broken = Image(torch.full((1, 8, 8), torch.nan))
    assert share_finite([broken, *train], held_out)["finite"] == pytest.approx(50 / 51)


def test_features_are_kept_and_named(digits, tmp_path) -> None:
    first, second = (Features(digits, str(tmp_path)) for _ in range(2))
    assert first.digest == second.digest
    assert len(list(tmp_path.glob("classifier-*.pt"))) == 1
    found = first(digits.train.images())[0]
    torch.testing.assert_close(found.std(0), torch.ones(32).double(), rtol=1e-3, atol=1e-3)
    assert first.key != Features(sets(Data(labels=False, limit=500)), str(tmp_path)).key


def test_dither_fills_a_level_and_can_be_rounded_away(digits) -> None:
    x1 = digits.train.pixels(slice(200))[:, None]
    x0 = torch.randn_like(x1)
    same, x, _ = Dithered(Independent(), digits.bin).pair(None, x0, x1, Context.full(200))
    assert torch.equal(same, x0)
    assert torch.allclose(rounded(x, 16), x1, atol=1e-6)
    assert (x - x1).std() == pytest.approx(digits.bin / 12**0.5, rel=0.02)  # 12,800 values: 1 / sqrt(2 n) is 0.006
    assert Dithered(Independent(), 0.1).independent


def gaussian_flow(spread: float) -> Flow:
    """The exact flow from noise to N(0, spread²)."""

    def velocity(x, t, context):
        t = expand_like(t, x)
        return (t * spread**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * spread**2) * x

    return Flow(Gaussian(Euclidean((1, 8, 8)), Linear()), Normal(), velocity)


def test_bits_are_those_of_the_density(digits) -> None:
    """The law is N(0, 1) on every value; a level is 1/8 wide. The flow does not move, so nothing is left to chance but
    the dither, which the same seed repeats."""
    found, error = bits(gaussian_flow(1.0), digits.held_out, Metrics(likelihood=16, steps=8), rule_of())
    torch.manual_seed(0)
    x = digits.held_out.pixels(slice(16))[:, None]
    x = x + digits.bin * (torch.rand_like(x) - 0.5)
    nats = 0.5 * x.square().mean() + 0.5 * math.log(2 * math.pi)
    assert found == pytest.approx(float(nats / math.log(2)) - math.log2(1 / 8), abs=1e-4)
    assert error > 0


def rule_of():
    from fm_science.likelihood import ExactTrace

    return ExactTrace()


def test_what_is_said_of_a_flow(digits) -> None:
    numbers = appraise(digits, Metrics(likelihood=4, steps=4, evaluations=4), gaussian_flow(0.7))
    assert numbers["bits_uniform"] == pytest.approx(math.log2(17))
    assert numbers["bits_gaussian"] < numbers["bits_held_out"]
    assert numbers["evaluations_1e-3"] <= numbers["evaluations_1e-5"]
    domain = build(network={"width": 8, "head": 8}, metrics={"likelihood": 2, "steps": 2, "evaluations": 2})
    assert all(math.isfinite(v) for v in domain.evaluate_flow(domain.flow().eval()).values())
