"""Differential tests: the same numbers from other libraries. Run them with `pip install 'fm-science[peers]'` and
`pytest -m peers`; without the peers they are skipped."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _double_precision():
    """Everything in double precision from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
