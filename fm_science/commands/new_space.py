"""Write a package with your own space, ready to install and to change.

usage: fm-science new-space NAME [out=DIR]

  NAME         a lower-case word; the class has the same name in capitals: sea_ice has SeaIce
  out          the folder to write; default fm-NAME

The package has a whole space in five methods (positive numbers, where a step multiplies), its tests of the laws of
spaces, noise and paths, a licence, and a workflow that runs the tests on every push. Run its tests, then replace the
space by yours, method by method: a law that fails names the method to correct. The README inside says in which order.

examples:
  fm-science new-space simplex
  pip install -e 'fm-simplex[dev]' && pytest fm-simplex
"""

from __future__ import annotations

import shlex

from fm_science.commands.packages import parsed, write

EXAMPLE = "ratios"  # the package in examples/ that is copied, and the name in it that is replaced


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the package."""
    name, out = parsed("new-space", args)
    for file in write(EXAMPLE, name, out):
        print(file)
    folder, code = shlex.quote(str(out)), shlex.quote(str(out / f"fm_{name}"))
    editable = shlex.quote(f"{out}[dev]")
    print(f"next: pip install -e {editable}; pytest {folder}; then change {code}")
