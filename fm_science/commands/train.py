"""Train a flow.

usage: fm-science train domain=NAME [preset=NAME] [run=DIR] [seed=0] [group.option=value ...]
       fm-science train domain=NAME ... dry=true                   build everything, make a few steps, write nothing
       fm-science train from=MODEL [data.option=value ...]         start from the weights of a model or run
       fm-science train resume=DIR [trainer.option=value ...]

groups of options, the same in every domain:
  data        what to learn from, and how it is split and batched
  network     the network that predicts
  path        the path from noise to data
  coupling    which noise is paired with which data point
  objective   what a training step minimises
  sample      how samples are drawn by default
  metrics     how samples are measured
  trainer     how long, on which device and in which precision to train
  optimizer   how the weights are changed

Without preset=NAME the preset `quick` is used if the domain has one; preset=null uses the defaults. Ctrl-C or
SIGTERM ends a training after its step, with a checkpoint; resume=DIR continues. resume=DIR trust=true also imports code
that the run names (docs/security.md).

The run folder (run=DIR, else runs/DOMAIN/TIME) holds config.yaml, history.jsonl, metrics.csv, checkpoints/, samples/
and report/. One training at a time writes into it. A folder that is not empty is refused, unless it is that of a run
that failed before any training step; resume=DIR continues with its own configuration.

examples:
  fm-science train domain=protein preset=quick
  fm-science train domain=protein data.max_length=100 network.width=128 trainer.max_steps=2000 seed=7
  fm-science train -m domain=protein network.width=64,128 run=runs/widths     a sweep, one folder per job
  fm-science train domain=protein --cfg job                                   print the configuration and stop
  fm-science train resume=runs/widths/0 trainer.max_steps=4000
  fm-science train from=protein data.dir=my_pdbs optimizer.lr=2e-4 trainer.max_steps=1000

Every option with its default and meaning: fm-science domains NAME
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fm_science import config, launch
from fm_science.commands.folders import log_errors
from fm_science.errors import UserError, nearest
from fm_science.locks import locked
from fm_science.plugins import Plugin, domains, find

if TYPE_CHECKING:
    from fm_science.domain import Domain
    from fm_science.trained import Trained

QUICK = "quick"  # the preset that is used if none is named


def usage(rest: list[str]) -> str:
    """The help; with ``domain=NAME`` also that domain's presets and options."""
    given = launch.words(rest)
    named = [word.partition("=")[2] for word in given.overrides if word.startswith("domain=")]
    if not named:
        return f"{__doc__}\ninstalled domains: {', '.join(domains())}"
    from fm_science.commands.domains import table

    return f"{__doc__}\n{table(find(named[0]))}"


def main(args: list[str]) -> None:
    """Start or resume a run, or a sweep of runs."""
    if len(args) == 1 and args[0].startswith("join="):  # a further rank, started by Lightning
        return join(Path(args[0].partition("=")[2]))
    given = launch.words(args)
    if given.paths:
        raise UserError(f"train takes key=value, not {given.paths[0]!r}; write domain=NAME, run=DIR or resume=DIR")
    if launch.launched() and not given.values("run") + given.values("resume"):
        raise UserError("several processes were started from outside: name their common folder with run=DIR")
    again = requeued(given)
    if again is not None:
        return resume(launch.words([f"resume={again}", *(["trust=true"] if given.trust else [])]))
    return resume(given) if given.values("resume") else start(given)


def requeued(given: launch.Words) -> Path | None:
    """The run folder of this job of SLURM before it was requeued; ``None``: there is none."""
    from fm_science.checkpoints import FOLDER, checkpoints

    for run in map(Path, given.values("run") if int(os.environ.get("SLURM_RESTART_COUNT") or 0) else ()):
        if checkpoints(run / FOLDER):
            print(f"started again by SLURM: resuming {run}", flush=True)
            return run
    return None


