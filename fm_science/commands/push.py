"""Put a model on the hub, so that others can add it. It needs the extra ``hub`` and your login there.

usage: fm-science push MODEL to=owner/name [private=true]

  MODEL     a model file, or the name of a model; of a run, first write one: fm-science export RUN out=NAME.safetensors
  to        the repository; it is made where it does not exist
  private   true: a new repository is hidden from others

The file goes there with a page from its card: what it draws, the command that adds it, and its SHA-256. Log in once by
``hf auth login``, or set HF_TOKEN.

example: fm-science export runs/first out=mine.safetensors; fm-science push mine.safetensors to=me/mine
"""

from __future__ import annotations

from typing import Any

from fm_science import config, launch
from fm_science.errors import UserError

PLAIN: dict[str, Any] = {"to": None, "private": False}


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Send the model, and print how others get it."""
    from fm_science import hub
    from fm_science.models import Model, find_trained

    given = launch.words(args)
    launch.check(given, PLAIN)
    chosen = {**PLAIN, **{item.key_or_group: item.value() for item in launch.parse(given.overrides)}}
    if len(given.paths) != 1 or given.flags or not chosen["to"]:
        raise UserError("push takes a model and a repository: fm-science push MODEL to=owner/name")
    private = config.truth("private", chosen["private"])
    model = find_trained(given.paths[0])
    if not isinstance(model, Model):
        raise UserError(
            f"{given.paths[0]} is a run, not a model: fm-science export {given.paths[0]} out=NAME.safetensors"
        )
    where, sha256 = hub.push(model, str(chosen["to"]), private)
    print(f"{where}: others type fm-science models add {where} sha256={sha256}")
