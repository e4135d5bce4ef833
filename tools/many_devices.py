"""What many devices would cost: measured here with one and two processes, computed from that for 8 to 1,024.

    python tools/many_devices.py        # about two minutes of two cores; prints the tables of docs/many_processes.md

Measured: the exact assignment of a global batch, the exchange of batches between two processes, a batch from a prepared
file. Computed: the assignment by the power law that was fitted to its times, and the exchange by the bytes that each
process receives. A network between machines is not measured, so it is a number that you give.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fm_science import Context, Euclidean, GatherRanks, Transport
from fm_science.data import train_loader
from fm_science.plugins import find
from fm_science.prepared import text
from fm_science.records import write_records

BATCH, SITES = 128, 8 * 8  # of one process: the shipped digits with their preset
DEVICES = (8, 64, 256, 1024)


def seconds(work: Callable[[], object], times: int = 5) -> float:
    """The median time of a call, after one that does not count."""
    work()
    found = []
    for _ in range(times):
        since = time.perf_counter()
        work()
        found.append(time.perf_counter() - since)
    return sorted(found)[times // 2]


def pairing(size: int) -> float:
    """Seconds of the exact assignment of ``size`` noises and data."""
    generator = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(size, 1, SITES, generator=generator) for _ in range(2))
    context, space = Context.full(size), Euclidean(SITES)
    return seconds(lambda: Transport().pair(space.bind(context), x0, x1, context), 3)


def _exchange(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=2)
    x = torch.randn(BATCH, 1, SITES)
    took = seconds(lambda: GatherRanks()((x, x, Context.full(BATCH), 0)), 20)
    if rank == 0:
        Path(folder, "took").write_text(str(took))
    torch.distributed.destroy_process_group()


def exchange() -> float:
    """Seconds in which two processes hand each other their batches through gloo."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_exchange, args=(folder,), nprocs=2)
        return float(Path(folder, "took").read_text())


def reading() -> float:
    """Seconds of a batch of 64 x 64 colour pictures from a prepared file."""
    made = find("image").build({})
    preparation = made.preparation()
    assert preparation is not None
    draw, count = np.random.default_rng(0), 4000
    one = {"shape": np.array([3, 64, 64], np.int32), "label": np.zeros(0, np.int64), "top": np.array([255], np.int32),
           "white": np.zeros(1, np.int32), "array": np.zeros(1, np.uint8), "folder": text("all"),
           "name": text("one")}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "all.safetensors"
        records = [{**one, "levels": draw.integers(0, 255, 3 * 64 * 64, np.uint8), "file": text(str(i))}
                   for i in range(count)]  # fmt: skip
        about = {"domain": "image", "layout": preparation.layout, "options": preparation.reading, "files": count}
        write_records(records, [], preparation.columns, file, about)
        data = find("image").build({"data": {"source": str(file), "batch": BATCH}})
        batches = iter(train_loader(data.data, data.path.space, 0, lambda: 0, 0, 1))
        return seconds(lambda: next(batches), 10)


def power(sizes: list[int], times: list[float]) -> tuple[float, float]:
    """Factor and exponent of the power law through times."""
    exponent, factor = np.polyfit(np.log(sizes), np.log(times), 1)
    return math.exp(factor), float(exponent)


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=float, default=10.0, help="Gb/s between machines, for what is computed")
    network = parser.parse_args().network * 1e9 / 8
    torch.set_num_threads(1)
    sizes = [512, 1024, 2048, 4096]
    times = [pairing(size) for size in sizes]
    factor, exponent = power(sizes, times)
    handed, read, bytes_ = exchange(), reading(), 2 * 4 * SITES * BATCH
    print("| measured on one core | |\n|---|---|")
    for size, took in zip(sizes, times, strict=True):
        print(f"| exact assignment of {size:,} | {took:.3f} s |")
    print(f"| exchange of batches of {BATCH} ({bytes_ / 1e3:.0f} kB) by two processes, gloo | {1e3 * handed:.1f} ms |")
    print(f"| a batch of {BATCH} pictures, 3 x 64 x 64, from a prepared file | {1e3 * read:.1f} ms |\n")
    print(f"Assignment: {factor:.2g} n^{exponent:.2f} seconds. Network: {network * 8e-9:g} Gb/s.\n")
    print("| devices | global batch | received by each | on the network | assignment |\n|---|---|---|---|---|")
    for n in DEVICES:
        whole, received = n * BATCH, (n - 1) * bytes_
        took = factor * whole**exponent
        print(f"| {n:,} | {whole:,} | {received / 1e6:.1f} MB | {1e3 * received / network:.1f} ms | {took:,.1f} s |")


if __name__ == "__main__":
    main()