def start(given: launch.Words) -> None:
    """Train from scratch into new run folders."""
    source = origin(given)
    chosen = [find(name) for name in given.values("domain") or ([source.name] if source else [])]
    if not chosen:
        raise UserError(f"which domain? {misspelt(given)}Write domain=NAME; known: {', '.join(domains())}")
    given = quick(given, chosen) if source is None else given
    if given.sweep and given.values("run"):
        from fm_science.runs import claim

        claim(Path(given.values("run")[0]))
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    place = f"runs/multirun/{stamp}" if given.sweep else f"runs/${{domain}}/{stamp}"
    plain = {"domain": chosen[0].name, "preset": None, "seed": 0, "run": place, "resume": None, "from": None,
             "dry": False}  # fmt: skip
    base = {**plain, **config.defaults(config.engine())}
    trees = {plugin.name: config.defaults(plugin.options()) for plugin in chosen}
    if source is not None:
        if [plugin.name for plugin in chosen] != [source.name]:
            raise UserError(f"from={source.label} is of domain {source.name!r}: leave domain= out, or name that one")
        trees = {source.name: source.groups()}  # the network and the path are those of the model
    for tree in trees.values():
        launch.check(given, {**base, **tree})
    presets = {name: preset(chosen, name, {**base, **trees[chosen[0].name]}) for name in given.values("preset")}

    def job(tree: config.Tree, number: int | None) -> None:
        run = Path(str(tree["run"])) if number is None else Path(str(tree["run"])) / str(number)
        work({**tree, "run": str(run)}, run)

    launch.run("train", given, base, job, {"domain": trees, "preset": presets})


def origin(given: launch.Words) -> Trained | None:
    """The run or model whose weights and statistics training starts from, with ``from=``."""
    from fm_science.models import find_trained

    named = [item.value() for item in launch.parse(given.overrides) if item.key_or_group == "from"]
    if given.sweep and named:
        raise UserError("from= starts one run, not a sweep")
    return find_trained(str(named[-1])) if named and named[-1] is not None else None
def misspelt(given: launch.Words) -> str:
    """A hint if a key is similar to ``domain``."""
    for item in launch.parse(given.overrides):
        close = nearest(item.key_or_group, ["domain", "resume"])
        if close.startswith("did you mean"):
            return f"{item.key_or_group!r}: {close} "
    return ""


def quick(given: launch.Words, chosen: list[Plugin]) -> launch.Words:
    """With the preset ``quick`` if none is named and the domain has one: defaults may train for hours."""
    named = any(item.key_or_group == "preset" for item in launch.parse(given.overrides))
    known = config.presets(chosen[0])
    if named or len(chosen) > 1 or QUICK not in known:
        return given
    others = ", ".join(name for name in known if name != QUICK)
    print(f"preset={QUICK}, since none was named (others: {others or 'none'}; preset=null: the defaults)", flush=True)
    return replace(given, overrides=(*given.overrides, f"preset={QUICK}"))


def preset(chosen: list[Plugin], name: str, known: config.Tree) -> config.Tree:
    """What a preset changes; presets belong to one domain."""
    if len(chosen) > 1:
        raise UserError("a preset belongs to one domain: sweep over domains, or name a preset, not both")
    return config.preset(chosen[0], name, known)


def resume(given: launch.Words) -> None:
    """Resume a run from its last checkpoint, with its own configuration; only options of the trainer may change."""
    if not given.values("resume")[0].strip():
        raise UserError("resume='' names no folder: give that of the run")
    run = Path(given.values("resume")[0])
    if given.sweep:
        raise UserError("a run is resumed by itself, not in a sweep")
    from fm_science.checkpoints import FOLDER, checkpoints
    from fm_science.runs import CHECKPOINT, Run, clear_unsaved

    saved = Run.open(run).config
    for group, values in config.defaults(config.engine()).items():  # options that are newer than the run
        saved[group] = {**values, **(saved.get(group) or {})}
    anew = clear_unsaved(run)
    if anew:
        print(f"{run} was killed before its first checkpoint: it begins again from its options", flush=True)
    elif not checkpoints(run / FOLDER):
        raise UserError(f"{run} cannot be resumed: it holds no {CHECKPOINT}")
    launch.check(given, saved)
    for item in launch.parse(given.overrides):
        if not item.key_or_group.startswith(("trainer.", "resume", "hydra.")):
            raise UserError(f"{item.key_or_group} belongs to the run and cannot change on resume; only trainer.* can")

    def job(tree: config.Tree, _: int | None) -> None:
        work({**tree, "run": str(run), "resume": None if anew else str(run)}, run)

    launch.run("train", given, saved, job, origin=str(run))


