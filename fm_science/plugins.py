"""Which domains are installed. Any package adds one by an entry point in the group ``fm_science.domains``::

    [project.entry-points."fm_science.domains"]
    crystal = "fm_crystal:Crystal"

The value names a subclass of :class:`fm_science.Domain`, or a function ``build(data=..., network=..., ...)`` that makes
a domain, in a module that holds ``OPTIONS``, the dataclass of each of its arguments by name. The built-in sciences come
through the same door. Discovery reads metadata only and imports no plugin, so one that cannot be imported breaks
nothing but itself.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fm_science.errors import UserError, nearest

GROUP = "fm_science.domains"


class PluginError(UserError):
    """A domain is installed but cannot be used: it fails to import, or lacks what a domain must offer."""


@dataclass(frozen=True)
class Plugin:
    """A domain as its distribution's metadata describe it; its code is imported by ``module`` only."""

    name: str
    dist: str
    version: str
    entry: EntryPoint

    @property
    def builtin(self) -> bool:
        return self.dist == "fm-science"

    @property
    def configs(self) -> Path | None:
        """The plugin's own folder ``configs``, found without importing the plugin (None: it has none)."""
        spec = importlib.util.find_spec(self.entry.module.partition(".")[0])  # a top-level name: found, not imported
        for root in (spec.submodule_search_locations or []) if spec else []:
            if (Path(root) / "configs").is_dir():
                return Path(root) / "configs"
        return None

    @property
    def folder(self) -> Path | None:
        """Where the domain's package or module lies, found without importing it (None: nowhere)."""
        top, _, inner = self.entry.module.partition(".")
        spec = importlib.util.find_spec(top)
        roots = list(spec.submodule_search_locations or []) if spec else []
        return Path(roots[0], *inner.split(".")) if roots and inner else Path(roots[0]) if roots else None

    def module(self) -> ModuleType:
        """The module that the entry point names. Raises PluginError when it cannot be imported."""
        try:
            return importlib.import_module(self.entry.module)
        except Exception as error:
            extra = f"; pip install 'fm-science[{self.name}]'" if self.builtin else ""
            raise PluginError(
                f"domain {self.name!r} ({self.dist} {self.version}) cannot be imported: "
                f"{type(error).__name__}: {error}{extra}"
            ) from error

    def options(self) -> Mapping[str, type]:
        """The domain's groups of options: a frozen dataclass a group. Raises PluginError when there are none."""
        made = self.builder()
        if isinstance(made, type):
            return made.groups()  # type: ignore[attr-defined]  # a Domain, which stands above
        found = getattr(self.module(), "OPTIONS", None)
        if not isinstance(found, Mapping):
            raise PluginError(f"domain {self.name!r}: module {self.entry.module} has no OPTIONS = {{group: dataclass}}")
        return found

    def builder(self) -> Callable[..., Any]:
        """The class, or the function, that makes the domain from its groups of options."""
        found = getattr(self.module(), self.entry.attr, None)
        if not callable(found):
            raise PluginError(f"domain {self.name!r}: {self.entry.value} is neither a class nor a function")
        return found

    def build(self, groups: Mapping[str, Any], statistics: Mapping[str, Any] | None = None) -> Any:
        """The domain of these groups of options, with the statistics of an earlier fit where there are any."""
        domain = self.builder()(**groups)
        if statistics is not None:
            domain.given = statistics
        return domain


def plugins() -> list[Plugin]:
    """Every domain that any installed distribution offers, the one that wins first among equal names.

    A built-in domain wins over others of its name, then the distribution whose name comes first in the alphabet.
    """
    found = {
        (entry.name, entry.dist.name): Plugin(entry.name, entry.dist.name, entry.dist.version, entry)
        for entry in entry_points(group=GROUP)
        if entry.dist is not None
    }
    return sorted(found.values(), key=lambda plugin: (plugin.name, not plugin.builtin, plugin.dist))


def domains() -> dict[str, Plugin]:
    """The domains by name, in the order of the alphabet."""
    found: dict[str, Plugin] = {}
    for plugin in plugins():
        found.setdefault(plugin.name, plugin)
    return found


def find(name: str) -> Plugin:
    """The domain of a name. Raises UserError that names the nearest known one."""
    known = domains()
    if name not in known:
        raise UserError(f"unknown domain {name!r}; {nearest(name, known)}")
    return known[name]
