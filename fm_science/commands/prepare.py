"""Read many files once into one, from which training starts at once.

usage: fm-science prepare domain=NAME input=FOLDER out=FILE.safetensors [workers=N] [data.option=value ...]

  input     a folder or a file; several as [a.pdb,b.pdb], or as words before the options
  out       the file to write; beside it dropped.csv says what was left out, and why
  workers   processes that read; default: one a processor
  preset    the preset whose options of the group `data` count; default: none
  data.*    options of reading; training must be told the same

Work that was ended or killed goes on where it was when the same is asked again. What was read is filtered as in
training. The file holds no code; training maps it into memory, so that a large one takes no more memory than a small
one.

examples:
  fm-science prepare domain=protein input=my_pdbs out=my_pdbs.safetensors
  fm-science train domain=protein data.dir=my_pdbs.safetensors
  fm-science prepare domain=point_cloud input=scans out=scans.safetensors workers=4
  fm-science train domain=point_cloud data.source=scans.safetensors
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import config, launch
from fm_science.errors import UserError
from fm_science.plugins import Plugin, domains, find

if TYPE_CHECKING:
    from fm_science.prepared import Preparation, Prepared

MOST = 1024  # processes


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the file."""
    given = launch.words(args)
    if given.sweep:
        raise UserError("prepare writes one file at a time: no sweep")
    if not given.values("domain"):
        raise UserError(f"which domain? Write domain=NAME; known: {', '.join(domains())}")
    plugin = find(given.values("domain")[0])
    plain = {"domain": plugin.name, "input": None, "out": None, "workers": None, "preset": None}
    base = {**plain, "data": reading(plugin, given)}
    launch.check(given, base)
    launch.run("prepare", given, base, lambda tree, _: work(plugin, tree, given.paths), place="out")


def reading(plugin: Plugin, given: launch.Words) -> config.Tree:
    """The options of the domain's group ``data``, as the preset changes them."""
    options = plugin.options()
    tree: config.Tree = config.defaults(options).get("data", {})
    for name in given.values("preset"):
        known = {"domain": "", **config.defaults({**options, **config.engine()})}
        tree |= config.preset(plugin, name, known).get("data") or {}
    return tree


def work(plugin: Plugin, tree: config.Tree, paths: tuple[str, ...]) -> None:
    """Check what was given, read the files and say what training is to be told."""
    inputs = named(tree["input"], paths)
    if not tree["out"] or Path(str(tree["out"])).is_dir():
        raise UserError(f"out={tree['out'] or ''} names no file: write out=FILE.safetensors")
    out = Path(str(tree["out"]))
    workers = processors() if tree["workers"] is None else config.whole("workers", tree["workers"], 1, MOST)
    preparation = hook(plugin, tree)
    from fm_science.commands.sample import progress
    from fm_science.preparing import prepare

    print(f"reading {', '.join(map(str, inputs[:3]))} into {out}; processes: {workers}", flush=True)
    begin = time.monotonic()
    done = prepare(preparation, inputs, out, workers, lambda total: progress(total, "reading"))
    if done.before is None:
        print(f"already prepared: {out} is whole, and holds what is asked for")
    elif done.before:
        print(f"went on: {done.before:,} had been read before")
    print(summary(done.prepared, done.dropped, time.monotonic() - begin if done.before is not None else None))
    print(f"next: {following(plugin, preparation, out)}")


def named(given: Any, paths: tuple[str, ...]) -> list[Path]:
    """The files and folders that are to be read. Raises UserError where there are none."""
    found = given if isinstance(given, list) else [] if given is None else [given]
    places = [Path(str(place)).expanduser() for place in (*paths, *found) if str(place).strip()]
    if not places:
        raise UserError("what is to be read? Write input=FOLDER, input=FILE or input=[FILE,FILE]")
    for place in places:
        if not place.exists():
            raise UserError(f"input: no file or folder {str(place)!r}")
    return places


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def hook(plugin: Plugin, tree: config.Tree) -> Preparation[Any]:
    """How the domain reads files. Raises UserError where it cannot be told to."""
    from fm_science.domain import Domain

    made: object = plugin.build(config.validate(plugin.options(), {"data": tree["data"]}))
    found = made.preparation() if isinstance(made, Domain) else None
    if found is None:
        raise UserError(f"domain {plugin.name!r} cannot prepare files: it has no method `preparation`; train on the "
                        "files themselves. docs/prepare.md says how a domain gets it")  # fmt: skip
    return found


def summary(prepared: Prepared, dropped: Path, seconds: float | None) -> str:
    """What the file holds, in two lines."""
    about, size = prepared.about, prepared.file.stat().st_size / 1e6
    pace = "" if seconds is None else f" in {seconds:.0f} s"
    left = f"; {about['left_out']:,} left out, see {dropped}" if about["left_out"] else "; nothing left out"
    head = f"{prepared.file}: {len(prepared):,} records of {about['files']:,} files, {size:.1f} MB{pace}{left}"
    return f"{head}\nsha256 of the records: {prepared.digest}"


def following(plugin: Plugin, preparation: Preparation[Any], out: Path) -> str:
    """The command that trains on the file."""
    usual = config.defaults(plugin.options())["data"]
    options = [f"data.{name}={value}" for name, value in preparation.reading.items() if value != usual[name]]
    words = [f"domain={plugin.name}", f"data.{preparation.option}={out}", *options]
    return f"fm-science train {shlex.join(words)}"
