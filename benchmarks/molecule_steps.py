"""How good molecules are against a setting of the sampler: ``python -m benchmarks.molecule_steps RUN``.

    python -m benchmarks.molecule_steps runs/heavy                              # validity against steps
    python -m benchmarks.molecule_steps runs/heavy --option temperature --values 0.5,0.7,1.0
    python -m benchmarks.molecule_steps runs/heavy --option eta --values 0,5,10,20 --n 500

Every setting draws from the same seeds. Writes ``NAME.csv`` and ``NAME.png`` into the run's folder ``report``, with the
row of the data beside.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from fm_science import config
from fm_science.commands import sample
from fm_science.commands.evaluate import measure, show, write_rows
from fm_science.sampling import draw
from fm_science_domains.molecule.report import against_steps

MEASURED = ("validity", "stability", "composition", "geometry", "force_field")
SHOWN = ("valid", "connected", "unique", "novel", "molecule_stable", "edm_molecule_stable", "bond_w1", "bond_off_worst",
         "angle_w1", "mmff_strain", "seconds")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a trained run")
    parser.add_argument("--option", default="steps", help="the option of the group sample that is varied")
    parser.add_argument("--values", default="5,10,20,50,100,200", help="its values")
    parser.add_argument("--n", type=int, default=200, help="molecules of each value")
    parser.add_argument("--batch", type=int, default=100, help="molecules carried at once")
    parser.add_argument("--quick", action="store_true", help="three values, 50 molecules each")
    args = parser.parse_args()
    values = [float(v) for v in args.values.split(",")][: 3 if args.quick else None]
    rows, data = table(args.run, args.option, values, 50 if args.quick else args.n, args.batch)
    out = args.run / "report"
    out.mkdir(exist_ok=True)
    write_rows([{args.option: v, **numbers} for v, numbers in rows.items()], out / f"{args.option}.csv")
    shown = {**{f"{args.option} {v:g}": numbers for v, numbers in rows.items()}, "data": data}
    show({name: {k: numbers.get(k, math.nan) for k in SHOWN} for name, numbers in shown.items()})
    print(against_steps(rows, out / f"{args.option}.png", args.option))


def table(
    run: Path, option: str, values: list[float], n: int, batch: int
) -> tuple[dict[float, dict[str, float]], dict[str, float]]:
    """The numbers of each value of the option, and those of held-out molecules beside them."""
    saved = config.read(run)
    settings = sample.complete(saved)["sample"]
    rows: dict[float, dict[str, float]] = {}
    data: dict[str, float] = {}
    for value in values:
        chosen = {**settings, option: type(settings[option])(value)}
        domain, flow = sample.load(run, saved, {**chosen, "device": "cpu"})
        for name in set(domain.metrics) - set(MEASURED):
            domain.metrics.pop(name)  # type: ignore[attr-defined]
        plan = sample.drawing({**sample.PLAIN, "n": n, "batch": batch, **chosen}, chosen)
        began = time.perf_counter()
        found = [m for _, made, _ in draw(domain, flow, plan) for m in made]
        seconds = time.perf_counter() - began
        reference = next(iter(domain.references(found).values()))
        rows[value] = {**measure(domain, found, reference), "seconds": seconds}
        data = data or measure(domain, reference, reference)
    return rows, data


if __name__ == "__main__":
    main()
