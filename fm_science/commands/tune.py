"""Tune a trained flow towards a reward, by adjoint matching or by policy gradients.

usage: fm-science tune RUN reward=MODULE:FUNCTION [run=DIR] [strength=1] [updates=500] [option=value ...]

  RUN          a run folder, a model file, or the name of a model
  reward       your own function of a batch of states at t = 1, one number per sample, in nats: the density becomes the
               previous one times exp(reward). The module is searched in this folder first
  run          the new run; default runs/DOMAIN/tuned_TIME
  seed         of all random numbers; default 0
  method       adjoint (default): the reward is differentiable, and all parts are numbers with Gaussian noise;
               policy_gradient: any function, and classes too; it needs more updates
  strength     multiplies the reward
  updates      updates of the weights
  batch        samples per update
  lr           learning rate at the start; it falls to zero along a cosine
  steps        steps of the integration from noise to data
  evaluations  steps of the integration at which the network is trained
  clip         largest norm of the gradient
  log_every    updates between rows of metrics.csv, and between checkpoints
  trust        true: import code that the run names; see docs/security.md

No data are read. The noise must have been independent of the data in training. The new run is sampled, evaluated and
loaded as any other.

example: fm-science tune runs/first reward=mine:compact strength=2 run=runs/compact; fm-science sample runs/compact
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fm_science import config, launch, trust
from fm_science.commands.folders import log_errors
from fm_science.errors import UserError


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Tune, and write the new run."""
    given = launch.words(args)
    if len(given.paths) != 1:
        raise UserError("tune takes one run or model: fm-science tune RUN reward=MODULE:FUNCTION")
    from fm_science.domain import group
    from fm_science.models import find_trained
    from fm_science.training.tuning import Tuning, tune

    plain = {"reward": None, "run": None, "seed": 0}
    known = {**plain, **vars(Tuning())}
    launch.check(given, known)
    chosen = {**known, **{item.key_or_group: item.value() for item in launch.parse(given.overrides)}}
    options = group(Tuning, {name: value for name, value in chosen.items() if name not in plain}, "tune")
    reward, seed = named(chosen["reward"]), config.seed(chosen["seed"])
    source = find_trained(given.paths[0])
    place = chosen["run"] or f"runs/{source.name}/tuned_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    folder = Path(str(place))
    with trust.source(None if given.trust else source.label), log_errors(folder if folder.is_dir() else None):
        tune(source, reward, folder, options, seed, {"reward": str(chosen["reward"])})
    print(f"tuned: {folder}\nnext: fm-science sample {shlex.quote(str(folder))}")


def named(reward: Any) -> Callable[[Any], Any]:
    """The function that the user has named. Raises UserError if there is none."""
    text = str(reward or "")
    if not trust.CODE.fullmatch(text):
        raise UserError(f"reward={text}: expected MODULE:FUNCTION, your own function of a batch of states")
    module, _, name = text.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"reward={text}: there is no module {error.name!r} in this folder or installed") from error
    except Exception as error:  # the user's module may raise anything
        raise UserError(f"reward={text}: importing {module} failed: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        found = vars(found).get(part)
    if not callable(found):
        raise UserError(f"reward={text}: {module} has no function {name!r}")
    return found
