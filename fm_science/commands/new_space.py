"""Write a package with a space of your own, ready to install and to change.

usage: fm-science new-space NAME [out=DIR]

  NAME         a lower-case word; the class is called the same in capitals: sea_ice holds SeaIce
  out          the folder to write; default fm-NAME

The package holds a whole space in five methods (positive numbers, where a step multiplies), its tests by the laws of
spaces, noise and paths, a licence, and a workflow that runs the tests on every push. Run its tests, then replace the
space by yours, method by method: a law that breaks says which to mend. The README inside says in which order.

examples:
  fm-science new-space simplex
  pip install -e 'fm-simplex[dev]' && pytest fm-simplex
"""

from __future__ import annotations

import shlex

from fm_science.commands.packages import asked, write

EXAMPLE = "ratios"  # the package in examples/ that is copied, and the name in it that becomes another


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the package."""
    name, out = asked("new-space", args)
    for file in write(EXAMPLE, name, out):
        print(file)
    folder, code = shlex.quote(str(out)), shlex.quote(str(out / f"fm_{name}"))
    editable = shlex.quote(f"{out}[dev]")
    print(f"next: pip install -e {editable}; pytest {folder}; then change {code}")
