"""From measurements to tables: mean and spread over seeds, as .csv for programs and markdown for people.

A record is one measurement: what was measured (words) and what was found (numbers). Records that differ only in their
seed become one line of a table.
"""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


@dataclass
class Result:
    """What a claim's command gives.

    Attributes:
        records: all measurements.
        tables: markdown tables by title.
        pictures: functions that make figures, by name.
    """

    records: list[Record] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)


def tell(*words: Any) -> None:
    """What has just been measured, on the error stream, since a whole claim takes minutes."""
    print(*words, file=sys.stderr, flush=True)


def grouped(records: Sequence[Record], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    """The records by the values of some keys, in the order in which these first appear."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if all(key in record for key in keys):
            found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return found


def mean(records: Sequence[Record], name: str) -> float:
    """The mean of a number over records that have it; NaN where none has."""
    values = [r[name] for r in records if name in r and math.isfinite(r[name])]
    return statistics.fmean(values) if values else math.nan


def spread(records: Sequence[Record], name: str) -> float:
    """The standard deviation of a number over records; 0 for one record."""
    values = [r[name] for r in records if name in r and math.isfinite(r[name])]
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cell(records: Sequence[Record], name: str) -> str:
    """Mean ± standard deviation, with the digits that the deviation leaves."""
    m, s = mean(records, name), spread(records, name)
    if math.isnan(m):
        return "-"
    return number(m) if s == 0 else f"{number(m, s)} ± {number(s, s)}"


def number(value: float, scale: float | None = None) -> str:
    """A number with two digits of ``scale``, or three digits of its own."""
    if value == 0:
        return "0"
    base = scale or abs(value)
    places = (2 if not scale else 1) - math.floor(math.log10(base))
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{min(6, max(0, places))}f}"


def markdown(records: Sequence[Record], keys: Mapping[str, str], numbers: Mapping[str, str]) -> str:
    """A markdown table with a line for each combination of ``keys`` and a column for each of ``numbers``; both map
    names in the records to headings."""
    lines = [f"| {' | '.join([*keys.values(), *numbers.values()])} |", f"|{'---|' * (len(keys) + len(numbers))}"]
    for words, group in grouped(records, list(keys)).items():
        lines.append(f"| {' | '.join([*map(str, words), *(cell(group, n) for n in numbers)])} |")
    return "\n".join(lines)


def save(records: Sequence[Record], file: Path) -> None:
    """All records as comma-separated values."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for record in records for key in record))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(records)


def publish(name: str, text: str, page: Path) -> None:
    """Put the text between the marks of a claim on a page, ``<!-- NAME -->`` and ``<!-- /NAME -->``."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for {name!r}: write {start} and {end} where its tables belong")
    page.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}")
