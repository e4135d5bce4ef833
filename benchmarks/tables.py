"""From measurements to tables: mean and spread over seeds, as .csv for programs and markdown for people.

A record is one measurement: what was measured (words) and what was found (numbers). Records that differ only in their
seed become one line of a table.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
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
    pictures: dict[str, Callable[[], Any]] = field(default_factory=dict)


@dataclass
class Study:
    """How much of a claim is measured, and the file that keeps what has been measured.

    Attributes:
        quick: less data and fewer steps.
        seeds: of the trainings; ``()``: the claim's own.
        steps: of each training; 0: the claim's own.
        only: parts of the claim; ``()``: all.
        data: folder of data sets that are not shipped.
        out: folder for what a claim writes itself.
        file: .jsonl, to which each record is written at once; what it holds already is not measured again.
    """

    quick: bool = False
    seeds: tuple[int, ...] = ()
    steps: int = 0
    only: tuple[str, ...] = ()
    data: Path | None = None
    out: Path = Path("runs/claims")
    file: Path | None = None

    def trials(self, count: int = 3) -> tuple[int, ...]:
        """The seeds: those that were asked for, or so many; one where it is to be quick."""
        return self.seeds or tuple(range(1 if self.quick else count))

    def budget(self, full: int, quick: int) -> int:
        """The steps of a training."""
        return self.steps or (quick if self.quick else full)

    def chosen(self, parts: Sequence[str]) -> list[str]:
        """The parts of a claim that are measured. Raises SystemExit for one that it has not."""
        unknown = [name for name in self.only if name not in parts]
        if unknown:
            raise SystemExit(f"unknown part {', '.join(unknown)}: choose --only from {', '.join(parts)}")
        return [name for name in parts if not self.only or name in self.only]

    def measure(self, key: dict[str, Any], work: Callable[[], Sequence[Record]]) -> list[Record]:
        """The records that ``work`` finds, each with the words of ``key``, from the file where it holds them."""
        name = json.dumps([key, self.quick, self.steps])
        lines = self.file.read_text().splitlines() if self.file and self.file.is_file() else []
        for line in lines:
            kept, records = json.loads(line)
            if kept == name:
                return records
        found = [{**key, **record} for record in work()]
        print(*key.values(), file=sys.stderr, flush=True)  # a whole claim takes minutes
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as stream:
                stream.write(json.dumps([name, found]) + "\n")
        return found


def grouped(records: Sequence[Record], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    """The records by the values of some keys, in the order in which these first appear."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if all(key in record for key in keys):
            found.setdefault(tuple(record[key] for key in keys), []).append(record)
    return found


def values(records: Sequence[Record], name: str) -> list[float]:
    """A number of those records that have it."""
    return [r[name] for r in records if name in r and math.isfinite(r[name])]


def mean(records: Sequence[Record], name: str) -> float:
    """The mean of a number over records that have it; NaN where none has."""
    return statistics.fmean(values(records, name) or [math.nan])


def spread(records: Sequence[Record], name: str) -> float:
    """The standard deviation of a number over records; 0 for one record."""
    found = values(records, name)
    return statistics.stdev(found) if len(found) > 1 else 0.0


def error(records: Sequence[Record], name: str) -> float:
    """The standard error of the mean of a number; 0 for one record."""
    return spread(records, name) / math.sqrt(max(1, len(values(records, name))))


def cell(records: Sequence[Record], name: str, width: Callable[[Sequence[Record], str], float] = spread) -> str:
    """Mean ± standard deviation, or another width, with the digits that it leaves."""
    m, s = mean(records, name), width(records, name)
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


def markdown(
    records: Sequence[Record], keys: Mapping[str, str], numbers: Mapping[str, str],
    width: Callable[[Sequence[Record], str], float] = spread,
) -> str:  # fmt: skip
    """A markdown table with a line for each combination of ``keys`` and a column for each of ``numbers``; both map
    names in the records to headings. What stands after ± is the spread, or another ``width``."""
    lines = [f"| {' | '.join([*keys.values(), *numbers.values()])} |", f"|{'---|' * (len(keys) + len(numbers))}"]
    for words, group in grouped(records, list(keys)).items():
        lines.append(f"| {' | '.join([*map(str, words), *(cell(group, n, width) for n in numbers)])} |")
    return "\n".join(lines)


def wide(records: Sequence[Record], keys: Sequence[str], by: str, name: str, also: Sequence[str] = ()) -> list[Record]:
    """One record for each combination of ``keys``, in which the number ``name`` stands under each value of ``by``; the
    numbers ``also`` are those of its first record."""
    found = []
    for group in grouped(records, keys).values():
        found.append({key: group[0][key] for key in (*keys, *also)} | {str(r[by]): r[name] for r in group})
    return found


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
