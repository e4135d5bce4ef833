"""Write a run as one page, report.html, which opens anywhere: nothing is loaded from the network.

usage: fm-science report RUN [out=FILE] [--open]
       fm-science report RUN RUN ... [out=FILE] [--open]    several runs side by side

  out      the file to write; default RUN/report.html, of several runs report.html
  --open   show it in the browser

The page holds the options that differ from the defaults, the curves, samples in three dimensions (proteins, molecules
and clouds; with a slider where `sample RUN trajectory=true` kept the trajectory from noise), and, where `evaluate RUN`
was run, the table of metrics, the pictures, and a table of samples to sort and filter.

examples:
  fm-science evaluate runs/first && fm-science report runs/first --open
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fm_science import config, launch
from fm_science.commands.charts import Curve, chart
from fm_science.commands.config import flat, same, typed
from fm_science.commands.page import KINDS, note, page, picture, table
from fm_science.errors import UserError
from fm_science.plugins import Plugin, domains
from fm_science.tables import plain
from fm_science.viewer import scenes, script, section

if TYPE_CHECKING:
    from fm_science.domain import Domain

LARGEST = 14_000_000  #: bytes of a page, at most
SPACE = 5_000_000  #: bytes of samples in three dimensions, at most
ROWS = 1_000  #: samples in the table, at most
PANELS = 30  #: curves of metrics, at most
OPEN = "--open"


def usage(rest: list[str]) -> str:
    """The text of ``--help``."""
    return str(__doc__)


def main(args: list[str]) -> None:
    """Write the page of a run."""
    given = launch.words([word for word in args if word != OPEN])
    if not given.paths or given.flags:
        raise UserError("report takes run folders: fm-science report RUN [RUN ...] [out=FILE] [--open]")
    launch.check(given, {"out": None})
    runs = [Path(path) for path in given.paths]
    out = Path([str(runs[0] / "report.html") if len(runs) == 1 else "report.html", *given.values("out")][-1])
    if len(runs) > 1:
        from fm_science.commands.side_by_side import compared

        text = compared(runs)
    else:
        text = written(runs[0])
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file such as {out / 'report.html'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"{out} ({len(text) / 1e6:.2g} MB)")
    if OPEN in args:
        import webbrowser

        webbrowser.open(out.resolve().as_uri())


def written(run: Path) -> str:
    """The page of a run, as text. Raises UserError if the folder is not one."""
    from fm_science.runs import read_config

    tree = read_config(run)
    plugin = domains().get(tree["domain"])
    rows = read(run / "metrics.csv")
    known, meanings_of = science(plugin), meanings(plugin)
    parts = {
        "Summary": summary(run, tree, rows), "Options that differ from the defaults": options(tree, plugin),
        "Loss": losses(rows), "Metrics": metrics(run / "report", meanings_of),
        "The flow itself": numbers(run / "report" / "flow.csv", meanings_of),
        "Samples": samples(run / "report" / "samples.csv"), "Curves of metrics": curves(rows),
    }  # fmt: skip
    shown = scenes(run / "samples", SPACE, known.trace_atom if known else "")
    space = section(shown)
    code = script() if shown else ""
    room = LARGEST - sum(map(len, parts.values())) - len(space) - len(code)
    parts = {**parts, "Samples in 3D": space, "Pictures": pictures(run / "report", room)}
    order = (
        "Summary", "Metrics", "The flow itself", "Samples in 3D", "Pictures", "Loss", "Curves of metrics", "Samples",
    )  # fmt: skip
    preset = f", preset {tree['preset']}" if tree.get("preset") else ""
    about = f"domain {tree['domain']}{preset}, seed {tree.get('seed', 0)}, fm-science {tree.get('version', 'unknown')}"
    last = [name for name in parts if name not in order]
    return page(run.resolve().name, about, {name: parts[name] for name in (*order, *last)}, code)


def read(file: Path) -> list[dict[str, str]]:
    """The rows of a file of comma-separated values; none if there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(stream)]


