"""The arguments of a command, sorted: paths, flags and overrides ``key=value`` in the grammar of Hydra.

Shells remove quotes, so a value that the grammar cannot parse, such as the name of a file with brackets, is taken as
text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fm_science.errors import UserError, nearest

TRUST = "trust"  # trust=true: code that a run folder names may be imported
SWITCHES = ("-m", "--multirun", "--resolve")
VALUED = ("-c", "--cfg", "-p", "--package")  # flags that are followed by a value


@dataclass(frozen=True)
class Words:
    """The arguments of a command, sorted: paths first, Hydra's flags, and overrides ``key=value``; and whether code
    that a run names is trusted."""

    paths: tuple[str, ...]
    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    trust: bool = False

    @property
    def sweep(self) -> bool:
        return "-m" in self.flags or "--multirun" in self.flags

    def values(self, key: str) -> list[str]:
        """The value of a key: none, one value, or all values of a sweep."""
        found = [item for item in parse(self.overrides) if item.key_or_group == key]
        return [text for item in found for text in _texts(item)]


def words(args: list[str]) -> Words:
    """Sort the arguments of a command. Outside a sweep, what Hydra's grammar cannot parse is taken as text.

    Raises UserError for a flag that does not exist, and for an argument that is none of these."""
    paths, flags, overrides, trusted = [], [], [], False
    rest = iter(args)
    for word in rest:
        if word in SWITCHES:
            flags.append(word)
        elif word in VALUED:
            flags += [word, next(rest, "")]
        elif word.startswith("--cfg=") or word.startswith("--package="):
            flags.append(word)
        elif word.startswith("-"):
            raise UserError(f"unknown flag {word!r}; {nearest(word, [*SWITCHES, *VALUED, '--help'])}")
        elif word.startswith("="):
            raise UserError(f"cannot read {word!r}: there is no key before the =")
        elif word.startswith(f"{TRUST}="):
            trusted = _trusted(word)
        elif ("=" in word and not _there(word)) or word.startswith("~"):
            overrides.append(word)
        else:
            paths.append(_path(word))
    found = Words(tuple(paths), tuple(flags), tuple(overrides), trusted)
    return found if found.sweep else replace(found, overrides=tuple(map(_literal, overrides)))


def _trusted(word: str) -> bool:
    known = {"true": True, "false": False}
    value = word.partition("=")[2]
    if value not in known:
        raise UserError(f"{word}: expected {TRUST}=true or {TRUST}=false")
    return known[value]


def _there(path: str) -> bool:
    """Whether there is a file or folder; texts that cannot be file names are none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a null
        return False


def _path(word: str) -> str:
    if not word.strip() or "\0" in word:
        raise UserError(f"{word!r} names no file or folder: leave it out, or give a path")
    return word


def _literal(override: str) -> str:
    """``override``, its value quoted if the grammar cannot parse it, or would take for a sweep the commas of pairs such
    as ``phase:angle,kind:class`` or of the name of an existing file: shells remove quotes, so names such as ``file
    (1).sdf`` arrive without them."""
    key, given, text = override.partition("=")
    try:
        (item,) = parse((override,))
        bare = item.is_sweep_override() and (":" in text or _there(text))
    except UserError:
        bare = bool(given)
    # inside quotes, backslashes count only before a quote
    quoted = re.sub(r"(\\*)('|\Z)", lambda run: run[1] * 2 + ("\\'" if run[2] else ""), text)
    return f"{key}='{quoted}'" if bare else override


def parse(overrides: tuple[str, ...]) -> list[Any]:
    """The overrides as Hydra objects. Raises UserError if the grammar does not allow one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    found = []
    for text in overrides:
        try:
            found.append(parser.parse_override(text))
        except HydraException as error:
            raise UserError(f"cannot read {text!r}: {error}; quote special characters: \"key='value'\"") from error
    return found


def values(item: Any) -> list[Any]:
    return list(item.sweep_string_iterator()) if item.is_sweep_override() else [item.value()]


def _texts(item: Any) -> list[str]:
    return [str(value) for value in values(item) if value is not None]
