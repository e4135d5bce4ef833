"""How rows are learned and drawn: straight paths from independent noise, with the velocity predicted and classes that
fall from a mask; some cells of some rows are given, so that any cell can be filled from any others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fm_science.couplings import Independent, Inpainting, Transport
from fm_science.couplings.ranks import RANKS, gatherer
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import Guided, Potential
from fm_science.objectives import (
    BetaTime,
    ChainTime,
    FlowMapMatching,
    FlowMatching,
    Lagrangian,
    MeanFlow,
    Semigroup,
    UniformTime,
)
from fm_science.objectives import Objective as Loss
from fm_science.objectives.laws import FlowMapLoss
from fm_science.paths import Gaussian, ProductPath
from fm_science.predictions import Endpoint, Noise, Prediction, Score, Velocity
from fm_science.schedules import VE, VP, Betas, Cosine, Linear, LipmanOT, Schedule, SubVP, Trigonometric
from fm_science.solvers import DDPM, RK4, Euler, FlowMap, Heun, Solver, log_snr_grid
from fm_science.spaces import Euclidean

from . import objectives
from .conditional import HeldCells
from .data import SMALL, Summary
from .network import RowNetwork, RowPotential

FEW = 1_000  # rows up to which the network is narrow


SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(), "lipman_ot": LipmanOT(), "trigonometric": Trigonometric(), "cosine": Cosine(), "vp": VP(),
    "subvp": SubVP(), "ve": VE(0.01, 100.0), "betas": Betas(),
}  # fmt: skip
PREDICTIONS: dict[str, Prediction] = {
    "velocity": Velocity(), "endpoint": Endpoint(), "noise": Noise(), "score": Score(),
}  # fmt: skip
KINDS = (
    "flow_matching", "flow_map", "score", "ddpm", "action_matching", "maximum_likelihood", "reflow", "distil",
)  # fmt: skip
PLAIN = ("flow_map", "reflow", "distil")  #: kinds for straight paths and the velocity
USUAL = {"score": ("vp", "score"), "ddpm": ("betas", "noise")}  #: path and prediction of an objective


@dataclass(frozen=True)
class Network:
    """A residual perceptron that sees all cells of a row."""

    width: int | None = option(
        None, "hidden features; none: 96, 192 or 256 for up to 1,000, 5,000 or more rows",
        low=4, high=16_384,
    )  # fmt: skip
    layers: int = option(4, "residual blocks", low=1, high=1_000)
    waves: int = option(6, "lengths of waves through which a number is seen", low=0)
    dropout: float = option(0.0, "share of hidden features that training hides", low=0, high=0.9)


@dataclass(frozen=True)
class Path:
    """How numbers travel from noise to data, and what the network tells of them. Angles take shortest arcs, classes
    fall from a mask."""

    kind: str | None = option(
        None, "none: linear, or vp for the objective score and betas for ddpm", choices=tuple(SCHEDULES)
    )
    predicts: str | None = option(
        None, "none: velocity, or what the objectives score and ddpm are named for", choices=tuple(PREDICTIONS)
    )


@dataclass(frozen=True)
class Coupling:
    """Which noise meets which row."""

    kind: str = option(
        "independent", "as drawn, or shortest in a batch (numbers and angles alone, nothing given or missing)",
        choices=("independent", "ot"),
    )  # fmt: skip
    ranks: str = option(
        "own", "ot over several processes: pairs within the batch of each, or over the batches of all of them",
        choices=RANKS,
    )  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What a training step minimises."""

    kind: str = option(
        "flow_matching", "flow_map: also learn to jump; for the others see docs/lineage.md", choices=KINDS
    )
    law: str = option("lagrangian", "what a flow map is taught by", choices=("lagrangian", "mean_flow", "semigroup"))
    given: float = option(
        0.3, "share of the rows of which random cells are given; 0: cells cannot be filled", low=0, high=1
    )
    late: float = option(1.5, "times are drawn from Beta(late, 1); 1: evenly", low=0.1)
    score: str = option("denoising", "how kind=score learns", choices=("denoising", "sliced", "hyvarinen"))
    kinetic: float = option(0.0, "maximum_likelihood: weight of the kinetic energy", low=0)
    jacobian: float = option(0.0, "maximum_likelihood: weight of the squared derivative of the velocity", low=0)
    trace: str = option("sampled", "maximum_likelihood: how the divergence is found", choices=("sampled", "exact"))
    walk: int = option(8, "maximum_likelihood: steps of a walk from rows to noise", low=1)
    teacher: str | None = option(None, "reflow, distil: run or model whose noise and rows are learned")
    drop: float = option(0.1, "share of rows whose condition is hidden, so that it can be guided", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is drawn when nothing else is said."""

    label: str | None = option(None, "value of the column data.condition; none: as in training")
    balanced: bool = option(False, "draw each class of data.condition equally often")
    guidance: float = option(1.0, "how strongly the condition is followed; 1: as learned", low=0)
    given: str | None = option(None, "file of rows whose empty cells are filled")
    draws: int = option(1, "given: how often each row is filled", low=1)
    steps: int = option(50, "steps of the solver", low=1)


LAWS: dict[str, FlowMapLoss] = {"lagrangian": Lagrangian(), "mean_flow": MeanFlow(), "semigroup": Semigroup()}


def chosen(o: Path, trained: Objective) -> tuple[Schedule, Prediction]:
    """The clock of the numbers and what the network tells of them.

    Raises:
        OptionError: where the two do not go together, or the objective takes others.
    """
    kind, predicts = USUAL.get(trained.kind, ("linear", "velocity"))
    kind, predicts = o.kind or kind, o.predicts or predicts
    schedule, told = SCHEDULES[kind], PREDICTIONS[predicts]
    if not told.defined_at_zero_signal and schedule.ends[0] == 0:
        raise OptionError(
            f"path.predicts={predicts} says nothing where there is no signal, as at the start of path.kind={kind}: "
            "choose vp, subvp, ve or betas"
        )
    needed = {"score": "score", "ddpm": "noise"}.get(trained.kind)
    if needed is not None and predicts != needed:
        raise OptionError(f"objective.kind={trained.kind} learns the {needed}: leave path.predicts out")
    if trained.kind == "ddpm" and kind != "betas":
        raise OptionError("objective.kind=ddpm has a discrete chain: leave path.kind out, or take kind=flow_matching")
    if trained.kind == "action_matching" and predicts != "velocity":
        raise OptionError("objective.kind=action_matching learns the velocity: leave path.predicts out")
    if trained.kind in PLAIN and (kind, predicts) != ("linear", "velocity"):
        raise OptionError(f"objective.kind={trained.kind} takes straight paths: leave path.kind and path.predicts out")
    return schedule, told


def path(o: Path, trained: Objective, summary: Summary) -> ProductPath:
    """How rows travel."""
    whole, (schedule, predicts) = summary.encoding.path(), chosen(o, trained)
    if not summary.encoding.linear or (schedule, predicts) == (Linear(), Velocity()):
        return whole
    return whole.replaced(numbers=Gaussian(Euclidean(1), schedule, predicts))


def network(o: Network, way: Path, trained: Objective, summary: Summary) -> nn.Module:
    """The network, narrower where there are few rows."""
    schedule, predicts = chosen(way, trained)
    width = o.width or (96 if summary.rows <= FEW else 192 if summary.rows <= SMALL else 256)
    kind = RowPotential if trained.kind == "action_matching" else RowNetwork
    two_times = trained.kind == "flow_map"
    net = kind(summary.encoding, width, o.layers, o.waves, o.dropout, two_times, schedule, predicts)
    return Potential(net, path(way, trained, summary).space) if trained.kind == "action_matching" else net


def objective(o: Objective, way: Path, pairs: Coupling, summary: Summary) -> Loss:
    """What a training step minimises, on rows some of whose cells are given or missing.

    Raises:
        OptionError: where the rows or other options do not suit the objective.
    """
    if pairs.kind != "independent" and o.kind not in ("flow_matching", "flow_map"):
        raise OptionError(f"coupling.kind={pairs.kind} is for flow matching; objective.kind={o.kind} pairs as drawn")
    choose = HeldCells(summary.encoding, o.given, summary.blur)
    if o.kind == "score" and o.score != "denoising":
        return objectives.implicit_score(o, choose, chosen(way, o)[0])
    if o.kind == "action_matching":
        return objectives.action(o, choose)
    if o.kind == "maximum_likelihood":
        return objectives.likelihood(o, choose)
    if o.kind in ("reflow", "distil"):
        return objectives.taught(o, choose, _shares(summary))
    return matching(o, pairs, summary)


def _shares(summary: Summary) -> dict[str, float]:
    """How much each part counts: as much as it has columns."""
    encoding = summary.encoding
    count = len(encoding.order)
    return {"numbers": len(encoding.linear) / count} | dict.fromkeys(encoding.others, 1 / count)


def matching(o: Objective, pairs: Coupling, summary: Summary) -> Loss:
    """Flow matching of rows some of whose cells are given or missing, each part weighed by its columns.

    Raises:
        OptionError: for optimal transport of rows with given cells or classes: noise that is exchanged would depend on
            them. Raised also where a condition takes part.
    """
    encoding = summary.encoding
    choose = HeldCells(encoding, o.given, summary.blur)
    coupling = Inpainting(choose, partial=Independent())
    if pairs.kind == "ot":
        if o.given or not encoding.continuous or encoding.condition is not None:
            raise OptionError(
                "coupling.kind=ot pairs rows of numbers and angles: set objective.given=0, and leave classes and "
                "data.condition out"
            )
        coupling = Inpainting(choose, partial=Transport(ignore=("observed",), gather=gatherer(pairs.ranks)))
    times: Callable[[int], Tensor] = UniformTime() if o.late == 1 else BetaTime(o.late, 1.0)
    if o.kind == "ddpm":
        times = ChainTime(Betas().steps)
    drop = {"label": o.drop} if encoding.condition is not None and o.drop else {}
    plain = FlowMatching(coupling=coupling, times=times, parts=_shares(summary), condition_dropout=drop)
    return FlowMapMatching(plain, LAWS[o.law]) if o.kind == "flow_map" else plain


def sampler(o: Sample, way: Path, trained: Objective, summary: Summary) -> Sampler:
    """How rows are drawn: by a Runge-Kutta rule where something flows, by jumps of classes alone, by a flow map, or by
    the chain of DDPM. On diffusion paths steps are equal in the log of the ratio of signal to noise."""
    parts = summary.encoding
    solver: Solver = RK4() if parts.continuous else Heun()
    if not (parts.linear or any(not parts.columns[k].classes for k in parts.others.values())):
        solver = Euler()
    if trained.kind == "flow_map":
        solver = FlowMap()
    if trained.kind == "ddpm" and parts.linear:
        solver = DDPM()
    if trained.kind == "distil":
        return Sampler(Euler(), 1, wrap_network=None if o.guidance == 1 else partial(Guided, scale=o.guidance))
    steps: int | Tensor = max(1, o.steps // 2) if isinstance(solver, RK4) else o.steps
    schedule, _ = chosen(way, trained)
    if parts.linear and schedule.ends[0] > 0 and int(steps) > 3 and trained.kind != "ddpm":
        steps = log_snr_grid(int(steps), schedule)
    return Sampler(solver, steps, wrap_network=None if o.guidance == 1 else partial(Guided, scale=o.guidance))
