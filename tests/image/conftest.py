"""What tests of images share: a classifier that is trained for three steps, and a cache that goes away."""

from __future__ import annotations

import pytest
import torch

from fm_science_domains.image import features

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quick_features(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(features, "STEPS", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    torch.manual_seed(0)
