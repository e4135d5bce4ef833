"""List the models that are installed, or add one.

usage: fm-science models              every model by name: domain, size and its card
       fm-science models add FILE     keep a copy of a model file in your own folder of models

A name can be used in place of a run folder: fm-science sample NAME n=4 out=DIR; fm_science.load("NAME"); train
from=NAME. Your folder is that of the environment variable FM_SCIENCE_MODELS, else one of your platform. Nothing is
downloaded.
"""

from __future__ import annotations

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
    from fm_science.models import Model, add, models

    if not args:
        known = models()
        print("\n\n".join(described(Model(file)) for file in known.values()) or "no model is installed")
        return
    if args[0] != "add" or len(args) != 2:
        raise UserError("models takes nothing, or add FILE")
    print(f"added {add(Path(args[1])).label}: fm-science sample {Path(args[1]).stem} n=4")


def described(model: Model) -> str:
    """A few lines about a model."""
    size = model.file.stat().st_size / 1e6
    lines = [f"{model.label}: domain {model.name}, {model.parameters / 1e6:.2f} M parameters, {size:.1f} MB"]
    lines += [f"  {key}: {value}" for key, value in model.card.items() if isinstance(value, str)]
    return "\n".join([*lines, f"  file: {model.file}"])
