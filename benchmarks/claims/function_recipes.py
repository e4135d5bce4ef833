"""Recipes that train flows of functions on equal terms: the published one, the domain's own, and their data sets.

Both see the same functions in the same order, for the same number of steps; a recipe says what differs: the noise, the
coupling, what is predicted, the network's depth, the learning rate and the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.training import Budget, cosine, total, train
from fm_science.data import StepBatches, collate
from fm_science.domain import Domain
from fm_science.flow import Flow
from fm_science.solvers import Adaptive, Heun, Solver
from fm_science_domains.function import build

Options = Mapping[str, Any]
SMALL = {"width": 24, "layers": 3, "modes": 16, "margin": 0.125}  # noise with the covariance of data leaves less to do
Arrays = Mapping[str, np.ndarray]
SETS: dict[str, tuple[str, Callable[[Arrays], np.ndarray]]] = {
    "aemet": ("functions_aemet.npz", lambda a: a["x"]),
    "economy": ("functions_economy.npz", lambda a: a["econ1"] / a["econ1"].mean(1, keepdims=True)),
    "meats": ("functions_spectra.npz", lambda a: a["meats_nir"]),
    "coffee": ("functions_spectra.npz", lambda a: a["coffee_spectra"]),
    "ecg200": ("functions_ecg_ucr.npz", lambda a: np.concatenate([a["TRAIN_x"], a["TEST_x"]])),
    "ecg5000": ("functions_ecg_ucr.npz", lambda a: a["ecg5000_TRAIN_x"]),
}


@dataclass(frozen=True)
class Recipe:
    """How to train and draw.

    Attributes:
        groups: options of the domain.
        lr, half_way: learning rate, and whether it falls to a tenth half-way in place of a cosine.
        decay: of averaged weights; 0: none, and gradients of any size.
        solver, steps: the walk.
    """

    groups: Mapping[str, Options]
    lr: float = 4e-3
    half_way: bool = False
    decay: float = 0.998
    solver: Solver = field(default_factory=Heun)
    steps: int = 8


def published(slow: float, modes: int) -> Recipe:
    """The recipe of functional flow matching, with time divided by ``slow``."""
    network = {"width": 32, "layers": 4, "modes": modes, "clock": "channel", "slow": slow, "margin": 0.0}
    groups = {
        "data": {"scale": "none"}, "network": network,
        "path": {"noise": "matern", "nu": 0.5, "length": 0.01, "std": 0.1**0.5, "predicts": "velocity"},
        "coupling": {"kind": "independent"}, "objective": {"stratified": False},
    }  # fmt: skip
    return Recipe(groups, 1e-3, True, 0.0, Adaptive(1e-5, 1e-5), 1)


def ours(**groups: Options) -> Recipe:
    """The defaults of the domain with a network that costs no more than the published one."""
    return Recipe({"network": SMALL, **groups})


def recipes(modes: int) -> dict[str, Recipe]:
    """What is compared, by name."""
    return {"ours": ours(), "published, time seen": published(1.0, modes),
            "published, time / 1000": published(1000.0, modes)}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A data set: options of the domain, modes of the published operator, functions a batch."""

    data: Options
    modes: int
    batch: int


MIXTURE = Case({"source": "mogp", "grid": 64, "train": 4000, "held_out": 4000}, 24, 64)


def curves(name: str, folder: Path | None) -> np.ndarray | None:
    """The curves ``(M, N)`` of a set; ``None`` where the folder does not hold it."""
    file, pick = SETS[name]
    if folder is None or not (folder / file).is_file():
        return None
    with np.load(folder / file) as arrays:
        return pick(arrays)


def scaled(name: str, folder: Path | None, scratch: Path) -> Case | None:
    """A set as the published recipe scales it: AEMET to [-3, 3], economy by its row means and to [-1, 1]."""
    values = curves(name, folder)
    if values is None:
        return None
    modes, top = {"aemet": (32, 3.0), "economy": (24, 1.0)}[name]
    unit = (values - values.min()) / (values.max() - values.min())
    np.savez(scratch / f"{name}.npz", x=2 * top * unit - top)
    return Case({"source": str(scratch / f"{name}.npz"), "share": 0.0}, modes, 32)


def made(case: Case, recipe: Recipe, seed: int) -> Domain:
    """The domain of a case under a recipe, with first weights from the seed."""
    torch.manual_seed(seed)
    groups = {name: dict(values) for name, values in recipe.groups.items()}
    groups["data"] = {**groups.get("data", {}), **case.data, "batch": case.batch}
    return build(**groups)


def trained(domain: Domain, recipe: Recipe, steps: int, seed: int) -> tuple[Flow, float]:
    """The flow after so many steps, and the processor seconds they took."""
    flow, space, data, budget = domain.flow(), domain.path.space, domain.data, Budget(steps)
    optimizer = torch.optim.Adam(flow.parameters(), recipe.lr, betas=(0.9, 0.99), foreach=True)
    torch.manual_seed(seed)
    rows = iter(StepBatches(data.train.sizes, data.batch, 0, seed))

    def loss(step: int) -> Tensor:
        x1, context = collate(space, [data.train[i] for i in next(rows)])
        return total(domain.objective(flow, x1, context))

    def two_levels(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (1.0 if budget.used(step) < 0.5 else 0.1)

    pace = LambdaLR(optimizer, two_levels) if recipe.half_way else cosine(optimizer, budget, 0.0, warm_up=50)
    train(flow, loss, optimizer, pace, budget, clip=1.0 if recipe.decay else float("inf"), decay=recipe.decay)
    return flow, budget.spent


def drawn(domain: Domain, flow: Flow, recipe: Recipe, n: int, seed: int) -> list[Any]:
    """``n`` samples, in batches of 100."""
    found: list[Any] = []
    for first in range(0, n, 100):
        context = domain.request(min(100, n - first))
        found += domain.decode(flow.sample(context, recipe.solver, recipe.steps, seed=1000 * seed + first), context)
    return found


