"""Compare flows of molecules: ``python -m benchmarks.molecule properties|steps|switches|semlaflow ...``.

    properties RUN       do molecules have the properties that were asked for?
    steps RUN            how good molecules are against the steps, or another setting, of the sampler
    switches             what the pairs and the tricks of training are worth: one training a switch
    semlaflow            ours beside SemlaFlow's own code, in the same time

Each has options of its own: ``python -m benchmarks.molecule steps --help``. With --quick each takes minutes.
"""

from __future__ import annotations

import argparse

from benchmarks.molecule import properties, semlaflow, steps, switches
from fm_science.errors import UserError

COMMANDS = {"properties": properties, "steps": steps, "switches": switches, "semlaflow": semlaflow}


def main(words: list[str] | None = None) -> None:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.molecule", description=__doc__, formatter_class=raw)
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        own = chosen.add_parser(name, description=module.__doc__, formatter_class=raw)
        own.add_argument("--quick", action="store_true", help="minutes, for a look: less of everything not asked for")
        module.options(own)
    o, _ = parser.parse_known_args(words)
    if o.quick:
        chosen.choices[o.command].set_defaults(**COMMANDS[o.command].QUICK)
    o = parser.parse_args(words)
    try:
        COMMANDS[o.command].run(o)
    except UserError as refused:
        parser.error(str(refused))


if __name__ == "__main__":
    main()
