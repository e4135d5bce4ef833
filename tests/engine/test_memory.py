"""Work that does not fit into memory is refused in words, and the process lives on."""

from __future__ import annotations

import sys

import pytest
import torch

from fm_science import memory
from fm_science.errors import UserError
from fm_science.memory import spare

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")


def test_more_than_is_free_is_refused_and_less_is_not(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2e8)
    with spare("batch"):
        assert float(torch.ones(10_000_000).sum()) == 1e7  # 40 MB
    said = r"needs 4\.0 GB more than it has, and 0\.2 GB were free; make batch smaller"
    with pytest.raises(UserError, match=said), spare("batch"):
        torch.ones(1_000_000_000)
    assert float(torch.ones(100_000_000).sum()) == 1e8  # 400 MB: outside there is no limit


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), spare("batch"):
        torch.ones(2) @ torch.ones(3, 3)
