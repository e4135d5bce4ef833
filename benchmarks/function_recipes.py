"""Recipes that train flows of functions on equal terms: the published one, the domain's own, and their data sets.

Both see the same functions in the same order, for the same number of steps; a recipe says what differs: the noise, the
coupling, what is predicted, the network's depth, the learning rate and the walk.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fm_science.data import StepBatches, collate
from fm_science.domain import Domain
from fm_science.flow import Flow
from fm_science.solvers import Adaptive, Heun, Solver
from fm_science_domains.function import build

SIZE = {"width": 32, "layers": 4}
SMALL = {"width": 24, "layers": 3, "modes": 16, "margin": 0.125}  # noise with the covariance of data leaves less to do


@dataclass(frozen=True)
class Recipe:
    """How to train and draw.

    Attributes:
        groups: options of the domain.
        lr, fall: learning rate, and how it falls: "cosine" or "step" to a tenth half-way.
        ema: decay of averaged weights; 0: none.
        solver, steps: the walk.
    """

    groups: Mapping[str, Mapping[str, Any]]
    lr: float = 2e-3
    fall: str = "cosine"
    ema: float = 0.998
    solver: Solver = field(default_factory=Heun)
    steps: int = 8


def published(slow: float, modes: int) -> Recipe:
    """The recipe of functional flow matching, with time divided by ``slow``."""
    groups = {
        "data": {"scale": "none"},
        "network": {**SIZE, "modes": modes, "clock": "channel", "slow": slow, "margin": 0.0},
        "path": {"noise": "matern", "nu": 0.5, "length": 0.01, "std": 0.1**0.5, "predicts": "velocity"},
        "coupling": {"kind": "independent"},
        "objective": {"stratified": False},
    }
    return Recipe(groups, 1e-3, "step", 0.0, Adaptive(1e-5, 1e-5), 1)


def ours(**groups: Mapping[str, Any]) -> Recipe:
    """The defaults of the domain with a network that costs no more than the published one."""
    return Recipe({"network": SMALL, **groups}, lr=4e-3)


@dataclass(frozen=True)
class Case:
    """A data set: options of the domain, modes of the operators, functions a batch."""

    data: Mapping[str, Any]
    modes: int
    batch: int


def cases(folder: Path | None, scratch: Path) -> dict[str, Case]:
    """The data sets, scaled as the recipe does: AEMET to [-3, 3], economy by its row means and to [-1, 1]."""
    found = {"mogp": Case({"source": "mogp", "grid": 64, "train": 4000, "held_out": 4000}, 24, 64)}
    aemet = None if folder is None else folder / "functions_aemet.npz"
    economy = None if folder is None else folder / "functions_economy.npz"
    if aemet is not None and aemet.is_file():
        x = np.load(aemet)["x"]
        np.savez(scratch / "aemet.npz", x=6 * (x - x.min()) / (x.max() - x.min()) - 3)
        found["aemet"] = Case({"source": str(scratch / "aemet.npz"), "share": 0.0}, 32, 32)
    if economy is not None and economy.is_file():
        x = np.load(economy)["econ1"]
        x = x / x.mean(1, keepdims=True)
        np.savez(scratch / "economy.npz", x=2 * (x - x.min()) / (x.max() - x.min()) - 1)
        found["economy"] = Case({"source": str(scratch / "economy.npz"), "share": 0.0}, 24, 32)
    return found


def made(case: Case, recipe: Recipe, seed: int) -> Domain:
    """The domain of a case under a recipe, with first weights from the seed."""
    torch.manual_seed(seed)
    groups = {name: dict(values) for name, values in recipe.groups.items()}
    groups["data"] = {**groups.get("data", {}), **case.data, "batch": case.batch}
    return build(**groups)


def trained(
    domain: Domain, recipe: Recipe, steps: int, seed: int, seconds: float = math.inf
) -> tuple[Flow, int, float]:  # fmt: skip
    """The flow after so many steps or seconds of processor time, whichever is first, with the steps and seconds."""
    flow = domain.flow()
    shadow = copy.deepcopy(flow) if recipe.ema else flow
    optimizer = torch.optim.Adam(flow.parameters(), recipe.lr, betas=(0.9, 0.99), foreach=True)
    space, data = domain.path.space, domain.data
    torch.manual_seed(seed)
    start, step = time.process_time(), 0
    for step, rows in enumerate(StepBatches(data.train.sizes, data.batch, 0, seed)):
        spent = max(step / steps, (time.process_time() - start) / seconds)
        if spent >= 1:
            break
        pace = 0.5 * (1 + math.cos(math.pi * spent)) if recipe.fall == "cosine" else (1.0 if spent < 0.5 else 0.1)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, (step + 1) / 50) * pace
        x1, context = collate(space, [data.train[i] for i in rows])
        loss = torch.stack([v.mean() for v in domain.objective(flow, x1, context).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        if recipe.ema:
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0, foreach=True)
        optimizer.step()
        if recipe.ema:
            with torch.no_grad():
                keep = min(recipe.ema, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(shadow.parameters()), list(flow.parameters()), 1 - keep)
    shadow.independent = flow.independent
    return shadow.eval(), step, time.process_time() - start


def drawn(domain: Domain, flow: Flow, recipe: Recipe, n: int, seed: int) -> list[Any]:
    """``n`` samples, in batches of 100."""
    found: list[Any] = []
    for first in range(0, n, 100):
        context = domain.request(min(100, n - first))
        found += domain.decode(flow.sample(context, recipe.solver, recipe.steps, seed=1000 * seed + first), context)
    return found
