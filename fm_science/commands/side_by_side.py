"""Several runs on one page: what they were trained with otherwise, their curves in common panels, their metrics in one
table, and the first picture of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fm_science.commands.charts import chart
from fm_science.commands.config import flat, same, typed
from fm_science.commands.page import KINDS, note, page, picture, table
from fm_science.commands.report import PANELS, column, curve_names, meanings, meant, panels, read, value
from fm_science.plugins import domains
from fm_science.runs import read_config
from fm_science.tables import plain

MISSING = "–"


def compared(runs: Sequence[Path]) -> str:
    """The page of several runs, as text.

    Args:
        runs: their folders; of one domain or of several.

    Raises:
        UserError: when one of the folders is no run.
    """
    trees = [read_config(run) for run in runs]
    names = titles(runs)
    rows = dict(zip(names, (read(run / "metrics.csv") for run in runs), strict=True))
    options: dict[str, str] = {}
    for tree in trees:
        options |= meanings(domains().get(tree["domain"]))
    parts = {
        "Options that differ": differing(names, trees), "Metrics": metrics(names, runs, options),
        "Loss": panels([
            chart("training loss", {name: column(found, "train/loss") for name, found in rows.items()}),
            chart("validation loss", {name: column(found, "validation/loss") for name, found in rows.items()}),
        ]),
        "Curves of metrics": curves(rows), "Pictures": pictures(names, runs),
    }  # fmt: skip
    about = ", ".join(sorted({f"domain {tree['domain']}" for tree in trees}))
    return page(" and ".join(names), about, parts)


def titles(runs: Sequence[Path]) -> list[str]:
    """A short name for each run: of its folder, with those above where two are called the same."""
    whole = [run.resolve() for run in runs]
    for depth in range(1, max(len(run.parts) for run in whole) + 1):
        names = ["/".join(run.parts[-depth:]) for run in whole]
        if len(set(names)) == len(names):
            return names
    return [f"{run} ({k})" for k, run in enumerate(whole, 1)]


def differing(names: Sequence[str], trees: Sequence[Mapping[str, Any]]) -> str:
    """The options in which the runs differ, a column a run."""
    options = [dict(flat({key: part for key, part in tree.items() if key not in ("run", "resume")})) for tree in trees]
    lines = [
        (key, *(typed(one[key]) if key in one else MISSING for one in options))
        for key in sorted({key for one in options for key in one})
        if any(key not in one or not same(one[key], options[0].get(key)) for one in options)
    ]
    return table(("option", *names), lines) or note("none: only the randomness of their machines could differ")


def metrics(names: Sequence[str], runs: Sequence[Path], options: Mapping[str, str]) -> str:
    """The samples of each run, and the first row that each is compared with, measured by ``evaluate``."""
    columns: dict[str, dict[str, str]] = {}
    for name, run in zip(names, runs, strict=True):
        for row in read(run / "report" / "metrics.csv")[:2]:
            columns[f"{name}: {plain(row.pop('row', ''))}"] = row
    if not columns:
        return note("none yet: fm-science evaluate RUN measures samples")
    keys = dict.fromkeys(key for row in columns.values() for key in row)
    lines = [[key, *(_number(row.get(key, "")) for row in columns.values()), meant(key, options)] for key in keys]
    return table(("metric", *columns, "meaning"), lines)


def _number(text: str) -> object:
    return float("nan") if text == "" else value(text)


def curves(rows: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """Each metric that was measured while training, with a line a run."""
    shown = dict.fromkeys(key for found in rows.values() for key in curve_names(found))
    charts = [chart(key, {name: column(found, key) for name, found in rows.items()}) for key in shown]
    return panels([one for one in charts if one][:PANELS])


def pictures(names: Sequence[str], runs: Sequence[Path]) -> str:
    """The first picture of each report."""
    shown = []
    for name, run in zip(names, runs, strict=True):
        files = sorted(file for file in (run / "report").glob("*") if file.suffix in KINDS and file.is_file())
        shown += [note(name) + picture(file) for file in files[:1]]
    return panels(shown)
