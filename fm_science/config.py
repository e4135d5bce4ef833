"""The options of commands and their defaults.

Every default is defined in one place, the dataclass it belongs to: the domain's groups (data, network, path, coupling,
sample, metrics, objective) and the engine's (trainer, optimizer). A configuration is the tree of these groups and a few
plain keys; a preset is a YAML file that records only what an experiment changes. This module does not use Hydra.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fm_science.errors import OptionError, UserError, nearest
from fm_science.plugins import Plugin
from fm_science.storage import load_yaml

Tree = dict[str, Any]


def engine() -> dict[str, type]:
    """The engine's own groups of options."""
    from fm_science.training import Optimizer, Trainer

    return {"trainer": Trainer, "optimizer": Optimizer}


def defaults(groups: Mapping[str, type]) -> Tree:
    """The default of every option, by group."""
    return {name: asdict(cls()) for name, cls in groups.items()}


def validate(groups: Mapping[str, type], values: Mapping[str, Any]) -> dict[str, Any]:
    """The groups as instances of their dataclasses. Raises OptionError that names the option and what is wrong."""
    from fm_science.domain import group

    return {name: group(cls, values.get(name), name) for name, cls in groups.items()}


def whole(name: str, value: Any, low: int = 0, high: int | None = None) -> int:
    """A whole number from ``low`` to ``high``. Raises OptionError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high:,}"
        raise OptionError(f"{name} must be a whole number {limits}, not {value!r}")
    return value


def number(name: str, value: Any) -> float:
    """A finite number. Raises OptionError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise OptionError(f"{name} must be a number, not {value!r}")
    return float(value)


def truth(name: str, value: Any) -> bool:
    """True or false. Raises OptionError otherwise."""
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be true or false, not {value!r}")
    return value


def seed(value: Any) -> int:
    """A seed that torch accepts. Raises OptionError otherwise."""
    from fm_science.seeds import SEEDS

    if whole("seed", value) >= SEEDS:
        raise OptionError(f"seed must be a whole number from 0 to {SEEDS - 1}, not {value!r}")
    return int(value)


def names(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all groups and options of a tree."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from names(value, f"{prefix}{key}.")


def check_names(given: Iterable[str], known: Tree, where: str = "") -> None:
    """Raise OptionError at the first name that is not in the tree, with the nearest one that is."""
    allowed = set(names(known))
    leaves = {name for name in allowed if not any(other.startswith(f"{name}.") for other in allowed)}
    for name in given:
        if name not in allowed and not any(name.startswith(f"{leaf}.") for leaf in leaves):
            raise OptionError(f"unknown option {name!r}{where}; {hint(name, allowed)}")


def hint(name: str, allowed: set[str]) -> str:
    """The nearest of many dotted names, or the options of the group when none is similar."""
    group, _, word = name.rpartition(".")
    beside = {other.rpartition(".")[2] for other in allowed if other.rpartition(".")[0] == group}
    if not beside:
        close = nearest(name, allowed)
        return close if close.startswith("did you mean") else nearest(name, {o for o in allowed if "." not in o})
    close = nearest(word, beside)
    if not close.startswith("did you mean"):  # nothing similar in the group: perhaps the group is missing
        same = sorted(other for other in allowed if other.endswith(f".{word}"))
        return f"did you mean {same[0]!r}?" if same else close
    return close.replace("'", f"'{group}.", 1) if group else close


def shipped(name: str) -> Path:
    """A folder that comes with the engine: next to the modules in a wheel, next to the package in a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / name, here.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no {name} next to {here}: the installation is broken")


def presets(plugin: Plugin) -> dict[str, Path]:
    """The presets of a domain by name."""
    root = shipped("configs") if plugin.builtin else plugin.configs
    return {file.stem: file for file in sorted((root / "preset" / plugin.name).glob("*.yaml"))} if root else {}


def preset(plugin: Plugin, name: str, known: Tree) -> Tree:
    """What a preset changes. Raises UserError if there is none of that name, or if it has an unknown option."""
    files = presets(plugin)
    if name not in files:
        raise UserError(f"unknown preset {name!r} of domain {plugin.name!r}; {nearest(name, files)}")
    tree = load_yaml(files[name])
    check_names(names(tree), known, f" in {files[name]}")
    return tree
