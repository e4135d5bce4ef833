"""Flows known in closed form reach their answer. The same rows as ``python -m benchmarks.oracles``."""

from __future__ import annotations

import pytest
import torch

from tests.oracles.rows import ORACLES, measured

torch.set_num_threads(1)  # the states of these tests are small, and threads would wait for each other
ROWS = [pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.slow else []) for row in ORACLES]


@pytest.mark.parametrize("row", ROWS)
def test_the_engine_reaches_the_closed_form(row):
    assert measured(row) <= row.tolerance
