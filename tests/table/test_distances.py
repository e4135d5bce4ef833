"""Distances between sets of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_science_domains.table.distances import copies


def test_copies_are_counted_where_rows_are_equal_and_denormals_are_zero() -> None:
    rows = np.repeat(np.eye(2), 40, axis=0)
    torch.set_flush_denormal(True)  # as training does
    try:
        found = copies(rows[:10] + 0.5, rows)
    finally:
        torch.set_flush_denormal(False)
    assert found == {"copies": 0.0, "nearest_training_row": pytest.approx(0.5**0.5)}


def test_a_copy_is_three_times_as_near_to_one_row() -> None:
    train = np.array([[0.0], [1.0], [5.0]])
    found = copies(np.array([[0.1], [0.4], [4.9]]), train)
    assert found == {"copies": pytest.approx(2 / 3), "nearest_training_row": pytest.approx(0.1)}
