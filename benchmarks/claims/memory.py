"""What a training step on large clouds costs: memory and time against the number of points, by network.

One cloud in space, points spread evenly over a ball, a step forward and backward, one thread. Each line comes from a
fresh process: its memory is the most that the process held, less what it held before the step. The radius of the
graphs shrinks so that a point keeps about thirty neighbours.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch

from benchmarks.tables import Record, Result, Study, markdown
from fm_science import EGNN, Context, MessagePassing, SetTransformer, TensorField

NEIGHBOURS, DENSE = 30, 512  # DENSE: points beyond which the dense network is left out
NETWORKS = {
    "egnn": lambda radius: EGNN(64, 4),
    "message_passing": lambda radius: MessagePassing(64, 4, radius=radius),
    "tensor_field": lambda radius: TensorField(32, 3, radius=radius),
    "transformer": lambda radius: SetTransformer(128, 4),
}


def most() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(kind: str, points: int) -> Record:
    """Memory in MB and processor seconds of one training step on one cloud."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETWORKS[kind]((NEIGHBOURS / points) ** (1 / 3))  # of a ball of radius 1
    x = torch.nn.functional.normalize(torch.randn(1, points, 3), dim=-1) * torch.rand(1, points, 1) ** (1 / 3)
    network(x[:, :16], torch.rand(1), Context.full(1, 16)).square().mean().backward()  # what is paid once
    before, start = most(), time.process_time()
    network(x, torch.rand(1), Context.full(1, points)).square().mean().backward()
    memory = most() - before
    return {"memory": memory, "a point": 1024 * memory / points, "seconds": time.process_time() - start}


def measure(kind: str, points: int) -> list[Record]:
    """The same in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return [pool.submit(step, kind, points).result()]


def run(study: Study) -> Result:
    """Every network on clouds of growing size."""
    sizes, records = (128, 512) if study.quick else (128, 256, 512, 1024, 2048), []
    for kind in study.chosen(list(NETWORKS)):
        for points in (n for n in sizes if kind != "egnn" or n <= DENSE):
            records += study.measure({"network": kind, "points": points}, partial(measure, kind, points))
    numbers = {"memory": "MB", "a point": "KB a point", "seconds": "processor seconds"}
    table = markdown(records, {"network": "network", "points": "points"}, numbers)
    return Result(records, {"Most memory of one training step": table})
