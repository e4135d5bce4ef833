"""Metrics against closed forms: what is zero must be zero, what is known must be found."""

from __future__ import annotations

import math

import pytest
import torch

from fm_science import RBF
from fm_science_domains.function.data import Data, load
from fm_science_domains.function.exact import gram
from fm_science_domains.function.metrics import (
    autocorrelation,
    memory_metric,
    metrics,
    moments,
    spectrum,
    stage,
)
from fm_science_domains.function.sensors import places, refined


def test_moments_are_those_of_known_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(200_000, 1).exponential_(generator=generator).double()
    found = moments(x)
    for key, value in {"mean": 1, "variance": 1, "skewness": 2, "kurtosis": 6}.items():
        assert float(found[key]) == pytest.approx(value, rel=0.1)


def test_spectrum_and_autocorrelation_know_a_wave() -> None:
    """A wave of number 3 with random phase and variance 1/2 each way round."""
    phase = 2 * math.pi * torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    x = torch.sin(6 * math.pi * places((32,), [True])[:, 0] + phase)[..., None]
    power = spectrum(x, (32,), [True])[:, 0]
    assert float(power[3]) == pytest.approx(0.5, rel=0.01)
    assert float(power.sum() - power[3]) < 1e-3
    lags = autocorrelation(x, (32,), [True])[:, 0]
    expected = torch.cos(6 * math.pi * torch.arange(1, 17, dtype=torch.float64) / 32)
    torch.testing.assert_close(lags, expected, atol=0.02, rtol=0)


def test_the_norm_does_not_see_the_grid() -> None:
    """The Fréchet distance between two processes, from their covariances, is the same at every resolution."""
    found = []
    for n in (17, 33, 65):
        w = torch.full((n,), 1 / (n - 1), dtype=torch.float64)
        w[0] = w[-1] = 0.5 / (n - 1)
        a, b = (w.sqrt()[:, None] * gram(RBF(s), places((n,), [False])) * w.sqrt() for s in (0.2, 0.4))
        values, vectors = torch.linalg.eigh(a)
        half = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
        inner = torch.linalg.eigvalsh(half @ b @ half).clamp_min(0).sqrt().sum()
        found.append(float(a.trace() + b.trace() - 2 * inner))
    assert found[0] == pytest.approx(found[2], rel=0.01)
    assert found[1] == pytest.approx(found[2], rel=0.003)


def test_rows_of_the_same_law_are_near_and_copies_are_found() -> None:
    sets = load(Data(source="gp", grid=24, train=300, held_out=300))
    validation, train = sets.held_out.functions, sets.train.functions
    found: dict[str, float] = {}
    for metric in metrics(lambda: sets).values():
        found |= metric(train, validation)
    assert found["memorised"] == 1
    assert found["nearest_training"] == 0
    assert found["mean_mse"] < 6 * 2 / 300  # the difference of two means of 300
    assert found["spectrum_error"] < 5 * (4 / 300) ** 0.5
    assert abs(found["energy_distance"]) < 0.05
    again: dict[str, float] = {}
    for metric in metrics(lambda: sets).values():
        again |= metric(validation, validation)
    assert again["mean_mse"] == again["energy_distance"] == 0
    assert again["frechet"] < 1e-6
    assert memory_metric(stage(sets), sets, validation, validation)["memorised"] < 0.2


def test_functions_on_finer_grids_are_compared_where_both_are_known() -> None:
    coarse, fine = (load(Data(source="stokes", grid=f"{n}x{n}", train=20, held_out=10)) for n in (9, 33))
    assert refined((9, 9), [False, False], 4) == (33, 33)
    s = stage(coarse)
    torch.testing.assert_close(s.values(fine.held_out.functions), s.values(coarse.held_out.functions))
