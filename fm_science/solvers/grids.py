"""Grids of times. A solver accepts any increasing tensor of times; these functions give the usual ones.

Equal steps suit straight paths. Near t = 1 diffusions have little noise, and the ratio of signal to noise changes fast:
there steps equal in its logarithm, or steps that shrink like a power, are better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_science.schedules import Schedule


def uniform_grid(steps: int | Tensor) -> Tensor:
    """``steps`` equal intervals of [0, 1] as ``steps + 1`` times; a tensor of increasing times passes through.

    Raises:
        ValueError: when there is no step, or the times do not increase within [0, 1].
    """
    if not torch.is_tensor(steps):
        if steps < 1:
            raise ValueError(f"steps={steps}: sampling needs at least one step.")
        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    times = steps.detach().double().cpu()
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()) or times[0] < 0 or times[-1] > 1:
        raise ValueError(f"steps={steps}: a grid of times must increase within [0, 1] and have at least two entries.")
    return times


def power_grid(steps: int, power: float = 2.0) -> Tensor:
    """t = 1 - (1 - i / steps)^power: steps that shrink towards the data, as ``steps + 1`` times."""
    return 1 - (1 - uniform_grid(steps)) ** power


def grid_after(times: Tensor, first: float) -> Tensor:
    """The part of a grid after the time ``first``, which becomes its own first time.

    Raises:
        ValueError: unless ``first`` is at least 0 and before the end of the grid.
    """
    if not 0 <= first < float(times[-1]):
        raise ValueError(f"from_time={first}: expected a time of at least 0 and before the end, {float(times[-1]):g}.")
    return torch.cat([times.new_tensor([first]), times[times > first + 1e-9]])


def log_snr_grid(steps: int, schedule: Schedule, first: float = 1e-3, last: float = 1 - 1e-3) -> Tensor:
    """Times between which log(alpha / sigma) grows by equal amounts, as ``steps + 1`` times: 0, then equal steps from
    ``first`` to ``last``, then 1. If the ratio is finite at an end, the equal steps begin or stop there."""
    alpha0, _, _, sigma1 = schedule.ends
    first, last = (0.0 if alpha0 > 0 else first), (1.0 if sigma1 > 0 else last)
    inner = steps - (first > 0) - (last < 1)
    if inner < 1:
        raise ValueError(f"steps={steps}: this grid needs at least {steps - inner + 1} steps.")
    alpha, sigma = schedule(torch.tensor([first, last], dtype=torch.float64))
    start, stop = (alpha / sigma).log().tolist()
    ratio = torch.linspace(start, stop, inner + 1, dtype=torch.float64).exp()
    times = schedule.time(ratio, torch.ones_like(ratio))
    times[0], times[-1] = first, last
    ends = [torch.zeros(int(first > 0)), times, torch.ones(int(last < 1))]
    return torch.cat([end.double() for end in ends])
