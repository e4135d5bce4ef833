"""Checks this package on a GPU, in six minutes at most: agreement with the CPU, training steps, speed, syncs, memory.

    python tools/gpu_check.py                    # on the first CUDA device; or: make gpu-check
    python tools/gpu_check.py --device cpu       # where there is none: single against double precision on the CPU
    python tools/gpu_check.py --only agreement   # agreement, training or speed

Agreement: every space, prior, path, solver, density and coupling gets the same points in double precision on the CPU
and on the device, and must give the same numbers to 1e-5 of their size. Training: two steps of each domain in single
and in mixed precision, each loss finite. Speed: steps a second of proteins and molecules with and without compilation,
how often a step waits for the device, and the most memory it held. A table is printed, and everything written as JSON.
The exit code is 0 where all is well, 1 where a check failed, 2 where there is no device.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu.agreement import cases, compared
from gpu.steps import QUICK, Stepper, speed, trained

LIMIT = 330.0  #: seconds after which nothing new is begun
PARTS = ("agreement", "training", "speed")


def agreement(device: torch.device) -> Iterator[dict[str, Any]]:
    """One row a case: the largest difference from the CPU in double precision, relative to the size of the numbers."""
    dtype, bound = (torch.float64, 1e-5) if device.type == "cuda" else (torch.float32, 1e-3)
    for case in cases():
        yield {"part": "agreement", **compared(case, device, dtype, bound)}


def training(device: torch.device, domains: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """One row a domain and precision: the loss of two steps."""
    for name in domains:
        for precision in ("32-true", "bf16-mixed"):
            yield {"part": "training", **trained(name, precision, device)}


def speeds(device: torch.device, domains: tuple[str, ...], steps: int) -> Iterator[dict[str, Any]]:
    """One row a domain, with and without compilation."""
    for name in (name for name in ("protein", "molecule", "point_cloud") if name in domains):
        for compiled in (False, True) if device.type == "cuda" else (False,):
            yield {"part": "speed", **speed(Stepper(name, "bf16-mixed", device, compiled), steps)}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    numbers = "  ".join(f"{k} {v:.3g}" for k, v in row.items() if isinstance(v, float))
    words = f"  {row['note']}" if row.get("note") else ""
    return f"{'ok ' if row['ok'] else 'BAD'} {row['part']:<10} {row['name']:<44} {numbers}{words}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON file")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--domains", default=",".join(QUICK), help="domains to train, with commas")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    given = parser.parse_args(argv)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device here: nothing was checked. --device cpu compares single with double precision")
        return 2
    device, begin, rows = torch.device(given.device), time.monotonic(), []
    chosen, domains = [given.only] if given.only else PARTS, tuple(given.domains.split(","))
    made = {"agreement": lambda: agreement(device), "training": lambda: training(device, domains),
            "speed": lambda: speeds(device, domains, given.steps)}  # fmt: skip
    for part in chosen:
        for row in made[part]():
            rows.append(row)
            print(line(row), flush=True)
            if time.monotonic() - begin > LIMIT:
                rows.append({"part": part, "name": "time", "ok": False, "note": "time is over: the rest was left out"})
                print(line(rows[-1]))
                break
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    about = {"device": name, "torch": torch.__version__, "seconds": time.monotonic() - begin, "rows": rows}
    given.out.write_text(json.dumps(about, indent=1) + "\n")
    bad = [row for row in rows if not row["ok"]]
    print(f"{name}: {len(rows) - len(bad)} of {len(rows)} checks passed in {about['seconds']:.0f} s; {given.out}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
