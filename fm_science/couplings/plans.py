"""Plans: how much of each noise goes to each datum, once every pair has its price.

A plan takes a table of costs ``(n, n)`` (row: noise, column: datum) and says, for each datum, which noise it gets and
how much the pair counts. Data are never moved. Where a plan is not a permutation, pairs are drawn from it with torch's
generator. No plan falls back on another: what has not converged is an error.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.symmetries.permutations import assign


class Plan(ABC):
    """A rule that turns a table of costs into pairs."""

    @abstractmethod
    def __call__(self, cost: Tensor) -> tuple[Tensor, Tensor | None]:
        """For a table ``(n, n)``: the noise of each datum ``(n,)``, and the weight of each pair ``(n,)`` or ``None``
        where all count one. Raises ValueError for costs that are not finite."""


@dataclass(frozen=True)
class ExactPlan(Plan):
    """The cheapest permutation: each noise meets exactly one datum, so the noise is kept as it was drawn.

    Small tables go to the shortest augmenting paths of SciPy (Crouse 2016), large ones to the network simplex of POT
    (Bonneel et al. 2011); both are exact.

    Args:
        switch: the size from which the network simplex takes over.
    """

    switch: int = 200

    def __call__(self, cost: Tensor) -> tuple[Tensor, None]:
        _check(cost)
        if len(cost) < 3:
            return _tiny(cost), None
        order = _simplex(cost) if len(cost) >= self.switch else None
        return assign(cost.T[None])[0] if order is None else order, None


def _check(cost: Tensor) -> None:
    if not bool(cost.isfinite().all()):
        raise ValueError(
            f"{int((~cost.isfinite()).sum())} of {cost.numel()} transport costs are not finite. "
            "Look for NaN or infinite values in the batch, or at the cost function."
        )


def _tiny(cost: Tensor) -> Tensor:
    order = torch.arange(len(cost), device=cost.device)
    swap = len(cost) == 2 and bool(cost[0, 0] + cost[1, 1] > cost[0, 1] + cost[1, 0])
    return order.flip(0) if swap else order


def _simplex(cost: Tensor) -> Tensor | None:
    """The permutation at the optimal vertex; ``None`` when pivots ran out before it was reached."""
    import numpy as np
    import ot

    n = len(cost)
    share = np.full(n, 1 / n)
    plan, log = ot.emd(share, share, cost.double().cpu().numpy(), numItermax=max(100_000, 2_000 * n), log=True)
    order = torch.from_numpy(plan.argmax(0))
    whole = bool(np.bincount(order.numpy(), minlength=n).max() == 1) and plan.max(0).min() > 0.5 / n
    return order.to(cost.device) if whole and log["warning"] is None else None


@dataclass(frozen=True)
class Sinkhorn(Plan):
    """The entropic plan (Cuturi 2013), in the log domain. Each datum draws its noise from its column, so the multiset
    of noise is kept in law only.

    Args:
        reg: weight of the entropy. With ``relative`` in units of the mean cost, else in units of the cost: the
            Schrödinger bridge of Brownian motion with variance sigma² a unit of time has reg = 2 sigma² for squared
            distances (Tong et al. 2024).
        relative: see above.
        steps: most iterations.
        tolerance: largest error of the marginals, in total variation.
    """

    reg: float = 0.05
    relative: bool = True
    steps: int = 5000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        _positive(self, "reg")

    def __call__(self, cost: Tensor) -> tuple[Tensor, None]:
        plan = entropic(cost, self.reg, self.relative, math.inf, math.inf, self.steps, self.tolerance)
        return _drawn(plan), None


@dataclass(frozen=True)
class Unbalanced(Plan):
    """The entropic plan that may leave out what is dear to reach (Chizat et al. 2018): the marginals are held by
    penalties ``keep * KL(marginal | uniform)`` instead of exactly. Each pair weighs as much as its datum kept: n times
    the mass of its column.

    By default noise is kept exactly, since sampling starts from all of it, and only data are reweighed.

    Args:
        reg: weight of the entropy, as in :class:`Sinkhorn`.
        keep_data: weight of the penalty on data, in the same units as ``reg``; outliers dearer than that fade.
        keep_noise: weight of the penalty on noise; infinite: kept exactly.
        relative: whether all three are in units of the mean cost.
        steps: most iterations.
        tolerance: largest error of the fixed point, in total variation.
    """

    reg: float = 0.05
    keep_data: float = 1.0
    keep_noise: float = math.inf
    relative: bool = True
    steps: int = 5000
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        _positive(self, "reg", "keep_data", "keep_noise")

    def __call__(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        plan = entropic(
            cost, self.reg, self.relative, self.keep_noise, self.keep_data, self.steps, self.tolerance
        )  # fmt: skip
        return _drawn(plan), len(cost) * plan.logsumexp(0).exp()


def _positive(plan: Plan, *names: str) -> None:
    for name in names:
        if not getattr(plan, name) > 0:
            raise ValueError(f"{plan!r}: {name} must be positive.")


def _drawn(plan: Tensor) -> Tensor:
    """For each datum a noise with probability proportional to its column, from the log of a plan: the mass of a far
    outlier may be too small for a number."""
    return torch.multinomial(plan.softmax(0).T, 1)[:, 0]


def entropic(
    cost: Tensor, reg: float, relative: bool = False, keep_rows: float = math.inf, keep_columns: float = math.inf,
    steps: int = 5000, tolerance: float = 1e-3,
) -> Tensor:  # fmt: skip
    """The log of the plan ``(n, n)`` that minimises <plan, cost> + reg KL(plan | uniform) + the penalties on both
    marginals, by alternating soft minima of the dual potentials in double precision (Séjourné et al. 2019, alg. 1).

    Raises:
        RuntimeError: when ``steps`` iterations leave an error above ``tolerance``.
    """
    _check(cost)
    cost = cost.double()
    unit = float(cost.mean().clamp_min(1e-300)) if relative else 1.0
    reg, damp_f, damp_g = reg * unit, _damping(keep_rows, reg), _damping(keep_columns, reg)
    log_share = -math.log(len(cost))
    f, g = (torch.zeros_like(cost[0]) for _ in range(2))
    error = math.inf
    for step in range(steps):
        f = -damp_f * reg * torch.logsumexp((g - cost) / reg + log_share, 1)
        g_next = -damp_g * reg * torch.logsumexp((f[:, None] - cost) / reg + log_share, 0)
        if step % 10 == 9:  # what one more step would change: without damping, the error of the column marginal
            mass = torch.logsumexp((f[:, None] + g - cost) / reg + 2 * log_share, 0)
            error = float((torch.exp(mass + (g_next - g) / reg) - mass.exp()).abs().sum()) / 2
        g = g_next
        if error < tolerance:
            return (f[:, None] + g - cost) / reg + 2 * log_share
    raise RuntimeError(
        f"the entropic plan of a {len(cost)} x {len(cost)} table has an error of {error:.1e} after {steps} steps, "
        f"above the tolerance {tolerance:.1e}. Raise reg ({reg / unit:g}) or steps, or use ExactPlan()."
    )


def _damping(keep: float, reg: float) -> float:
    """How far a potential follows its soft minimum: keep / (keep + reg)."""
    return 1.0 if math.isinf(keep) else keep / (keep + reg)
