"""The options in which two runs differ.

usage: fm-science config diff RUN RUN

Each RUN is a run folder, or a model by its file or name. One line for each option that differs, as it would be typed;
a dash stands for an option that a run does not have. Names, folders and versions are compared last.

example:
  fm-science config diff runs/first runs/second
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fm_science import launch
from fm_science.commands.domains import aligned
from fm_science.errors import UserError, nearest

ABOUT = ("run", "version", "resume", "from", "preset", "seed", "domain")  # plain keys, printed last
ABSENT = "-"


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Print the differences."""
    given = launch.words(args)
    if given.paths[:1] not in ((), ("diff",)):
        raise UserError(f"unknown word {given.paths[0]!r} after config; {nearest(given.paths[0], ['diff'])}")
    if len(given.paths) != 3 or given.overrides or given.flags:
        raise UserError("config diff takes two runs: fm-science config diff RUN RUN")
    first, second = given.paths[1:]
    rows = list(differences(options_of(first), options_of(second)))
    if not rows:
        print(f"{first} and {second} have the same options")
        return
    print("\n".join(aligned([("option", first, second), *rows])))


def options_of(source: str) -> Mapping[str, Any]:
    """The options of a run or a model."""
    from fm_science.models import find_trained
    from fm_science.runs import read_config

    return read_config(Path(source)) if Path(source).is_dir() else find_trained(source).config


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a tree by their dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name and both values of every option that differs, plain keys last."""
    one, two = dict(flat(first)), dict(flat(second))
    for name in sorted({*one, *two}, key=lambda name: (name in ABOUT, name)):
        if (name in one) != (name in two) or not same(one[name], two[name]):
            yield name, typed(one.get(name, ABSENT)), typed(two.get(name, ABSENT))


def same(one: Any, two: Any) -> bool:
    """Whether two values of an option are equal; files have tuples as lists."""
    return bool(_listed(one) == _listed(two))


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def typed(value: Any) -> str:
    """A value as it would be typed on the command line."""
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)
