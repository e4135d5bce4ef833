"""Trainings that are killed at random moments, and what must be left of them: all.

Each training is a process of its own, which runs the command line as a user does. It is forked from a server that has
imported everything, so that it begins in milliseconds. A run that was killed and resumed, as often as you like, must
end with the weights, the rows and the samples of one that nobody stopped.

    pytest -m slow tests/faults        # sixty kills over three domains
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fm_science import cli
from fm_science.checkpoints import FOLDER, LAST, checkpoints, read_checkpoint
from fm_science.history import history, status
from fm_science.storage import atomic, load_yaml
from fm_science.training import callbacks

DOMAINS = {
    "table": ["data.train=200", "data.test=20", "data.batch=32", "network.width=8", "network.layers=1"],
    "function": [
        "data.train=64", "data.held_out=8", "data.grid=16", "data.batch=16", "network.width=4", "network.layers=1",
        "network.modes=4",
    ],
    "point_cloud": [
        "data.source=clouds.npz", "coupling.kind=independent", "data.batch=8", "network.width=8", "network.layers=1",
    ],
}  # fmt: skip
TRAINER = [
    "preset=null", "run=run", "trainer.max_steps=12", "trainer.validate_every=4", "trainer.checkpoint_every=3",
    "trainer.log_every=2", "trainer.validation_samples=2", "trainer.validation_data=8", "sample.steps=2",
    "trainer.accelerator=cpu", "trainer.threads=1", "trainer.progress=false",
]  # fmt: skip
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([
    "tests.faults.kills", "hydra.compose", "hydra.core.override_parser.overrides_parser", "safetensors.torch",
    "torch._decomp", "fm_science.commands.train", "fm_science.commands.sample", "fm_science.training.loop",
    "matplotlib.figure", "matplotlib.backends.backend_agg",
    *(f"fm_science_domains.{name}" for name in DOMAINS),
])  # fmt: skip  # what a training needs, imported once for all of them


def child(folder: str, words: list[str], largest: int, pictures: bool) -> None:
    """One command line, in this process: what it prints goes to ``out`` and ``err`` in the folder."""
    os.chdir(folder)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))  # before and after the command takes it
    for name, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    callbacks.draw_curves = one_panel if pictures else lambda *_: None
    torch.set_num_threads(1)
    code = cli.main(words)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def one_panel(metrics: Path, picture: Path) -> None:
    """The curves in one panel, read and written as training does it: the usual picture takes three seconds, and the
    training that it belongs to takes one."""
    from matplotlib.figure import Figure

    rows = callbacks.read_metrics(metrics)
    figure = Figure(figsize=(3, 2))
    axis = figure.add_subplot()
    for name in ("train/loss", "validation/loss"):
        axis.plot(*zip(*[(row["step"], row[name]) for row in rows if name in row], strict=True))
    with atomic(picture) as part:
        figure.savefig(part, dpi=60, format="png")


@dataclass
class Place:
    """A folder in which one domain is trained, in ``run``.

    Args:
        folder: where; made where absent.
        domain: its name.
        pictures: whether curves are drawn.
    """

    folder: Path
    domain: str
    pictures: bool = False
    endings: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        clouds = np.random.default_rng(0).normal(size=(40, 5, 2)).astype(np.float32)
        np.savez(self.folder / "clouds.npz", points=clouds)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def begin(self, *words: str, largest: int = 0) -> ForkServerProcess:
        """A command that has begun."""
        process = context.Process(target=child, args=(str(self.folder), list(words), largest, self.pictures))
        process.start()
        return process

    def do(self, *words: str, largest: int = 0) -> int:
        """The exit code of a command."""
        process = self.begin(*words, largest=largest)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def train(self) -> list[str]:
        """The command that starts the run, or goes on with it."""
        if checkpoints(self.run / FOLDER) or (self.run / "metrics.csv").is_file():
            return ["train", "resume=run"]
        return ["train", f"domain={self.domain}", *DOMAINS[self.domain], *TRAINER]

    def kill(self, draw: random.Random, seconds: float) -> bool:
        """Begin or resume the run and end it at a random moment, or hear that it was done before."""
        signum = draw.choice([signal.SIGKILL, signal.SIGTERM])
        process = self.begin(*self.train())
        process.join(draw.uniform(0, seconds))
        running = process.is_alive()
        if running:
            assert process.pid is not None
            os.kill(process.pid, signum)
        process.join()
        code = process.exitcode
        assert code in (0, -9, 143), (code, self.err)
        assert "Traceback" not in self.err
        if code == 143 and status(self.run).word == "stopped":
            assert "resume" in self.err or "start it again" in self.err, self.err
        self.endings[{0: "done", -9: "SIGKILL", 143: "SIGTERM"}[code]] += 1
        return code != 0

    def finish(self) -> None:
        """Go on to the end of the run."""
        code = self.do(*self.train())
        assert code == 0, self.err


def outcome(run: Path) -> dict[str, Any]:
    """Everything that a run must hold in the end, whoever stopped it."""
    kept = read_checkpoint(run / FOLDER / LAST)
    config = load_yaml(run / "config.yaml")
    files = [run / "metrics.csv", *sorted((run / "samples").rglob("*"))]
    return {
        **{str(file.relative_to(run)): file.read_bytes() for file in files if file.is_file()},
        "config": {name: value for name, value in config.items() if name != "resume"},
        "checkpoint": {
            name: kept[name] for name in ("state_dict", "current_model_state", "optimizer_states", "global_step")
        },
    }


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Where two outcomes differ, to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [name]
    if isinstance(a, dict) and isinstance(b, dict):
        alone = [f"{name}.{key} in one alone" for key in {*a} ^ {*b}]
        return alone + [d for key in a if key in b for d in differences(a[key], b[key], f"{name}.{key}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for k, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{name}.{k}")]
    return [] if a == b else [name]


@dataclass
class Trial:
    """What came of the kills in one domain."""

    domain: str
    endings: Counter[str]
    runs: int
    differences: list[str]


def trial(domain: str, folder: Path, kills: int, seed: int, pictures: bool = False) -> Trial:
    """Kill runs of a domain so many times at random moments, and compare each that got to its end with one that nobody
    stopped."""
    whole = Place(folder / "whole", domain, pictures)
    whole.do("--help")  # the server has imported everything before time is taken
    since = time.monotonic()
    whole.finish()
    seconds, expected = time.monotonic() - since, outcome(whole.run)
    place, draw = Place(folder / "killed", domain, pictures), random.Random(seed)
    left, runs, found = kills, 0, []
    while left or runs == 0:
        killed = place.kill(draw, seconds) if left else False
        left -= killed
        if left == 0:
            place.finish()
        if left == 0 or not killed:
            runs += 1
            found += differences(expected, outcome(place.run))
            found += [f"status {status(place.run)}"] if status(place.run).word != "done" else []
            found += [f"history {e}" for e in history(place.run)[1:] if e["event"] == "start" and e["step"] != 0]
            found += [f"left over: {part}" for part in place.run.rglob("*.part")]
            shutil.rmtree(place.run)
    return Trial(domain, place.endings, runs, found)
