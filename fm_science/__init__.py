"""fm_science: flow matching on the spaces of science.

The public names are here and are imported when they are first used, so that ``import fm_science`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

HOMES: dict[str, str] = {}
__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
