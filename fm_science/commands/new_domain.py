"""Write a package with your own domain, ready to install and to change.

usage: fm-science new-domain NAME [out=DIR]

  NAME         the name for domain=NAME: a lower-case word
  out          the folder to write; default fm-NAME

The package has a whole domain (points on a circle) with its options, presets, files, metrics, picture and tests, a
licence, and a workflow that runs the tests on every push. Install it, train it, then replace the circle by your
science, piece by piece; its README says in which order.

examples:
  fm-science new-domain crystal
  pip install -e fm-crystal && fm-science train domain=crystal preset=quick
"""

from __future__ import annotations

import shlex

from fm_science.commands.domains import origin
from fm_science.commands.packages import parsed, write
from fm_science.errors import UserError
from fm_science.plugins import domains

EXAMPLE = "ring"  # the package in examples/ that is copied, and the name in it that is replaced


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the package."""
    name, out = parsed("new-domain", args)
    taken = domains().get(name)
    if taken is not None:
        raise UserError(f"a domain {name!r} is installed already ({origin(taken)}); choose another name")
    for file in write(EXAMPLE, name, out):
        print(file)
    place, code = (shlex.quote(str(path)) for path in (out, out / f"fm_{name}"))
    print(f"next: pip install -e {place}; fm-science train domain={name} preset=quick; then change {code}")
