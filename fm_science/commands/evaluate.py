"""Measure samples, held-out data and an untrained network.

usage: fm-science evaluate RUN [n=50] [option=value ...]
       fm-science evaluate FILES_OR_FOLDERS ... domain=NAME [metrics.option=value ...]

A run is measured by the samples in RUN/samples, or by new ones if n, seed, solver, steps or an option of the group
`sample` is given. The table has one row for them, the reference rows of the domain (held-out data first), and one for
the same network before any training, started from the same noise. It is printed and written with pictures into
RUN/report (files: into ./report; out=DIR elsewhere).

  n            draw this many new samples; default: measure RUN/samples; if there are none, draw 50, or the
               domain's number
  untrained    false: leave the untrained network out, which draws a hundred samples at most
  out          where to write the table and the pictures
  metrics.*    options of the domain's metrics
  batch, device, and for new samples also seed, solver, steps and the domain's group `sample`: see sample --help

examples:
  fm-science evaluate runs/first
  fm-science evaluate runs/first n=200 length=60-100 seed=3
  fm-science evaluate my_backbones/ domain=protein
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fm_science import config, launch
from fm_science.commands import sample
from fm_science.commands.folders import log_errors
from fm_science.errors import DivergedError, UserError
from fm_science.plugins import find
from fm_science.samples import RECORD, read_record
from fm_science.storage import atomic, writable, write_text
from fm_science.tables import cell

if TYPE_CHECKING:
    from fm_science.domain import Domain
    from fm_science.flow import Flow
    from fm_science.trained import Trained

T = TypeVar("T")

NEW = ("n", "first", "seed", "solver", "steps")  # giving one of these requests new samples
UNTRAINED = 100  # samples of the untrained network, at most
Table = dict[str, dict[str, float]]


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Measure a run, or files."""
    given = launch.words(args)
    if not given.paths:
        raise UserError("evaluate takes a run folder, or files with domain=NAME")
    if given.sweep:
        raise UserError("evaluate measures one thing at a time: no sweep")
    if given.values("domain"):
        return files([Path(path) for path in given.paths], given)
    if len(given.paths) > 1:
        raise UserError("several paths are measured as files: say of which domain=NAME")
    return run(given.paths[0], given)


def run(place: str, given: launch.Words) -> None:
    """Measure the samples of a run or model, drawn before or now."""
    from fm_science.models import find_trained

    source = find_trained(place)
    source.require_weights()
    groups = source.groups()
    plain = {**sample.PLAIN, "untrained": True, "out": str(source.report)}
    del plain["trajectory"]
    base = {**plain, **groups.get("sample", {}), "metrics": groups.get("metrics", {})}
    launch.check(given, base)
    new = any(given.values(key) for key in (*NEW, *groups.get("sample", {})))

    def job(tree: config.Tree, _: int | None) -> None:
        out = Path(str(tree["out"]))
        writable(out)
        from fm_science.sampling import meeting

        with log_errors(source.folder), meeting():
            judge(source, sample_settings(source, tree, new), out)

    launch.run("evaluate", given, base, job, place="out", origin=source.label)


def judge(source: Trained, settings: config.Tree, out: Path) -> None:
    """Measure samples of a run or model as the settings say, and write everything into a folder."""
    untrained = config.truth("untrained", settings["untrained"])
    flow = sample.restore(source, settings)
    domain: Domain = flow.domain
    if settings["n"] is None:
        settings = {**settings, "n": domain.evaluation_samples}
    first = launch.rank() == 0
    if not settings["drawn"]:
        samples = drawn(flow, settings)
    elif first:
        samples = written(source, domain, settings)
    if not first:  # it has drawn its share of the samples; the first process measures them
        if untrained:
            beginner(source, settings)
        return
    there = data_there(domain)
    rows = {"samples": samples, **(domain.references(samples) if there else {})}
    if untrained:
        rows |= beginner(source, settings)
    finish(domain, rows, out, there)
    numbers = domain.evaluate_flow(flow.to(sample.device(settings["device"])), out) if there else {}
    if numbers:
        write_rows([{"number": name, "value": value} for name, value in numbers.items()], out / "flow.csv")
        show({"the flow itself": numbers})


def beginner(source: Trained, settings: config.Tree) -> dict[str, list[Any]]:
    """The row of the network before any training, of a hundred samples at most; none if these diverge, which may happen
    for an untrained network, with a message."""
    few = {**settings, "n": min(settings["n"], UNTRAINED)}
    try:
        return {"untrained network": drawn(sample.restore(source, few, trained=False), few, "untrained network")}
    except DivergedError as error:
        print(f"the untrained network has no row: {error}", file=sys.stderr)
        return {}


def data_there(domain: Domain) -> bool:
    """Whether the reference data can be read; prints one line if not."""
    try:
        return domain.data is not None
    except UserError as error:
        print(f"reference data are missing, so only metrics without a reference are computed ({error})")
        return False


