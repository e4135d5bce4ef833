"""List the models that are installed, or add one.

usage: fm-science models              every model by name: domain, size and what its card says
       fm-science models NAME         one model, with the table of its evaluation
       fm-science models add FILE     keep a copy of a model file in your own folder of models

A name can be used in place of a run folder: fm-science sample NAME n=4 out=DIR; fm_science.load("NAME"); train
from=NAME. Your folder is that of the environment variable FM_SCIENCE_MODELS, else one of your platform. Nothing is
downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fm_science.errors import UserError

if TYPE_CHECKING:
    from fm_science.models import Model


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Print the list, or add a file."""
    from fm_science.models import Model, add, find_trained, models

    if not args:
        known = models()
        print("\n\n".join(described(Model(file)) for file in known.values()) or "no model is installed")
        return
    if len(args) == 1 and args[0] != "add":
        from fm_science.commands.evaluate import show

        model = find_trained(args[0])
        if not isinstance(model, Model):
            raise UserError(f"{args[0]} is a run, not a model: see fm-science info {args[0]}")
        print(described(model))
        table = figures(model.card.get("table"))
        if table:
            show(table)
        return
    if args[0] != "add" or len(args) != 2:
        raise UserError("models takes nothing, a NAME, or add FILE")
    print(f"added {add(Path(args[1])).label}: fm-science sample {Path(args[1]).stem} n=4")


def described(model: Model) -> str:
    """A few lines about a model."""
    size = model.file.stat().st_size / 1e6
    lines = [f"{model.label}: domain {model.name}, {model.parameters / 1e6:.2f} M parameters, {size:.1f} MB"]
    lines += [f"  {key}: {value}" for key, value in model.card.items() if isinstance(value, str)]
    return "\n".join([*lines, f"  file: {model.file}"])


def figures(rows: object) -> dict[str, dict[str, float]]:
    """The table of a card, the samples first; empty where it has none."""
    if not isinstance(rows, Mapping) or not all(isinstance(row, Mapping) for row in rows.values()):
        return {}
    order = sorted(rows, key=lambda title: title != "samples")
    return {str(title): {str(name): _number(value) for name, value in rows[title].items()} for title in order}


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan
