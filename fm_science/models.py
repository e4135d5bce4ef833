"""Models: what was trained, in one file or under a name, where a run folder may stand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fm_science.runs import Run

if TYPE_CHECKING:
    from fm_science.domain import Domain
    from fm_science.flow import Flow
    from fm_science.trained import Trained


def find_trained(source: str | os.PathLike[str]) -> Trained:
    """What was trained: a run folder. Raises UserError where there is none of that name."""
    return Run.open(source)


def load(source: str | os.PathLike[str], domain: Domain | type[Domain] | None = None) -> Flow:
    """The flow of what was trained, with its averaged weights and its domain; no data are read.

    Args:
        source: a run folder.
        domain: the domain, or its class, where that is not installed as a plugin; its own statistics do not count.

    Raises:
        UserError: when there is none of that name, it cannot be used here, or holds no weights yet.
    """
    found = find_trained(source)
    if isinstance(domain, type):
        domain = domain(**{name: found.config[name] for name in domain.groups() if name in found.config})
    return found.flow(found.adopt(domain) if domain is not None else None)


