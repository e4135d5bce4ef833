"""Runs of molecules: trained by the command line, and opened to draw from them with other settings."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fm_science import config
from fm_science.commands import sample
from fm_science.domain import Domain
from fm_science.errors import UserError
from fm_science.flow import Flow
from fm_science.metrics import Metric
from fm_science.sampling import draw
from fm_science_domains.molecule.molecule import Molecule


def command(*words: Any) -> None:
    """An ``fm-science`` command with its output shown. Raises SystemExit where it fails."""
    call([sys.executable, "-m", "fm_science", *words])


def call(words: Sequence[Any], **environment: str) -> None:
    """Any command with its output shown. Raises SystemExit where it fails."""
    done = subprocess.run([str(w) for w in words], env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"failed ({done.returncode}): {' '.join(map(str, words))}")


def spent() -> float:
    """Processor seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opened(run: Path, **settings: Any) -> tuple[Domain, Flow, dict[str, Any]]:
    """The domain and the trained flow of a run on the CPU, and the settings of its sampler with those given."""
    saved = config.read(run)
    known = sample.complete(saved)["sample"]
    if strange := sorted(set(settings) - set(known)):
        raise UserError(f"the sampler has no option {', '.join(strange)}: choose from {', '.join(known)}")
    chosen = {**known, **{k: type(known[k])(v) for k, v in settings.items()}, "device": "cpu"}
    domain, flow = sample.load(run, saved, chosen)
    return domain, flow, chosen


@dataclass(frozen=True)
class Drawn:
    """Molecules of a run with as many held-out ones beside them, and the seconds they took."""

    domain: Domain
    molecules: list[Molecule]
    reference: list[Molecule]
    seconds: float


def drawn(run: Path, n: int, batch: int = 100, **settings: Any) -> Drawn:
    """``n`` molecules of a run, from the same seeds for all settings."""
    domain, flow, chosen = opened(run, **settings)
    plan = sample.drawing({**sample.PLAIN, "n": n, "batch": batch, **chosen}, set(chosen) - {"device"})
    start = time.perf_counter()
    found = [m for _, made, _ in draw(domain, flow, plan) for m in made]
    seconds = time.perf_counter() - start
    return Drawn(domain, found, next(iter(domain.references(found).values())), seconds)


def metrics(domain: Domain, names: Collection[str]) -> dict[str, Metric]:
    """Those of the domain's metrics that have these names; a run may leave slow ones out."""
    return {name: metric for name, metric in domain.metrics.items() if name in names}
