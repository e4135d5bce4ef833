"""The Python of the README and of the guides is run, block after block, as a reader would type it; names that were
replaced are refused."""

from __future__ import annotations

import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def run(page: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any]]:
    """How many blocks there were, and the names that they left behind."""
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    module = types.ModuleType(f"guide_{page.stem}")
    names = vars(module)
    monkeypatch.setitem(sys.modules, module.__name__, module)  # annotations of classes are looked up there
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is now called.*")
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page} (block {number})", "exec", dont_inherit=True), names)
    return len(blocks), names


def test_every_python_block_of_the_readme_runs(monkeypatch):
    count, names = run(ROOT / "README.md", monkeypatch)
    assert count >= 3
    radius = names["samples"].norm(dim=-1)
    assert 2.0 < radius.mean() < 4.0


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.name)
def test_every_python_block_of_a_guide_runs(guide, monkeypatch):
    run(guide, monkeypatch)
