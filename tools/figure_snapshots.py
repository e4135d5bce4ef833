"""The figure of docs/data_to_data.md: cells at a time that was left out, as a flow through the other times and as
straight lines between its neighbours would have them.

    python tools/figure_snapshots.py cells.npz docs/pictures

The file holds ``x`` (cells, coordinates) and ``time`` (cells). Distances are 2-Wasserstein ones by exact assignment,
between as many cells as half of a snapshot has; the floor is that between its two halves.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fm_science import (
    Context,
    Euclidean,
    Flow,
    FlowMatching,
    Geodesic,
    Heun,
    Piecewise,
    PointField,
    Snapshots,
    Transport,
)
from fm_science.figures import COLOURS, draw, figure

STEPS, BATCH, SEEDS = 500, 256, (0, 1)


def assignment(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """For each of n points of ``x`` its partner in ``y`` at least cost, and the 2-Wasserstein distance."""
    cost = torch.cdist(x, y).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    return torch.from_numpy(columns), float(np.sqrt(cost[rows, columns].mean()))


def some(x: Tensor, n: int) -> Tensor:
    return x[torch.randperm(len(x))[:n]]


def trained(shots: list[Tensor], times: list[float]) -> Flow:
    """A flow through snapshots, by exact transport of minibatches."""
    snapshots = Snapshots([shot[:, None] for shot in shots], times)
    space = Euclidean(shots[0].shape[1])
    flow = Flow(Piecewise(Geodesic(space), snapshots.clock_times), snapshots, PointField(space, 128, 3, scales=(0.3,)))
    objective = FlowMatching(Transport(within=("time",)))
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / STEPS)
        loss = objective(flow, *snapshots.draw(BATCH))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return flow


def left_out(shots: list[Tensor], times: list[float], k: int, seed: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Distances to one half of snapshot k of what each method says there, and what it says."""
    torch.manual_seed(seed)
    flow = trained(shots[:k] + shots[k + 1 :], times[:k] + times[k + 1 :])
    half = shots[k][torch.randperm(len(shots[k]))]
    n = min(len(half) // 2, *(len(shots[j]) for j in (k - 1, k + 1)))
    start, end = some(shots[k - 1], n), some(shots[k + 1], n)
    share = (times[k] - times[k - 1]) / (times[k + 1] - times[k - 1])
    kept = times[:k] + times[k + 1 :]
    grid = torch.tensor([times[k - 1] + (times[k] - times[k - 1]) * i / 20 - kept[0] for i in range(21)])
    grid = grid.double() / (kept[-1] - kept[0])
    said = {
        "flow": flow.transport(start[:, None], Context.full(n), Heun(), grid)[:, 0].detach(),
        "straight lines": torch.lerp(start, end[assignment(start, end)[0]], share),
        "snapshot before": start,
        "floor: its other half": half[n : 2 * n],
    }
    return {name: assignment(x, half[:n])[1] for name, x in said.items()}, {"measured": half[:n], **said}


def main(file: str, folder: str) -> None:
    loaded = np.load(file)
    x = torch.from_numpy(loaded["x"]).float()
    x, time = (x - x.mean(0)) / x.std(0), torch.from_numpy(loaded["time"]).float()
    times = time.unique().tolist()
    shots = [x[time == t] for t in times]
    shown = {}
    for k in range(1, len(times) - 1):
        rows = [left_out(shots, times, k, seed) for seed in SEEDS]
        shown[times[k]] = rows[0][1]
        for name in rows[0][0]:
            found = torch.tensor([row[0][name] for row in rows])
            print(f"left out {times[k]:g}: {name:22} {found.mean():.3f} +- {found.std():.3f}", flush=True)
    axes_of = torch.pca_lowrank(x, 2)[2]

    def picture() -> object:
        made = figure(8, 2.6 * len(shown))
        panels = made.subplots(len(shown), 3, sharex=True, sharey=True, squeeze=False)
        for row, (t, said) in zip(panels, shown.items(), strict=True):
            for axis, name in zip(row, ("measured", "flow", "straight lines"), strict=True):
                axis.scatter(*(said[name] @ axes_of).T, s=3, color=COLOURS[0 if name == "flow" else 1], linewidths=0)
                axis.set_title(f"time {t:g}: {name}")
        return made

    draw({"snapshots_cells": picture}, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
