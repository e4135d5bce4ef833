"""The Python of the README and of the guides is run, block after block, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def run(page: Path) -> tuple[int, dict[str, Any]]:
    """How many blocks there were, and the names that they left behind."""
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    return len(blocks), names


def test_every_python_block_of_the_readme_runs():
    count, names = run(ROOT / "README.md")
    assert count >= 3
    radius = names["samples"].norm(dim=-1)
    assert 2.0 < radius.mean() < 4.0


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.name)
def test_every_python_block_of_a_guide_runs(guide):
    run(guide)
