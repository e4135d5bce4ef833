"""Reproduce a claim: ``python -m benchmarks.claims NAME [--quick] [--docs] [--out DIR]``.

NAME is one of exact, paths, transport, reflow, stochastic, or all. Tables are printed, measurements written as NAME.csv
and tables as NAME.md, figures as PNG. --docs also puts them on the page ``docs/claims.md``.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from pathlib import Path

import torch

from benchmarks.claims import tables
from fm_science.figures import draw

NAMES = ("exact", "paths", "transport", "reflow", "stochastic")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "claims.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="less data and fewer steps: minutes, for a look")
    parser.add_argument("--docs", action="store_true", help="write tables and figures into docs/claims.md")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="where to write; default runs/claims")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    for name in NAMES if given.name == "all" else (given.name,):
        reproduce(name, given.quick, given.out, given.docs)


def reproduce(name: str, quick: bool, out: Path, docs: bool) -> None:
    """Run one claim and write what it gives."""
    start = time.process_time()
    result = importlib.import_module(f"benchmarks.claims.{name}").run(quick)
    spent = (time.process_time() - start) / 60
    tables.save(result.records, out / f"{name}.csv")
    pictures = draw(result.pictures, out)
    how = f"`python -m benchmarks.claims {name}{' --quick' if quick else ''}`, {spent:.1f} minutes of one core."
    text = "\n\n".join([how, *(f"**{title}.**\n\n{table}" for title, table in result.tables.items())])
    (out / f"{name}.md").write_text(text + "\n")
    print(text, file=sys.stdout)
    print(f"written: {out / name}.csv, {out / name}.md, {', '.join(map(str, pictures))}")
    if docs:
        for picture in pictures:
            shutil.copy(picture, PAGE.parent / "pictures" / picture.name)
        shown = "\n".join(f"![{p.stem.replace('_', ' ')}](pictures/{p.name})" for p in pictures)
        tables.publish(name, f"{text}\n\n{shown}", PAGE)


if __name__ == "__main__":
    main()