def value(text: str) -> object:
    """A cell as a number if it is one; texts as they were before they were escaped for spreadsheets."""
    try:
        return float(text)
    except ValueError:
        return plain(text)


def column(rows: Sequence[Mapping[str, str]], name: str) -> Curve:
    """A column over the steps, if it was measured."""
    found = [(value(row.get("step", "")), value(row.get(name, ""))) for row in rows]
    return [(x + 1, y) for x, y in found if isinstance(x, float) and isinstance(y, float)]


def summary(run: Path, tree: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> str:
    """The run and its progress."""
    loss, validation = column(rows, "train/loss"), column(rows, "validation/loss")
    max_steps = (tree.get("trainer") or {}).get("max_steps")
    lines: list[tuple[str, object]] = []
    if loss:
        of = f" of {max_steps:,}" if isinstance(max_steps, int) else ""
        lines += [("steps", f"{int(loss[-1][0]):,}{of}"), ("training loss, last", loss[-1][1])]
    if validation:
        best = min(validation, key=lambda point: point[1])
        lines += [("validation loss, last", validation[-1][1])]
        lines += [("validation loss, least", f"{best[1]:.4g} at step {int(best[0]):,}")]
    if (run / "metrics.csv").is_file():
        seen = time.strftime("%Y-%m-%d %H:%M", time.localtime((run / "metrics.csv").stat().st_mtime))
        lines.append(("last written", seen))
    if not (run / "report" / "metrics.csv").is_file():
        lines.append(("metrics", f"none yet: fm-science evaluate {run}"))
    return table(("", ""), lines)


def options(tree: Mapping[str, Any], plugin: Plugin | None) -> str:
    """The options that differ from their defaults, with the default and the meaning."""
    known: dict[str, type] = dict(config.engine())
    try:
        known |= plugin.options() if plugin is not None else {}
    except UserError as error:
        return note(f"the defaults of this domain are not available here: {error}")
    defaults = dict(flat(config.defaults(known)))
    meanings_of = dict(flat({name: tree[name] for name in known if isinstance(tree.get(name), Mapping)}))
    helps = {f"{group}.{item}": about for group, kind in known.items() for item, about in _helps(kind)}
    rows = [
        (name, typed(given), typed(defaults[name]), helps.get(name, ""))
        for name, given in sorted(meanings_of.items())
        if name in defaults and not same(given, defaults[name])
    ]
    return table(("option", "value", "default", "meaning"), rows) or note("none")


def _helps(kind: type) -> list[tuple[str, str]]:
    from dataclasses import fields

    from fm_science.commands.domains import meaning

    return [(item.name, meaning(item)) for item in fields(kind)]


def losses(rows: Sequence[Mapping[str, str]]) -> str:
    """The loss in training and on held-out data, and the parts of both."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    parts = [name for name in names if name.startswith("train/") and name.split("/")[1] not in NOT_LOSSES]
    bins = sorted({name.split("/")[1] for name in names if BIN.match(name)})
    charts = [
        chart("loss", {"training": column(rows, "train/loss"), "held-out": column(rows, "validation/loss")}),
        chart("training loss by part", {name.removeprefix("train/"): column(rows, name) for name in parts}),
        chart("held-out loss by time", {name: total(rows, f"validation/{name}/") for name in bins}),
    ]
    return panels(charts)


def total(rows: Sequence[Mapping[str, str]], prefix: str) -> Curve:
    """The sum over the columns with this prefix, over the steps."""
    found = []
    for row in rows:
        parts = [value(text) for name, text in row.items() if name.startswith(prefix)]
        known = [part for part in parts if isinstance(part, float)]
        if known and isinstance(step := value(row.get("step", "")), float):
            found.append((step + 1, sum(known)))
    return found


BIN = re.compile(r"validation/t[\d.]+-[\d.]+/")  # losses of validation by time
NOT_LOSSES = ("loss", "skipped", "gradient")  # columns of training that are not parts of the loss


def curves(rows: Sequence[Mapping[str, str]]) -> str:
    """Metrics of the samples that were drawn while training, and whatever else was logged."""
    charts = [chart(name, {name: column(rows, name)}) for name in curve_names(rows)]
    return panels([one for one in charts if one][:PANELS])


def curve_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The columns that :func:`curves` shows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        name for name in sorted(names)
        if name not in ("step", "epoch", "validation/loss")
        and not BIN.match(name) and (not name.startswith("train/") or name == "train/gradient")
    ]  # fmt: skip


def panels(charts: Sequence[str]) -> str:
    """Charts or pictures beside each other."""
    inner = "".join(charts)
    return f"<div class=panels>{inner}</div>" if inner else ""


def science(plugin: Plugin | None) -> type[Domain] | None:
    """The class of the domain; ``None`` if it cannot be imported, or is made by a function."""
    from fm_science.domain import Domain

    try:
        made: object = plugin.builder() if plugin is not None else None
    except UserError:
        return None
    return made if isinstance(made, type) and issubclass(made, Domain) else None


def meanings(plugin: Plugin | None) -> Mapping[str, str]:
    """One line for each number that the domain's metrics give; nothing if its class is not known."""
    known = science(plugin)
    return known.metric_meanings if known else {}


def meant(name: str, meanings_of: Mapping[str, str]) -> str:
    """The meaning of a number: that of its own name, else of the longest matching name with a star."""
    fits = [star for star in meanings_of if "*" in star and fnmatchcase(name, star)]
    return meanings_of.get(name) or (meanings_of[max(fits, key=len)] if fits else "")


def metrics(folder: Path, meanings_of: Mapping[str, str]) -> str:
    """The table of ``evaluate``: one line per metric, one column per row of the comparison."""
    rows = read(folder / "metrics.csv")
    if not rows:
        return ""
    heads = [plain(row.get("row", "")) for row in rows]
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name != "row"]
    lines = [[name, *(_number(row.get(name, "")) for row in rows), meant(name, meanings_of)] for name in names]
    return table(("metric", *heads, "meaning"), lines)


