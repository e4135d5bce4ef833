"""Write a trained run as one file, a model: options, statistics, weights and a card. It has no code.

usage: fm-science export RUN out=FILE.safetensors [half=true] [data=TEXT] [licence=TEXT] [note=TEXT]

  out       the new file; its name is the name of the model
  half      false: keep the weights in single precision, twice as large
  data, licence, note    texts for the card

The card also has steps, hours and the seed of the training and, if ``evaluate`` was run, its table.

example: fm-science export runs/first out=mine.safetensors; fm-science models add mine.safetensors
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from fm_science import config, launch
from fm_science.errors import UserError

WORDS = ("data", "licence", "note")
PLAIN: dict[str, Any] = {"out": None, "half": True, **dict.fromkeys(WORDS)}


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the file."""
    from fm_science.models import export, find_trained

    given = launch.words(args)
    launch.check(given, PLAIN)
    chosen = {**PLAIN, **{item.key_or_group: item.value() for item in launch.parse(given.overrides)}}
    if len(given.paths) != 1 or given.flags or not chosen["out"]:
        raise UserError("export takes a run and a file: fm-science export RUN out=NAME.safetensors")
    if not isinstance(chosen["half"], bool):
        raise UserError(f"half={chosen['half']}: expected true or false")
    source = find_trained(given.paths[0])
    words = {name: str(chosen[name]) for name in WORDS if chosen[name] is not None}
    card = {**trained(source.config, source.folder), **words}
    model = export(source, Path(str(chosen["out"])), chosen["half"], card)
    size = model.file.stat().st_size / 1e6
    print(f"{model.file}: domain {model.name}, {model.parameters / 1e6:.2f} M parameters, {size:.1f} MB")


def trained(options: config.Tree, run: Path | None) -> dict[str, Any]:
    """What a run records about its training: command, steps and its table of measurements."""
    named = [f"{key}={options[key]}" for key in ("preset", "seed", "from") if options.get(key)]
    words = [f"domain={options['domain']}", *named]
    steps = (options.get("trainer") or {}).get("max_steps")
    card: dict[str, Any] = {"command": " ".join(["fm-science train", *words, f"trainer.max_steps={steps}"])}
    table = run / "report" / "metrics.csv" if run is not None else None
    if table is not None and table.is_file():
        with table.open(newline="", encoding="utf-8") as rows:
            card["table"] = {row.pop("row"): row for row in csv.DictReader(rows)}
    return card
