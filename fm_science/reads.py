"""Which options are read: an option that the chosen kind of model never asks for has no effect, and the user is told.

A recipe builds path, network, objective and sampler from groups of options. It gets a *watched* copy of each group,
which notes the fields that are asked for; what was changed and not asked for did nothing. So no list has to say which
option belongs to which kind, and none can be wrong.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class Watch:
    """Notes which fields of groups of options are read."""

    def __init__(self) -> None:
        self.groups: dict[str, Any] = {}
        self.read: set[str] = set()

    def over(self, name: str, group: T) -> T:
        """A copy of a dataclass of options, called ``name``, whose reads are noted."""
        options: Any = group
        kind, read = type(options), self.read
        fields = {item.name for item in dataclasses.fields(options)}

        def noted(self: Any, item: str) -> Any:
            if item in fields:
                read.add(f"{name}.{item}")
            return object.__getattribute__(self, item)

        copy: T = object.__new__(type(kind.__name__, (kind,), {"__getattribute__": noted}))
        vars(copy).update(vars(options))
        self.groups[name] = group
        return copy

    def idle(self, later: Collection[str] = ()) -> dict[str, Any]:
        """The options that differ from their defaults and were not read, with their values; those named in ``later``
        are read by others."""
        changed = {
            f"{name}.{item.name}": vars(group)[item.name]
            for name, group in self.groups.items() for item in dataclasses.fields(group)
            if vars(group)[item.name] != item.default
        }  # fmt: skip
        return {name: value for name, value in changed.items() if name not in self.read and name not in later}

    def tell(self, because: str, later: Collection[str] = ()) -> None:
        """One line about the options that have no effect ``because`` of another, if there are any."""
        idle = self.idle(later)
        if idle:
            words = " ".join(f"{name}={value}" for name, value in idle.items())
            log.warning("%s: without effect with %s", words, because)
