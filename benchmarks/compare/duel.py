"""Two ways to do the same work, timed in turns.

A busy machine slows both, so the ratio of two runs that stand side by side says more than either time. Each comparison
is the median over such pairs, with the quartiles beside it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]
Times = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Duel:
    """One row of the table.

    Attributes:
        name: what is done.
        peer: who else does it.
        goal: the largest ratio of our time to the peer's that was aimed at; ``None``: the row is for information.
        ours, theirs: milliseconds for one piece of work, run by run.
        absent: why there is no measurement, where there is none.
    """

    name: str
    peer: str
    goal: float | None = None
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    absent: str = ""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of our time divided by the peer's."""
        ratios = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high

    @property
    def verdict(self) -> str:
        """Whether the goal is met; "even" where it lies between the quartiles on the wrong side of the median."""
        if self.goal is None or self.absent:
            return ""
        low, middle, _ = self.quartiles
        return "yes" if middle <= self.goal else "even" if low <= self.goal else "no"


def times(
    ours: Work, theirs: Work, runs: int, least: float = 0.05, clock: Callable[[], float] = time.process_time
) -> Times:
    """Milliseconds of one call of each, ``runs`` times in turns. Short calls are repeated until they last ``least``
    seconds together."""
    repeats = [_repeats(work, least, clock) for work in (ours, theirs)]
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for work, n, record in zip((ours, theirs), repeats, found, strict=True):
            record.append(1e3 * elapsed(work, n, clock) / n)
    return tuple(found[0]), tuple(found[1])


def _repeats(work: Work, least: float, clock: Callable[[], float]) -> int:
    work()  # the first call pays for what is set up once
    return max(1, math.ceil(least / max(elapsed(work, 1, clock), 1e-6)))


def elapsed(work: Work, n: int, clock: Callable[[], float]) -> float:
    """Seconds of ``n`` calls."""
    start = clock()
    for _ in range(n):
        work()
    return clock() - start


def guarded(name: str, peer: str, goal: float | None, work: Callable[[], Times]) -> Duel:
    """The row of ``work``, or the reason why there is none."""
    try:
        return Duel(name, peer, goal, *work())
    except ModuleNotFoundError as error:
        return Duel(name, peer, goal, absent=f"not installed ({error.name})")


HEADER = (
    f"{'comparison':<58} {'beside':<26} {'ours ms':>9} {'peer ms':>9} {'ours/peer':>9} {'quartiles':>15} "
    f"{'as fast':>8} {'runs':>5} {'goal':>7}  met"
)


def line(row: Duel) -> str:
    """A row of the table as text."""
    start = f"{row.name:<58} {row.peer:<26} "
    if row.absent:
        return start + row.absent
    low, middle, high = row.quartiles
    goal = "" if row.goal is None else f"<={row.goal:.3g}"
    return start + (
        f"{statistics.median(row.ours):9.2f} {statistics.median(row.theirs):9.2f} {middle:9.3f} "
        f"{f'{low:.3f}-{high:.3f}':>15} {1 / middle:7.2f}x {len(row.ours):5d} {goal:>7}  {row.verdict}"
    )
