"""The result of training: options, statistics and weights. Domain and flow are rebuilt from them, without data.

A run folder (:mod:`fm_science.runs`) and a model file (:mod:`fm_science.models`) are two ways to store it.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import __version__
from fm_science.domain import Domain, Statistics, group
from fm_science.errors import OptionError, UserError
from fm_science.plugins import Plugin, find
from fm_science.record import RecordDomain
from fm_science.seeds import seeded

if TYPE_CHECKING:
    from torch import Tensor

    from fm_science.flow import Flow

Tree = dict[str, Any]
log = logging.getLogger("fm_science")


class Trained(ABC):
    """Options, statistics and weights.

    Args:
        label: its name in messages.
        config: the domain's name, its groups of options, and plain keys such as ``seed`` and ``version``.
        statistics: what the domain fitted to its data; ``None``: it was not stored.

    Raises:
        UserError: when it was written by a newer version of this package.
    """

    def __init__(self, label: str, config: Mapping[str, Any], statistics: Statistics | None) -> None:
        self.label, self.config, self.statistics = label, dict(config), statistics
        check_version(label, str(self.config.get("version", "0")))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.label!r}, domain {self.name!r}, seed {self.seed})"

    @property
    def name(self) -> str:
        """The name of the domain."""
        return str(self.config["domain"])

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return int(self.config.get("seed") or 0)

    @property
    def plugin(self) -> Plugin:
        """The domain as it is installed. Raises UserError if it is not."""
        return find(self.name)

    @property
    def folder(self) -> Path | None:
        """The run folder, if it is one."""
        return None

    @property
    def samples(self) -> Path:
        """Where samples are written by default."""
        return Path("samples", self.label)

    @property
    def report(self) -> Path:
        """Where measurements are written by default."""
        return Path("report", self.label)

    def require_weights(self) -> None:
        """Raise UserError if no weights were stored yet; they are not read."""
        _ = self.fingerprint

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """The averaged weights of the flow by name. Raises UserError if there are none."""

    @property
    @abstractmethod
    def fingerprint(self) -> list[int]:
        """Numbers that change when the weights do: size and time of their file."""

    def groups(self) -> Tree:
        """Every option of the domain by group: as trained; for those that are newer, their value before they
        existed."""
        kinds, kept = self.plugin.options(), renamed(self.plugin, self.config)
        return {name: {**before(kind), **(kept.get(name) or {})} for name, kind in kinds.items()}

    def domain(self, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Domain:
        """The domain with its statistics, and with other options in some groups. Reads no data if statistics were
        stored. Raises UserError if options do not fit the domain."""
        values = self.groups()
        for name, changed in (changes or {}).items():
            values[name] = {**values.get(name, {}), **changed}
        try:
            chosen = {name: group(kind, values[name], name) for name, kind in self.plugin.options().items()}
        except OptionError as error:
            raise OptionError(f"{error} ({self.label})") from error
        domain: Domain = self.plugin.build(chosen, self.statistics)
        return self.adopt(domain)

    def adopt(self, domain: Domain) -> Domain:
        """``domain`` with the statistics of this training. Raises UserError when it is another domain."""
        if domain.name != self.name:
            raise UserError(f"{self.label} is of domain {self.name!r}, not {domain.name!r}")
        if isinstance(domain, RecordDomain):  # which has created everything already
            return domain
        if self.statistics is None:
            log.warning("%s keeps no statistics: they are fitted to the data again, which must be as they were",
                        self.label)  # fmt: skip
        domain.given = self.statistics
        return domain

    def flow(self, domain: Domain | None = None, trained: bool = True) -> Flow:
        """The flow, for sampling; of ``domain`` if one is given, else of :meth:`domain`; with ``trained=False`` it has
        the initial weights of the training. Raises UserError if the weights do not fit."""
        with seeded(self.seed):  # untrained, the network has the initial weights
            flow = (domain or self.domain()).flow()
        return (flow.fill(self._weights(flow.domain), self.label) if trained else flow).eval()

    def _weights(self, domain: Domain) -> dict[str, Tensor]:
        """The weights under the present names of the network."""
        found = dict(self.weights())
        for old, new in domain.renamed_weights.items():
            found = {f"{new}{k.removeprefix(old)}" if k.startswith(old) else k: v for k, v in found.items()}
        return found


def _is_domain(maker: Any) -> bool:
    """Whether a plugin names the class of its domain, not a function that builds a record of one."""
    return isinstance(maker, type)


def renamed(plugin: Plugin, config: Mapping[str, Any]) -> Tree:
    """The configuration with the present names of options; the domain lists the renamed ones."""
    maker: Any = plugin.builder()
    names: Mapping[str, str] = maker.renamed_options if _is_domain(maker) else {}
    found = {name: dict(tree) if isinstance(tree, Mapping) else tree for name, tree in config.items()}
    for old, new in names.items():
        (before, key), (after, now) = old.split("."), new.split(".")
        if key in (found.get(before) or {}):
            found.setdefault(after, {})[now] = found[before].pop(key)
    return found


def before(kind: Any) -> Tree:
    """The options of a group, with their values before each of them existed, else their defaults."""
    found: Tree = asdict(kind())
    return found | {f.name: f.metadata["before"] for f in fields(kind) if f.metadata.get("before") is not None}


def check_version(label: str, version: str) -> None:
    """Raise UserError if ``version`` of this package is newer than the running one."""
    theirs, ours = (tuple(map(int, re.findall(r"\d+", text)[:2])) for text in (version, __version__))
    if theirs > ours:
        raise UserError(f"{label} was written by fm-science {version}, and this is {__version__}: update fm-science")
