"""Entropy along a flow: how uncertain the state is on its way from noise to data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fm_science.likelihood.density import _augmented, suitable
from fm_science.likelihood.divergence import Divergence, ExactTrace
from fm_science.paths import Path
from fm_science.priors import Prior
from fm_science.state import State

if TYPE_CHECKING:
    from fm_science.solvers import Solver


def entropy_along(
    path: Path, predict: Callable[..., Any], x: State, prior: Prior, solver: Solver, times: Tensor,
    rule: Divergence = ExactTrace(),
) -> Tensor:  # fmt: skip
    """The differential entropy of the state at each of ``times`` ``(T,)``, in nats: the mean of -log p over draws ``x``
    of the noise, which grows by E[div u] dt on the way (Chen et al. 2018, eq. 8).

    Args:
        path: a bound path on a smooth space.
        predict: the network, ``(x, t) -> raw``.
        x: draws of the state at t = 0.
        prior: their law, with a density.
        solver: any solver for smooth spaces.
        times: increasing, from 0; its steps are those of the walk.
        rule: how the divergence is found.

    Raises:
        TypeError: on spaces that are not smooth, and for priors without a density.
        ValueError: for times that do not start at 0.
    """
    suitable(path, solver)
    start = prior.log_prob(path.space, x)
    if float(times[0]) != 0:
        raise ValueError(f"times starts at {float(times[0]):.4g}: the walk starts from noise, at t = 0.")
    path.check(times)
    whole, field = _augmented(path, predict, rule, x, forwards=True)
    begin = {"state": x, "logp": start[:, None], "energy": torch.zeros_like(start)[:, None]}
    walk = solver.trajectory(whole, field, begin, times)
    return -torch.stack([start.mean(), *(place["logp"].mean() for place in walk)])