def files(paths: list[Path], given: launch.Words) -> None:
    """Measure files by a domain's metrics."""
    plugin = find(given.values("domain")[0])
    options = plugin.options()
    base = {"domain": plugin.name, "out": "report", **config.defaults(options)}
    launch.check(given, base)

    def job(tree: config.Tree, _: int | None) -> None:
        groups = config.validate(options, tree)
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise UserError(f"no file or folder {missing[0]}")
        out = Path(str(tree["out"]))
        writable(out)
        domain = plugin.build(groups)
        samples = domain.read(paths)
        finish(domain, {"samples": samples, **domain.references(samples)}, out)

    launch.run("evaluate", given, base, job, place="out")


def sample_settings(source: Trained, tree: config.Tree, new: bool) -> config.Tree:
    """The settings of the samples to measure: of those in the folder, unless there are none or new ones are
    requested."""
    kept = source.samples / RECORD
    if kept.is_file() and not new:
        own = {key: tree[key] for key in ("batch", "device", "metrics", "untrained")}
        return {**read_record(kept), "drawn": True, **own}
    return {**tree, "drawn": False}


def written(source: Trained, domain: Domain, settings: config.Tree) -> list[Any]:
    """The samples that were drawn before."""
    once = {Path(name).stem: name for name in reversed(settings["files"])}  # a sample may exist in several formats
    found = domain.read([source.samples / name for name in reversed(once.values())])
    print(f"measuring the {len(found)} samples in {source.samples}")
    return found


def drawn(flow: Flow, settings: config.Tree, label: str = "sampling") -> list[Any]:
    """New samples of a flow."""
    from fm_science.sampling import draw_shared

    domain: Domain = flow.domain
    plan = sample.sized(sample.drawing(settings, sample.own(domain)), settings, domain)
    sample.fits(domain, flow, plan)
    if label == "sampling":
        print(f"measuring {plan.n} new samples")
    found: list[Any] = []
    with sample.progress(plan.n, label) as advance:
        for _, samples, _ in draw_shared(domain, flow, plan):
            found += samples
            advance(len(samples))
    return found


def finish(domain: Domain, rows: Mapping[str, Sequence[Any]], out: Path, there: bool = True) -> None:
    """Measure every row against the reference, print the table and write everything into a folder; ``there``: whether
    the data exist, which some numbers need."""
    reference: Sequence[Any] = rows[list(rows)[1]] if len(rows) > 1 else rows["samples"]
    table = {name: measure(domain, samples, reference if there else [], there) for name, samples in rows.items()}
    write(table, out)
    each: list[dict[str, Any]] = _known(lambda: domain.per_sample_metrics(list(rows["samples"])), [], there)
    if each:
        write_rows(each, out / "samples.csv")
    lists = {name: list(samples) for name, samples in rows.items()}
    drawings: list[Path] = _known(lambda: domain.report(lists, out), [], there)
    show(table)
    print(f"report: {', '.join(str(file) for file in [out / 'metrics.csv', *drawings])}")


def _known(made: Callable[[], T], otherwise: T, there: bool) -> T:
    """The result of a call, or ``otherwise`` if it needs data that do not exist."""
    try:
        return made()
    except UserError:
        if there:
            raise
        return otherwise


def measure(domain: Domain, samples: Sequence[Any], reference: Sequence[Any], there: bool = True) -> dict[str, float]:
    """Every metric of the domain on these samples; without data only those that do not need them."""
    found: dict[str, float] = {"n": len(samples)}
    for metric in domain.metrics.values():
        numbers: dict[str, float] = _known(partial(metric, samples, reference), {}, there)
        found |= numbers
    return found


def write(table: Table, out: Path) -> None:
    """The table as ``metrics.csv`` and ``metrics.json``; numbers that are not defined are empty and null."""
    write_rows([{"row": name, **numbers} for name, numbers in table.items()], out / "metrics.csv")
    clean = {row: {k: v if math.isfinite(v) else None for k, v in found.items()} for row, found in table.items()}
    write_text(json.dumps(clean, indent=2) + "\n", out / "metrics.json")


def write_rows(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Rows as comma-separated values under the union of their keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic(file) as part, part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else cell(v) for k, v in row.items()})


def show(table: Table) -> None:
    """Print the table: one line per metric, one column per row of the report."""
    from rich.console import Console
    from rich.table import Table as Printed

    printed = Printed()
    for column in ("metric", *table):
        printed.add_column(column, no_wrap=column == "metric", justify="left" if column == "metric" else "right")
    for metric in dict.fromkeys(key for found in table.values() for key in found):
        printed.add_row(metric, *(number(found.get(metric, math.nan)) for found in table.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(printed)


def number(value: float) -> str:
    """A number with four significant digits; a dash if it is not defined."""
    return "-" if math.isnan(value) else f"{value:.4g}"
