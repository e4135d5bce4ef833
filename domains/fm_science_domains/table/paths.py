"""How numbers travel from noise to data: straight lines, diffusions, and lines with noise of their own in the middle.

A path of the first two kinds has a clock and a prediction. A stochastic interpolant has a clock and a spread of its
noise; the network tells its velocity and that noise. With the noise of a Brownian bridge and ends paired by entropic
transport it is the Schrödinger bridge. Angles take shortest arcs and classes fall from a mask, whatever numbers do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.paths import Gaussian, Interpolant, ProductPath, brownian, bump
from fm_science.predictions import Endpoint, Noise, Prediction, Score, Velocity
from fm_science.schedules import VE, VP, Betas, Cosine, Linear, LipmanOT, Schedule, SubVP, Trigonometric
from fm_science.spaces import Euclidean

from .data import Summary
from .maps import MAPS

if TYPE_CHECKING:
    from .recipe import Objective

SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(), "lipman_ot": LipmanOT(), "trigonometric": Trigonometric(), "cosine": Cosine(), "vp": VP(),
    "subvp": SubVP(), "ve": VE(0.01, 100.0), "betas": Betas(),
}  # fmt: skip
NOISY: dict[str, Callable[[float], Callable[[Tensor], Tensor]]] = {
    "interpolant": bump, "schroedinger": brownian,
}  #: kinds with noise in the middle, and the law of its spread  # fmt: skip
PREDICTIONS: dict[str, Prediction] = {
    "velocity": Velocity(), "endpoint": Endpoint(), "noise": Noise(), "score": Score(),
}  # fmt: skip
USUAL = {"score": ("vp", "score"), "ddpm": ("betas", "noise")}  #: path and prediction of an objective
STRAIGHT = ("flow_map", "reflow", "distil", "jko", *MAPS)  #: objectives for straight paths and the velocity


@dataclass(frozen=True)
class Path:
    """How numbers travel from noise to data, and what the network tells of them. Angles take shortest arcs, classes
    fall from a mask."""

    kind: str | None = option(
        None, "none: linear, or vp for the objective score and betas for ddpm", choices=(*SCHEDULES, *NOISY)
    )
    predicts: str | None = option(
        None, "none: velocity, or what the objectives score and ddpm are named for", choices=tuple(PREDICTIONS)
    )
    sigma: float = option(
        1.0, "interpolant: noise half way; schroedinger: noise of the Brownian motion a unit of root time",
        unit="spreads of the columns", low=0.1, high=100,
    )  # fmt: skip


def spread(o: Path) -> Callable[[Tensor], Tensor] | None:
    """The spread of the noise in the middle, ``t (B,) -> (B,)``; ``None`` on paths without."""
    return NOISY[o.kind](o.sigma) if o.kind in NOISY else None


def chosen(o: Path, trained: Objective) -> tuple[Schedule, Prediction]:
    """The clock of the numbers and what the network tells of them.

    Raises:
        OptionError: where the two do not go together, or the objective takes others.
    """
    kind, predicts = USUAL.get(trained.kind, ("linear", "velocity"))
    kind, predicts = o.kind or kind, o.predicts or predicts
    if kind in NOISY:
        if trained.kind != "flow_matching" or predicts != "velocity":
            raise OptionError(f"path.kind={kind} is for objective.kind=flow_matching and path.predicts=velocity")
        return Linear(), Velocity()
    schedule, prediction = SCHEDULES[kind], PREDICTIONS[predicts]
    if not prediction.defined_at_zero_signal and schedule.ends[0] == 0:
        raise OptionError(
            f"path.predicts={predicts} says nothing where there is no signal, as at the start of path.kind={kind}: "
            "choose vp, subvp, ve or betas"
        )
    needed = {"score": "score", "ddpm": "noise"}.get(trained.kind)
    if needed is not None and predicts != needed:
        raise OptionError(f"objective.kind={trained.kind} learns the {needed}: leave path.predicts out")
    if trained.kind == "ddpm" and kind != "betas":
        raise OptionError("objective.kind=ddpm has a discrete chain: leave path.kind out, or take kind=flow_matching")
    if (trained.kind == "action_matching" or trained.potential) and predicts != "velocity":
        raise OptionError(f"objective.kind={trained.kind} learns the velocity: leave path.predicts out")
    if trained.kind in STRAIGHT and (kind, predicts) != ("linear", "velocity"):
        raise OptionError(f"objective.kind={trained.kind} takes straight paths: leave path.kind and path.predicts out")
    return schedule, prediction


def path(o: Path, trained: Objective, summary: Summary) -> ProductPath:
    """How rows travel."""
    whole, (schedule, predicts) = summary.encoding.path(), chosen(o, trained)
    gamma = spread(o)
    if gamma is not None and summary.encoding.linear:
        return whole.replaced(numbers=Interpolant(Euclidean(1), schedule, gamma))
    if not summary.encoding.linear or (schedule, predicts) == (Linear(), Velocity()):
        return whole
    return whole.replaced(numbers=Gaussian(Euclidean(1), schedule, predicts))