def join(run: Path) -> None:
    """Train as another rank of a run whose first rank has written its configuration."""
    from fm_science.ranks import end_with_parent
    from fm_science.runs import read_config

    end_with_parent()
    work(read_config(run), run)


def work(tree: config.Tree, run: Path) -> None:
    """Check the whole configuration, make the domain and train it in the run folder."""
    if config.truth("dry", tree.pop("dry", False)):
        rehearsal(tree)
        return
    plugin = find(tree["domain"])
    groups = config.validate(plugin.options(), tree)
    engine = config.validate(config.engine(), tree)
    seed, first = config.seed(tree["seed"]), launch.rank() == 0
    from fm_science.runs import FILE, claim

    if first and not tree["resume"]:
        claim(run)
    with locked(run) if first else nullcontext():
        if first:
            announce(tree, run)
        else:
            launch.wait_for_first(run / FILE)
        train(tree, plugin.build, groups, engine, seed, run)
    if first:
        place = shlex.quote(str(run))
        print(f"trained: {run}\nnext: fm-science sample {place}; fm-science evaluate {place}")


def announce(tree: config.Tree, run: Path) -> None:
    """Print what is trained before torch is imported, which takes seconds."""
    source = (tree.get("data") or {}).get("source")
    words = [f"domain {tree['domain']}", f"data {source}" if source else "", f"into {run}"]
    print(f"training: {', '.join(filter(None, words))}", flush=True)


def train(
    tree: config.Tree, build: Callable[..., Domain], groups: config.Tree, engine: config.Tree, seed: int, run: Path
) -> None:  # fmt: skip
    """Make the domain and train it in the run folder."""
    import torch
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from fm_science.memory import budget
    from fm_science.models import find_trained
    from fm_science.training import fit

    with log_errors(run), restart(run):
        torch.manual_seed(seed)  # of the initial weights
        with budget():
            domain = build(groups)
            domain.flow()
        notes = {name: value for name, value in tree.items() if name not in config.engine()}
        try:
            fit(
                domain, engine["trainer"], engine["optimizer"], run, seed, bool(tree["resume"]), notes=notes,
                start=find_trained(tree["from"]) if tree.get("from") and not tree["resume"] else None,
            )  # fmt: skip
        except MisconfigurationException as error:  # such as a GPU on a machine without one
            raise UserError(f"the trainer cannot run so: {error}") from error


def rehearsal(tree: config.Tree) -> None:
    """Build everything that a training needs, make a few steps, and print the cost of the whole. Writes nothing."""
    plugin = find(tree["domain"])
    groups, engine = config.validate(plugin.options(), tree), config.validate(config.engine(), tree)
    seed = config.seed(tree["seed"])
    import torch

    from fm_science.memory import budget
    from fm_science.models import find_trained
    from fm_science.training.rehearsal import rehearse

    torch.manual_seed(seed)
    with budget():
        domain = plugin.build(groups)
        if tree.get("from"):
            find_trained(tree["from"]).adopt(domain)
        domain.flow()
    found = rehearse(domain, engine["trainer"], engine["optimizer"], seed)
    options = engine["trainer"]
    length = found.seconds * options.max_steps / 60
    bound = options.max_minutes and options.max_minutes < length
    print(
        f"domain {plugin.name}: {found.train:,} to train on, {found.validation:,} held out; {found.parameters:,} "
        f"parameters\nbatch: {found.batch[0]} samples of up to {found.batch[1]} sites; first loss {found.loss:.4g}\n"
        f"step: {1e3 * found.seconds:.3g} ms on {found.device}, memory {found.memory / 1e9:.2g} GB\n"
        f"whole: {options.max_steps:,} steps, about {length:.2g} minutes without validations"
        f"{f', ended after trainer.max_minutes={options.max_minutes:g}' if bound else ''}\ndry run: nothing was written"
    )


@contextmanager
def restart(run: Path) -> Iterator[None]:
    """Lightning starts its further ranks with the arguments of this process: let them join this run."""
    before = sys.argv
    sys.argv = [before[0], "train", f"join={run.resolve()}"]
    try:
        yield
    finally:
        sys.argv = before
