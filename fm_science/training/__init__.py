"""Training: one Lightning loop for every domain, which resumes exactly.

Lightning takes seconds to import, so the loop is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fm_science.models import load as load
from fm_science.runs import Run as Run
from fm_science.training.options import Optimizer as Optimizer
from fm_science.training.options import Trainer as Trainer

if TYPE_CHECKING:
    from fm_science.training.loop import fit as fit
    from fm_science.training.module import FlowModule as FlowModule

LATER = {"fit": "fm_science.training.loop", "FlowModule": "fm_science.training.module"}


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(import_module(LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
