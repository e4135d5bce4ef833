"""Flows known in closed form reach their answer. The same rows as ``python -m benchmarks.oracles``."""

from __future__ import annotations

import pytest

from benchmarks.oracles import ORACLES, measured

ROWS = [pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.slow else []) for row in ORACLES]


@pytest.mark.parametrize("row", ROWS)
def test_the_engine_reaches_the_closed_form(row):
    assert measured(row) <= row.tolerance
