"""Flows whose answer is known, and how far the engine is from it.

    python -m benchmarks.oracles [--quick] [NAME ...]

The rows are those of ``tests/oracles``, which the tests hold to the same tolerances. The exit code is 1 where a row
fails.
"""

from __future__ import annotations

import argparse
import time

import torch

from tests.oracles.rows import ORACLES, measured


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the rows that take more than a few seconds")
    parser.add_argument("names", nargs="*", help="only rows whose name contains one of these words")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [r for r in ORACLES if not (args.quick and r.slow)]
    rows = [r for r in rows if not args.names or any(word in r.name for word in args.names)]
    failures = 0
    print(f"{'proof':98s} {'error':>9s} {'allowed':>9s} {'seconds':>8s}")
    for row in rows:
        begun = time.perf_counter()
        error = measured(row)
        holds = error <= row.tolerance
        failures += not holds
        seconds = time.perf_counter() - begun
        verdict = "" if holds else "  FAILS"
        print(f"{row.name:98s} {error:9.1e} {row.tolerance:9.1e} {seconds:8.1f}{verdict}", flush=True)
    print(f"{len(rows) - failures} of {len(rows)} hold")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
