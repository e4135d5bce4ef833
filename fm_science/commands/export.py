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
import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import config, launch
from fm_science.commands.config import flat, same, typed
from fm_science.errors import UserError
from fm_science.history import history

if TYPE_CHECKING:
    from fm_science.trained import Trained

WORDS = ("data", "licence", "note")
PLAIN: dict[str, Any] = {"out": None, "half": True, **dict.fromkeys(WORDS)}


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the file."""
    from fm_science.models import export, find_trained

    described = {word.partition("=")[0]: word.partition("=")[2] for word in args if word.partition("=")[0] in WORDS}
    # the words of a description hold commas and quotes
    given = launch.words([word for word in args if word.partition("=")[0] not in described])
    launch.check(given, PLAIN)
    chosen = {**PLAIN, **{item.key_or_group: item.value() for item in launch.parse(given.overrides)}}
    if len(given.paths) != 1 or given.flags or not chosen["out"]:
        raise UserError("export takes a run and a file: fm-science export RUN out=NAME.safetensors")
    if not isinstance(chosen["half"], bool):
        raise UserError(f"half={chosen['half']}: expected true or false")
    source = find_trained(given.paths[0])
    card = {**trained(source), **described}
    model = export(source, Path(str(chosen["out"])), chosen["half"], card)
    size = model.file.stat().st_size / 1e6
    print(f"{model.file}: domain {model.name}, {model.parameters / 1e6:.2f} M parameters, {size:.1f} MB")


def trained(source: Trained) -> dict[str, Any]:
    """What a run tells about its training: the command that repeats it, its steps and hours, and its table of
    measurements."""
    card: dict[str, Any] = {"command": command(source), **effort(source.folder)}
    run = source.folder
    table = run / "report" / "metrics.csv" if run is not None else None
    if table is not None and table.is_file():
        with table.open(newline="", encoding="utf-8") as rows:
            card["table"] = {row.pop("row"): row for row in csv.DictReader(rows)}
    return card


def command(source: Trained) -> str:
    """The command line that trains the same again: the preset, and every option that it does not set so."""
    options, plugin = source.config, source.plugin
    known = config.defaults({**config.engine(), **plugin.options()})
    usual = dict(flat(known))
    if options.get("preset"):
        usual |= dict(flat(config.preset(plugin, str(options["preset"]), known)))
    given = dict(flat({name: options[name] for name in known if isinstance(options.get(name), Mapping)}))
    plain = [f"{key}={options[key]}" for key in ("domain", "preset", "seed", "from") if options.get(key) is not None]
    own = [f"{key}={typed(value)}" for key, value in given.items() if key in usual and not same(value, usual[key])]
    return shlex.join(["fm-science", "train", *plain, *own])


def effort(run: Path | None) -> dict[str, str]:
    """The steps of a run and the hours between its starts and ends, as its history has them; nothing where it has
    none."""
    events = history(run) if run is not None else []
    hours, begun = 0.0, None
    for event in events:
        now = datetime.fromisoformat(event["time"])
        if event["event"] != "end":
            begun = now
        elif begun is not None:
            hours, begun = hours + (now - begun).total_seconds() / 3600, None
    return {"steps": f"{events[-1]['step']:,}", "hours": f"{hours:.2f}"} if events and hours else {}
