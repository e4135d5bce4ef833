"""List the models that are installed, or add one.

usage: fm-science models              every model by name: domain, size and what its card says
       fm-science models NAME         one model, with the table of its evaluation
       fm-science models add FILE     keep a copy of a model file in your own folder of models
       fm-science models add hf:owner/name[/FILE][@REVISION] [sha256=HEX]
                                      fetch one from the hub (pip install 'fm-science[hub]'), and keep it there

A name can be used in place of a run folder: fm-science sample NAME n=4 out=DIR; fm_science.load("NAME"); train
from=NAME. Your folder is that of the environment variable FM_SCIENCE_MODELS, else one of your platform. Nothing
is fetched but what you name by hf:; a SHA-256 that you give must be that of the file.
"""

from __future__ import annotations

import math
import re
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
    if args[0] != "add" or not 2 <= len(args) <= 3:
        raise UserError("models takes nothing, a NAME, add FILE, or add hf:owner/name")
    remote = args[1].startswith("hf:")
    if len(args) == 3 and not remote:
        raise UserError("models add takes one FILE, or hf:owner/name with its SHA-256")
    added = fetched(args[1], args[2:]) if remote else add(Path(args[1]))
    print(f"added {added.label}: fm-science sample {added.label} n=4")


def fetched(source: str, rest: list[str]) -> Model:
    """A model of the hub, kept in the user's folder. Raises UserError for a word that is no SHA-256."""
    from fm_science import hub

    digest = rest[0].removeprefix("sha256=") if rest else None
    if digest is not None and re.fullmatch("[0-9a-fA-F]{64}", digest) is None:
        raise UserError(f"{rest[0]}: expected sha256= and 64 hexadecimal digits")
    return hub.pull(hub.place(source), digest)


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
