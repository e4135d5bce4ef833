"""Potentials of semidiscrete transport: prices that share a continuous noise evenly among n data.

Noise goes to the datum with the least cost minus price. A datum that is drawn too often gets a lower price, one that
is drawn too rarely a higher one: that is stochastic gradient ascent on the dual problem, which is concave.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SHRINK = 1e-3  #: the last step over the first
LAST = 0.2  #: the part of the iterations whose potentials are averaged


@dataclass(frozen=True)
class Fit:
    """How evenly the data share the noise, measured on draws that the fit has not seen.

    Attributes:
        variation: total variation between the masses P_j of the cells and 1 / n.
        floor: what ``variation`` would be on average for perfect potentials, from so few draws.
        largest: the largest n P_j: how much too often a datum is drawn at most.
        empty: how many data no draw reached.
    """

    variation: float
    floor: float
    largest: float
    empty: int


def fit_potentials(costs: Callable[[int], Tensor], n: int, iterations: int, batch: int, step: float) -> Tensor:
    """Maximise E min_j (c(x0, x1_j) - psi_j) + mean psi; its gradient is 1 / n - P_j (Genevay et al. 2016).

    Args:
        costs: ``m -> (m, n)``, the costs of fresh noise to each datum.
        n: number of data.
        iterations, batch: how many steps, and draws a step.
        step: length of the first step, in units of the mean cost.

    Returns:
        The average ``(n,)`` of the last fifth of the potentials.
    """
    first = costs(batch)
    unit, psi = step * float(first.mean()), torch.zeros_like(first[0])
    total, averaged = torch.zeros_like(psi), math.ceil(LAST * iterations)
    for k in range(iterations):
        won = torch.bincount((costs(batch) - psi).argmin(1), minlength=n) / batch
        psi = psi + unit * SHRINK ** (k / iterations) * (1 / n - won)
        if k >= iterations - averaged:
            total = total + psi
    return total / averaged


def evaluate_potentials(costs: Callable[[int], Tensor], psi: Tensor, draws: int, batch: int) -> tuple[Tensor, Fit]:
    """The mass of each cell ``(n,)`` from fresh noise, and what it says about the potentials."""
    n, rounds = len(psi), math.ceil(draws / batch)
    won = torch.stack([torch.bincount((costs(batch) - psi).argmin(1), minlength=n) for _ in range(rounds)]).sum(0)
    mass = won.double() / (rounds * batch)
    variation = 0.5 * float((mass - 1 / n).abs().sum())
    floor = math.sqrt((n - 1) / (2 * math.pi * rounds * batch))  # n binomial counts, each nearly normal
    return mass, Fit(variation, floor, float(n * mass.max()), int((mass == 0).sum()))
