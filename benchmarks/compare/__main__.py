"""How fast fm-science is beside other libraries, and beside a loop written by hand.

    python -m benchmarks.compare [--quick] [NAME ...]        training geodesics divergences alignments couplings worker

Peers come with ``pip install 'fm-science[peers]'``; one that is missing says so. (bionemo-moco insists on numpy 1: add
it by ``pip install --no-deps bionemo-moco jaxtyping wadler-lindig``.) Both sides run in turns in one process on one
thread; the table gives medians, and the quartiles of the ratio of neighbouring runs. Times are CPU times, but for the
rows with a data worker, which are wall times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.compare.couplings import alignments, couplings
from benchmarks.compare.duel import HEADER, Duel, line
from benchmarks.compare.rivals import divergences, geodesics, training
from benchmarks.compare.workers import transport_in_worker

COMPARISONS: dict[str, tuple[Callable[[int], list[Duel]], int, int]] = {  # the comparison; its runs; with --quick
    "training": (training, 75, 25),
    "geodesics": (geodesics, 41, 15),
    "divergences": (divergences, 11, 7),
    "alignments": (alignments, 9, 7),
    "couplings": (couplings, 24, 4),
    "worker": (transport_in_worker, 11, 7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch computes with")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPARISONS)}; default all")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(COMPARISONS))
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(COMPARISONS)}")
    torch.set_num_threads(given.threads)
    torch.set_flush_denormal(True)
    print(HEADER)
    for name in given.names or COMPARISONS:
        torch.manual_seed(0)
        compare, runs, quick = COMPARISONS[name]
        for row in compare(quick if given.quick else runs):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