def _number(text: str) -> object:
    return float("nan") if text == "" else value(text)


def numbers(file: Path, meanings_of: Mapping[str, str]) -> str:
    """The measurements of the flow itself."""
    rows = [(plain(row.get("number", "")), _number(row.get("value", ""))) for row in read(file)]
    return table(("number", "value", "meaning"), [(name, found, meant(name, meanings_of)) for name, found in rows])


def samples(file: Path) -> str:
    """The table with a row for each sample."""
    rows = read(file)
    heads = list(dict.fromkeys(key for row in rows for key in row))
    body = [[_shown(row.get(name, "")) for name in heads] for row in rows[:ROWS]]
    more = note(f"the first {ROWS:,} of {len(rows):,}; all are in {file.name}") if len(rows) > ROWS else ""
    return table(heads, body, sortable=True) + more


def _shown(text: str) -> object:
    """A cell of the table of samples: integers and names are unchanged."""
    found = value(text)
    whole = text.strip().isdigit() or not isinstance(found, float)
    return plain(text) if whole or found != found else found


def pictures(folder: Path, room: int) -> str:
    """The pictures of ``evaluate``, as many as fit."""
    shown, left = [], []
    for file in sorted(file for file in folder.rglob("*") if file.suffix in KINDS and file.is_file()):
        cost = file.stat().st_size * 4 // 3 + 1000
        if cost <= room and not file.is_symlink():
            room -= cost
            shown.append(picture(file))
        else:
            left.append(file.name)
    return "".join(shown) + (note(f"left out, since the page would be too large: {', '.join(left)}") if left else "")
