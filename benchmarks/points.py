"""What a training step on large clouds costs: memory and time against the number of points, by network.

    python -m benchmarks.points [--quick]

One cloud in space, points spread evenly over a ball, a step forward and backward, one thread. Each line comes from a
fresh process: its memory is the most that the process held, less what it held before the step. The radius of the
graphs shrinks so that a point keeps about thirty neighbours.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from fm_science import EGNN, Context, MessagePassing, SetTransformer, TensorField

NEIGHBOURS = 30
NETWORKS = {
    "egnn": lambda radius: EGNN(64, 4),
    "message_passing": lambda radius: MessagePassing(64, 4, radius=radius),
    "tensor_field": lambda radius: TensorField(32, 3, radius=radius),
    "transformer": lambda radius: SetTransformer(128, 4),
}
DENSE = 512  # points beyond which the dense network is left out


def held() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(kind: str, points: int) -> tuple[float, float]:
    """Memory in MB and CPU time in seconds of one training step on one cloud."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETWORKS[kind]((NEIGHBOURS / points) ** (1 / 3))  # of a ball of radius 1
    x = torch.nn.functional.normalize(torch.randn(1, points, 3), dim=-1) * torch.rand(1, points, 1) ** (1 / 3)
    network(x[:, :16], torch.rand(1), Context.full(1, 16)).square().mean().backward()  # what is paid once
    before, start = held(), time.process_time()
    network(x, torch.rand(1), Context.full(1, points)).square().mean().backward()
    return held() - before, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer points")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "POINTS"), help="a single line, without a header")
    given = parser.parse_args()
    if given.one:
        print(*step(given.one[0], int(given.one[1])))
        return
    sizes = (128, 512) if given.quick else (128, 256, 512, 1024, 2048)
    print(f"{'network':<16} {'points':>7} {'MB':>8} {'KB a point':>11} {'CPU s':>7}")
    for kind in NETWORKS:
        for points in (n for n in sizes if kind != "egnn" or n <= DENSE):
            line = [sys.executable, "-m", "benchmarks.points", "--one", kind, str(points)]
            memory, spent = map(float, subprocess.run(line, capture_output=True, text=True, check=True).stdout.split())
            print(f"{kind:<16} {points:>7} {memory:8.0f} {1024 * memory / points:11.0f} {spent:7.2f}", flush=True)


if __name__ == "__main__":
    main()
