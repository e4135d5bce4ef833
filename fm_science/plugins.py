"""Which domains are installed. Any package adds one by an entry point in the group ``fm_science.domains``::

    [project.entry-points."fm_science.domains"]
    crystal = "fm_crystal:Crystal"

The value names a subclass of :class:`fm_science.Domain`, or a function ``build(data=..., network=..., ...)`` that makes
a domain, in a module that has ``OPTIONS``, the dataclass of each of its arguments by name. The built-in domains are
found in the same way. Discovery reads metadata only and imports no plugin, so one that cannot be imported, or whose
metadata are malformed, does not affect the others.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from fm_science.errors import UserError, nearest

GROUP = "fm_science.domains"


class PluginError(UserError):
    """A domain is installed but cannot be used: it fails to import, or lacks what a domain must define."""


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
    def target(self) -> tuple[str, str]:
        """The module and the name in it that the entry point's value ``module:name`` gives; both are empty where it is
        malformed."""
        module, colon, name = self.entry.value.partition("[")[0].partition(":")
        module, name = module.strip(), name.strip()
        sound = colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))
        return (module, name) if sound else ("", "")

    @property
    def configs(self) -> Path | None:
        """The plugin's own folder ``configs``, found without importing the plugin (None: it has none)."""
        spec = _spec(self.target[0].partition(".")[0])  # a top-level name: found, not imported
        for root in (spec.submodule_search_locations or []) if spec else []:
            if (Path(root) / "configs").is_dir():
                return Path(root) / "configs"
        return None

    @property
    def folder(self) -> Path | None:
        """The folder of the domain's package or module, found without importing it (None: none)."""
        top, _, inner = self.target[0].partition(".")
        spec = _spec(top)
        roots = list(spec.submodule_search_locations or []) if spec else []
        return Path(roots[0], *inner.split(".")) if roots and inner else Path(roots[0]) if roots else None

    def wrong(self, what: str) -> PluginError:
        """The error that says what is wrong with this plugin."""
        return PluginError(f"domain {self.name!r} ({self.dist} {self.version}) {what}")

    def module(self) -> ModuleType:
        """The module that the entry point names. Raises PluginError when it cannot be imported."""
        if not self.target[0]:
            raise self.wrong(f"has the entry point {self.entry.value!r}: expected module:name, such as fm_ice:SeaIce")
        try:
            return importlib.import_module(self.target[0])
        except (Exception, SystemExit) as error:
            extra = f"; pip install 'fm-science[{self.name}]'" if self.builtin else ""
            raise self.wrong(f"cannot be imported: {type(error).__name__}: {error}{extra}") from error

    def options(self) -> Mapping[str, type]:
        """The domain's groups of options: one frozen dataclass per group. Raises PluginError when there are none."""
        made: Any = self.builder()
        if not isinstance(made, type):
            found = vars(self.module()).get("OPTIONS")
            if not isinstance(found, Mapping):
                raise self.wrong(f"cannot be used: module {self.target[0]} has no OPTIONS = {{group: dataclass}}")
            return self._sound(found)
        try:
            domain: Any = made  # a Domain
            found = domain.groups()
        except (AttributeError, KeyError, TypeError, NameError) as error:
            raise self.wrong(f"cannot be used: {made.__name__} is no Domain with options ({error})") from error
        return self._sound(found)

    def _sound(self, groups: Mapping[Any, Any]) -> Mapping[str, type]:
        """``groups``, each of which must be a dataclass that can be created without arguments."""
        for name, kind in groups.items():
            if not (isinstance(name, str) and isinstance(kind, type) and is_dataclass(kind)):
                raise self.wrong(f"cannot be used: its group of options {name!r} is {kind!r}, and no dataclass")
            bare = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING and f.init]
            if bare:
                raise self.wrong(f"cannot be used: its option {name}.{bare[0]} has no default")
        return groups

    def builder(self) -> Callable[..., Any]:
        """The class, or the function, that makes the domain from its groups of options."""
        module = self.module()
        found = vars(module).get(self.target[1])
        if not callable(found):
            raise self.wrong(f"cannot be used: {self.entry.value} is neither a class nor a function")
        return found

    def build(self, groups: Mapping[str, Any], statistics: Mapping[str, Any] | None = None) -> Any:
        """The domain of these groups of options, with the statistics of an earlier fit where there are any. Raises
        PluginError if none is made."""
        make = self.builder()
        try:
            inspect.signature(make).bind(**groups)
        except TypeError as error:
            raise self.wrong(f"cannot be used: {self.entry.value} does not take its own groups: {error}") from error
        except ValueError:  # its signature is not known
            pass
        try:
            domain = make(**groups)
        except SystemExit as error:
            raise self.wrong("cannot be used: it ends the program instead of making a domain") from error
        if domain is None or isinstance(domain, str | int | float | Mapping):
            raise self.wrong(f"cannot be used: {self.entry.value} made {domain!r}, and no domain")
        if statistics is not None:
            domain.given = statistics
        return domain


def _spec(module: str) -> ModuleSpec | None:
    """Where a module would be imported from; ``None``: nowhere."""
    try:
        return importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):  # one that is imported already and does not record it
        return None


def _label(dist: Distribution) -> tuple[str, str]:
    """Name and version of a distribution, whose metadata may be missing."""
    try:
        return str(dist.metadata["Name"] or "unnamed"), str(dist.metadata["Version"] or "?")
    except Exception:
        return "unnamed", "?"


def _offers() -> Iterator[Plugin]:
    """Every entry point of the group. Distributions whose entry points cannot be read are skipped."""
    for dist in distributions():
        try:
            found = list(dist.entry_points.select(group=GROUP))
        except Exception:  # a parser of broken texts may raise anything
            continue
        name, version = _label(dist) if found else ("", "")
        yield from (Plugin(entry.name, name, version, entry) for entry in found)


def plugins() -> list[Plugin]:
    """Every domain that any installed distribution offers; among equal names, the one that is used comes first.

    A built-in domain takes precedence over others of its name, then the distribution whose name comes first in the
    alphabet.
    """
    found: dict[tuple[str, str], Plugin] = {}
    for plugin in _offers():
        found.setdefault((plugin.name, plugin.dist), plugin)
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
