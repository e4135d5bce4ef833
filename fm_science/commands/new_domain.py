"""Write a package with a domain of your own, ready to install and to change.

usage: fm-science new-domain NAME [out=DIR]

  NAME         what you will type as domain=NAME: a lower-case word
  out          the folder to write; default fm-NAME

The package holds a whole domain (points on a circle) with its options, presets, files, metrics, picture and tests.
Install it, train it, then replace the circle by your science, piece by piece; its README says in which order.

examples:
  fm-science new-domain crystal
  pip install -e fm-crystal && fm-science train domain=crystal preset=quick
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fm_science import config, launch
from fm_science.commands.domains import origin
from fm_science.errors import UserError
from fm_science.plugins import domains
from fm_science.storage import writable

EXAMPLE = "ring"  # the package in examples/ that is copied, and the name in it that becomes another


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the package."""
    given = launch.words(args)
    if len(given.paths) != 1 or given.flags:
        raise UserError("new-domain takes one name: fm-science new-domain NAME [out=DIR]")
    name = named(given.paths[0])
    launch.check(given, {"out": None})
    out = Path([f"fm-{name}", *given.values("out")][-1])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; choose another out=DIR")
    writable(out)
    for file in write(name, out):
        print(file)
    place, code = (shlex.quote(str(path)) for path in (out, out / f"fm_{name}"))
    print(f"next: pip install -e {place}; fm-science train domain={name} preset=quick; then change {code}")


def named(name: str) -> str:
    """``name``, if a domain can have it. Raises UserError otherwise."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot name a domain: expected a lower-case word such as crystal or sea_ice")
    taken = domains().get(name)
    if taken is not None:
        raise UserError(f"a domain {name!r} is installed already ({origin(taken)}); choose another name")
    return name


def write(name: str, out: Path) -> list[Path]:
    """Copy the example package into a folder under another name."""
    source = config.shipped("examples") / EXAMPLE
    files = []
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.suffix in (".py", ".md", ".toml", ".yaml"):
            files.append(out / renamed(str(file.relative_to(source)), name))
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(renamed(file.read_text(), name))
    return files


def renamed(text: str, name: str) -> str:
    """``text`` with the word that names the example replaced, alone or after ``fm_`` and ``fm-``."""
    return re.sub(rf"(?<![a-z]){EXAMPLE}(?![a-z])", name, text)
