"""Code that an option names, and whether it may be imported.

An option may name the user's own code as ``module:attribute`` (an energy, a network). What you type is imported. A run
folder from somebody else may name code too, even a file next to it; that is imported only with ``trust=true`` on the
command line. This is the one place where such names are imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fm_science.errors import UserError

_SOURCE: ContextVar[str | None] = ContextVar("untrusted source", default=None)
CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class UntrustedCode(UserError):
    """Something from another source needs code to be imported."""


@contextmanager
def source(name: str | None) -> Iterator[None]:
    """What is built inside comes from ``name``, such as a run folder, and was not typed; ``None``: from the user."""
    token = _SOURCE.set(name)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def allow(code: str) -> None:
    """Raise UntrustedCode unless ``code``, ``module:attribute`` or a file, may be imported here."""
    name = _SOURCE.get()
    if name is not None:
        raise UntrustedCode(
            f"{name} wants to import {code!r}, which is code and may do anything; read it, and if you trust it, add "
            "trust=true"
        )


def wanted(tree: Mapping[str, Any]) -> list[str]:
    """The values in a configuration that look like code, ``group.option=module:attribute``."""
    found = []
    for group, options in tree.items():
        for key, value in options.items() if isinstance(options, Mapping) else ():
            if isinstance(value, str) and CODE.fullmatch(value):
                found.append(f"{group}.{key}={value}")
    return found
