"""What the pairs and the tricks of training are worth: ``python -m benchmarks.molecule switches``.

    python -m benchmarks.molecule switches --steps 2000                                     # all switches, QM9
    python -m benchmarks.molecule switches --only "as it is" "no pairs" --steps 600 --seeds 1 2
    python -m benchmarks.molecule switches --more "late 1.5:objective.late=1.5" --preset tiny --steps 200

Every row is one training with the same preset, seed, batches and number of steps, in which one switch is turned; its
price is the processor time. Samples come from the same seeds. Numbers stand with their bootstrap standard deviation
over molecules; trainings differ by more than that, so believe a difference that several seeds agree on. Runs are kept
in ``--out``: what is there already is not trained again. Writes ``switches.csv`` there.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from benchmarks.molecule.runs import command, drawn, metrics, spent
from fm_science.commands.evaluate import write_rows
from fm_science_domains.molecule.metrics import bootstrap

SWITCHES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "no pairs": ("coupling.kind=independent",),
    "permutation only": ("coupling.kind=permutation",),
    "no self-conditioning": ("objective.self_condition=0",),
    "distortion": ("objective.distort=0.2",),
    "no short distances": ("objective.near=0",),
    "all times alike": ("objective.until=0", "objective.late=1"),
    "fake atoms": ("coupling.fakes=0.3",),
    "no fragments": ("coupling.fragments=0",),
}
MEASURED = ("validity", "geometry", "force_field")
SHOWN = ("connected", "unique", "bond_w1", "angle_w1", "torsion_js", "mmff_strain")
QUICK = {"steps": 100, "n": 50, "draw_steps": 20, "resamples": 10, "only": ["as it is", "no pairs"]}


def trained(folder: Path, words: tuple[str, ...], seed: int, o: argparse.Namespace) -> float:
    """Train the run unless it is there; the processor seconds it took."""
    note = folder / "seconds.txt"
    if not note.exists():
        before = spent()
        command("train", "domain=molecule", f"preset={o.preset}", f"run={folder}", f"seed={seed}",
                f"trainer.max_steps={o.steps}", "trainer.max_minutes=0", "trainer.threads=1",
                "trainer.validation_samples=0", *o.words, *words)  # fmt: skip
        note.write_text(f"{spent() - before:.1f}\n")
    return float(note.read_text())


def measured(folder: Path, o: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """The numbers of samples of a run, each with its spread."""
    found = drawn(folder, o.n, steps=o.draw_steps)
    numbers: dict[str, tuple[float, float]] = {}
    for metric in metrics(found.domain, MEASURED).values():
        numbers |= bootstrap(metric, found.molecules, found.reference, times=o.resamples)
    return {name: numbers.get(name, (math.nan, math.nan)) for name in SHOWN}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("--preset", default="heavy")
    add("--steps", type=int, default=1000, help="training steps of each row")
    add("--seeds", type=int, nargs="*", default=[1])
    add("--only", nargs="*", choices=list(SWITCHES), help="only these rows")
    add("--more", nargs="*", default=[], help="further rows, name:option=value[,option=value]")
    add("--words", nargs="*", default=[], help="options of all rows, such as data.source=fixture")
    add("--n", type=int, default=300, help="samples of each row")
    add("--draw-steps", type=int, default=50, help="steps of the sampler")
    add("--resamples", type=int, default=50, help="of the bootstrap")
    add("--out", type=Path, default=Path("runs/switches"))


def run(o: argparse.Namespace) -> None:
    """Print the table row by row, and write it."""
    chosen = {name: words for name, words in SWITCHES.items() if o.only is None or name in o.only}
    for text in o.more:
        name, _, words = text.partition(":")
        chosen[name] = tuple(words.split(","))
    rows: list[dict[str, Any]] = []
    print(f"{'':<24}{'seed':>5}{'train s':>9}" + "".join(f"{name:>17}" for name in SHOWN))
    for name, words in chosen.items():
        for seed in o.seeds:
            folder = o.out / f"{name.replace(' ', '_')}-{o.preset}-{o.steps}-{seed}"
            seconds = trained(folder, words, seed, o)
            found = measured(folder, o)
            cells = "".join(f"{f'{value:.3g} ± {std:.2g}':>17}" for value, std in found.values())
            print(f"{name:<24}{seed:>5}{seconds:>9.0f}{cells}", flush=True)
            rows.append({"row": name, "seed": seed, "seconds": seconds, **{k: v for k, (v, _) in found.items()},
                         **{f"{k}_spread": v for k, (_, v) in found.items()}})  # fmt: skip
    write_rows(rows, o.out / "switches.csv")
