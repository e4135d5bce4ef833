"""Versions, devices and plugins, or the summary of a run.

usage: fm-science info          what is installed here and what it can run on
       fm-science info RUN      what a run folder holds, or a model, by its file or its name
       fm-science info FILE     what a prepared file holds, and whether it is whole
"""

from __future__ import annotations

import csv
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fm_science import __version__
from fm_science.commands.domains import listing
from fm_science.errors import UserError
from fm_science.history import Event
from fm_science.trust import wanted

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "numpy", "scipy", "e3nn", "torch-geometric", "rdkit")


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Print the installation, or the content of a run folder."""
    if len(args) > 1:
        raise UserError("info takes one run folder, model file or name at most")
    print(about(args[0]) if args else machine())


def about(source: str) -> str:
    """The content of a run or a model, in a few lines."""
    from fm_science.commands.models import described
    from fm_science.models import Model, find_trained
    from fm_science.prepared import is_prepared

    if is_prepared(Path(source)):
        return prepared(Path(source))
    found = find_trained(source)
    return described(found) if isinstance(found, Model) else run(Path(source))


def prepared(file: Path) -> str:
    """What a prepared file holds, after all of it was read once."""
    from fm_science.prepared import Prepared

    found = Prepared(file)
    about = found.about
    options = ", ".join(f"data.{name}={value}" for name, value in about["options"].items()) or "none"
    state = "whole" if found.whole() else "DAMAGED: prepare it again"
    return "\n".join([
        f"{file}: {len(found):,} records of domain {about['domain']}, from {about['files']:,} files; fm-science "
        f"{about['version']}", f"options of reading: {options}", f"left out: {about['left_out']:,}",
        f"sha256 of the records: {found.digest}, {state}",
    ])  # fmt: skip


def machine() -> str:
    """Versions, devices and domains of this installation."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = [f"fm-science {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines += [f"{name} {installed(name)}" for name in PACKAGES]
    lines.append(f"devices: {', '.join(names) or 'no GPU'}; CPU with {torch.get_num_threads()} threads")
    return "\n".join([*lines, "", listing()])


def installed(name: str) -> str:
    """The version of a distribution, or that there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def run(folder: Path) -> str:
    """What a run folder holds, in a few lines."""
    from fm_science.runs import DIGEST, Run

    found = Run.open(folder)
    tree = found.config
    preset = f", preset {tree['preset']}" if tree.get("preset") else ""
    made = f"seed {tree.get('seed', 0)}, fm-science {tree.get('version', 'unknown')}"
    lines = [f"{folder}: domain {tree['domain']}{preset}, {made}"]
    lines += [f"data: sha256 {tree[DIGEST]}"] if DIGEST in tree else []
    lines += [f"status: {found.status}", *map(past, found.history)]
    checkpoints = sorted((folder / "checkpoints").glob("*.ckpt"))
    lines.append(f"checkpoints: {', '.join(file.name for file in checkpoints) or 'none'}")
    for name in ("samples", "report"):
        files = [file for file in (folder / name).rglob("*") if file.is_file()]
        lines.append(f"{name}: {len(files)} files")
    lines += [f"imports code, with trust=true only: {name}" for name in wanted(tree)]
    return "\n".join([*lines, *last_metrics(folder / "metrics.csv")])


def past(event: Event) -> str:
    """One line of a run's history."""
    words = [f"{event.get('time')} {event['event']} at step {event['step']}"]
    if event["event"] == "end":
        words += [str(event.get("status")), str(event.get("cause") or "")]
    else:
        words += [f"seed {event.get('seed')}", f"on {event.get('host')}"]
        words += [f"{name} {before} -> {now}" for name, (before, now) in (event.get("changed") or {}).items()]
    return f"  {', '.join(filter(None, words))}"


def last_metrics(file: Path) -> list[str]:
    """The last value of every column of the training's metrics."""
    if not file.is_file():
        return ["metrics: none yet"]
    last: dict[str, str] = {}
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            last.update({key: value for key, value in row.items() if key and value})
    return [f"{key}: {value}" for key, value in last.items()]
