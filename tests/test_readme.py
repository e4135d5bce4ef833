"""The README's Python is run, block after block, as a reader would type it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_every_python_block_of_the_readme_runs():
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    radius = names["samples"].norm(dim=-1)
    assert 2.0 < radius.mean() < 4.0
