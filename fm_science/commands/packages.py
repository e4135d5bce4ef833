"""Packages that are written from the examples: a new domain or space, to install and to change.

An example is copied under another name; the files that every package has (licence, what git ignores, the tests in
continuous integration) are stored once next to the examples, with NAME and YEAR in them.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from fm_science import config, launch
from fm_science.errors import UserError
from fm_science.storage import writable

KINDS = (".py", ".md", ".toml", ".yaml")  # files of an example that are copied
COMMON = {"gitignore": ".gitignore", "LICENSE": "LICENSE", "test.yaml": ".github/workflows/test.yaml"}


def parsed(command: str, args: list[str]) -> tuple[str, Path]:
    """The name that was typed, and the folder to write. Raises UserError unless there is one lower-case word, and if
    the folder is not empty."""
    given = launch.words(args)
    if len(given.paths) != 1 or given.flags:
        raise UserError(f"{command} takes one name: fm-science {command} NAME [out=DIR]")
    name = given.paths[0]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        kind = command.removeprefix("new-")
        raise UserError(f"{name!r} cannot name a {kind}: expected a lower-case word such as crystal or sea_ice")
    launch.check(given, {"out": None})
    return name, Path([f"fm-{name}", *given.values("out")][-1])


def write(example: str, name: str, out: Path) -> list[Path]:
    """Copy the example package into an empty folder under another name, with the files that every package has."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; choose another out=DIR")
    writable(out)
    shelf = config.shipped("examples")
    found = {
        renamed(str(file.relative_to(shelf / example)), example, name): renamed(file.read_text(), example, name)
        for file in sorted((shelf / example).rglob("*"))
        if file.is_file() and file.suffix in KINDS
    }
    for source, place in COMMON.items():
        text = (shelf / "common" / source).read_text()
        found[place] = text.replace("NAME", name).replace("YEAR", time.strftime("%Y"))
    for place, text in found.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_text(text)
    return [out / place for place in found]


def renamed(text: str, example: str, name: str) -> str:
    """``text`` with the name of the example replaced, alone or after ``fm_`` and ``fm-``, and as a class."""
    text = re.sub(rf"(?<![a-z]){example}(?![a-z])", name, text)
    return re.sub(rf"\b{class_name(example)}\b", class_name(name), text)


def class_name(name: str) -> str:
    """``sea_ice`` as the name of a class, ``SeaIce``."""
    return "".join(word.capitalize() for word in name.split("_"))
