"""How good molecules are against a setting of the sampler: ``python -m benchmarks.molecule steps RUN``.

    python -m benchmarks.molecule steps runs/heavy                              # validity against steps
    python -m benchmarks.molecule steps runs/heavy --option temperature --values 0.5,0.7,1.0
    python -m benchmarks.molecule steps runs/heavy --option eta --values 0,5,10,20 --n 500

Every setting draws from the same seeds. Writes ``NAME.csv`` and ``NAME.png`` into the run's folder ``report``, with the
row of the data beside.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.molecule.runs import drawn, metrics
from fm_science.commands.evaluate import show, write_rows
from fm_science.metrics import Metric
from fm_science_domains.molecule.molecule import Molecule
from fm_science_domains.molecule.report import against_steps

MEASURED = ("validity", "stability", "composition", "geometry", "force_field")
SHOWN = ("valid", "connected", "unique", "novel", "molecule_stable", "edm_molecule_stable", "bond_w1", "bond_off_worst",
         "angle_w1", "mmff_strain", "seconds")  # fmt: skip
QUICK = {"values": "5,10,20", "n": 50}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("run", type=Path, help="the folder of a trained run")
    add("--option", default="steps", help="the option of the group sample that is varied")
    add("--values", default="5,10,20,50,100,200", help="its values")
    add("--n", type=int, default=200, help="molecules of each value")
    add("--batch", type=int, default=100, help="molecules carried at once")


def run(o: argparse.Namespace) -> None:
    """Print the table; write it and the picture."""
    rows: dict[float, dict[str, float]] = {}
    data: dict[str, float] = {}
    for value in map(float, o.values.split(",")):
        found = drawn(o.run, o.n, o.batch, **{o.option: value})
        known = metrics(found.domain, MEASURED)
        rows[value] = {**numbers(known, found.molecules, found.reference), "seconds": found.seconds}
        data = data or numbers(known, found.reference, found.reference)
    out = o.run / "report"
    out.mkdir(exist_ok=True)
    write_rows([{o.option: v, **row} for v, row in rows.items()], out / f"{o.option}.csv")
    shown = {**{f"{o.option} {v:g}": row for v, row in rows.items()}, "data": data}
    show({name: {k: row.get(k, math.nan) for k in SHOWN} for name, row in shown.items()})
    print(against_steps(rows, out / f"{o.option}.png", o.option))


def numbers(known: Mapping[str, Metric], x: Sequence[Molecule], reference: Sequence[Molecule]) -> dict[str, float]:
    """All metrics of molecules, and how many there are."""
    return {k: v for metric in known.values() for k, v in metric(x, reference).items()} | {"n": len(x)}
