"""Every test starts from the same seed, alone as in the whole suite, and test modules draw nothing while imported."""

from __future__ import annotations

import pytest
import torch

BEFORE = torch.get_rng_state()


def pytest_collection_finish() -> None:
    """torch seeds itself anew in every process: what a module draws when imported would differ from run to run."""
    if not torch.equal(torch.get_rng_state(), BEFORE):
        raise pytest.UsageError("a test module draws random numbers when imported; draw them inside the test.")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    torch.manual_seed(2718)  # no test's own seed: the same numbers twice would tie noise to data


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a CUDA device are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
