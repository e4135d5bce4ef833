"""Reproduce claims: ``python -m benchmarks.claims [NAME ...] [--quick] [--docs] [--out DIR]``.

    exact, paths, transport, reflow, stochastic              docs/claims.md
    few_steps, classes                                       docs/few_steps.md
    clusters, memory                                         docs/point_cloud.md
    recipe, resolution, completion, curves                   docs/function.md

Without a name those of docs/claims.md are tried; "all" are all claims (curves, and two of the sets of recipe, need
--data FOLDER). Tables are printed, measurements written as NAME.csv and tables as NAME.md, figures as PNG. --docs also
puts them on the page of the claim, where it has a place for them. Measurements are kept in NAME.jsonl as soon as they
are made; with --resume those that are there are not made again, so that a claim can be interrupted, and seeds added.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import time
from pathlib import Path

import torch

from benchmarks import tables
from fm_science.figures import draw

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHARED = {"functions": ("recipe", "resolution", "completion", "curves"), "paths": ("paths", "stochastic")}
FOUNDING = ("exact", "paths", "transport", "reflow", "stochastic")
PAGES = {
    **dict.fromkeys(FOUNDING, "claims.md"),
    **dict.fromkeys(("few_steps", "classes"), "few_steps.md"), "clusters": "", "memory": "",
    **dict.fromkeys(SHARED["functions"], ""),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"of {', '.join(PAGES)}, or all; default {', '.join(FOUNDING)}")
    add("--quick", action="store_true", help="less data, fewer steps and one seed: minutes, for a look")
    add("--docs", action="store_true", help="write tables and figures into the page of the claim")
    add("--out", type=Path, default=Path("runs/claims"), help="where to write; default runs/claims")
    add("--resume", action="store_true", help="do not measure again what --out holds")
    add("--seeds", type=int, nargs="+", default=(), help="default the claim's own")
    add("--steps", type=int, default=0, help="of each training; default the claim's own")
    add("--only", nargs="+", default=(), help="parts of the claim, such as the data sets of few_steps")
    add("--data", type=Path, help="folder with functions_aemet.npz and the like")
    add("--threads", type=int, default=1, help="threads of the CPU")
    o = parser.parse_args()
    every = [n for n in PAGES if n != "curves" or o.data]
    names = every if o.names == ["all"] else o.names or FOUNDING
    if unknown := [n for n in names if n not in PAGES]:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(PAGES)}")
    if o.docs and (homeless := [n for n in names if not PAGES[n]]):
        parser.error(f"--docs: no page has a place for {', '.join(homeless)}")
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    for name in names:
        file = o.out / f"{name}.jsonl"
        if not o.resume:
            file.unlink(missing_ok=True)
        study = tables.Study(o.quick, tuple(o.seeds), o.steps, tuple(o.only), o.data, o.out, file)
        reproduce(name, study, DOCS / PAGES[name] if o.docs else None)


def reproduce(name: str, study: tables.Study, page: Path | None) -> None:
    """Measure one claim and write what it gives, on its page too where one is named."""
    start, out = time.process_time(), study.out
    place = next((module for module, names in SHARED.items() if name in names), name)
    module = importlib.import_module(f"benchmarks.claims.{place}")
    result = (getattr(module, name) if place in SHARED else module.run)(study)
    spent = (time.process_time() - start) / 60
    tables.save(result.records, out / f"{name}.csv")
    pictures = draw(result.pictures, out)
    how = f"`python -m benchmarks.claims {name}{' --quick' if study.quick else ''}`, {spent:.1f} minutes of one core."
    text = "\n\n".join([how, *(f"**{title}.**\n\n{table}" for title, table in result.tables.items())])
    (out / f"{name}.md").write_text(text + "\n")
    print(text)
    print(f"written: {out / name}.csv, {out / name}.md, {', '.join(map(str, pictures))}", flush=True)
    if page:
        for picture in pictures:
            shutil.copy(picture, page.parent / "pictures" / picture.name)
        shown = "\n".join(f"![{p.stem.replace('_', ' ')}](pictures/{p.name})" for p in pictures)
        tables.publish(name, f"{text}\n\n{shown}", page)


if __name__ == "__main__":
    main()
