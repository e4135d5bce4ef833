"""What engine tests share."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)  # the states of these tests are small, and threads would wait for each other


@pytest.fixture
def double():
    """Double precision by default, from a fixed seed."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)
