"""How rows are learned and drawn: straight paths from independent noise, with the velocity predicted and classes that
fall from a mask; some cells of some rows are given, so that any cell can be filled from any others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from fm_science.couplings import Independent, Inpainting, Transport
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import Guided
from fm_science.objectives import BetaTime, FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Semigroup, UniformTime
from fm_science.objectives import Objective as Loss
from fm_science.objectives.laws import FlowMapLoss
from fm_science.solvers import RK4, Euler, FlowMap, Heun, Solver

from .conditional import HeldCells
from .data import SMALL, Summary
from .network import RowNetwork

FEW = 1_000  # rows up to which the network is narrow


@dataclass(frozen=True)
class Network:
    """A residual perceptron that sees all cells of a row."""

    width: int | None = option(None, "hidden features; none: 96, 192 or 256 for up to 1,000, 5,000 or more rows", low=4)
    layers: int = option(4, "residual blocks", low=1)
    waves: int = option(6, "lengths of waves through which a number is seen", low=0)
    dropout: float = option(0.0, "share of hidden features that training hides", low=0, high=0.9)


@dataclass(frozen=True)
class Path:
    """Rows travel along straight lines and shortest arcs; there is nothing to choose yet."""


@dataclass(frozen=True)
class Coupling:
    """Which noise meets which row."""

    kind: str = option(
        "independent", "as drawn, or shortest in a batch (numbers and angles alone, nothing given or missing)",
        choices=("independent", "ot"),
    )  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: flow matching, alone or beside a law of flow maps."""

    kind: str = option("flow_matching", "flow_map: also learn to jump", choices=("flow_matching", "flow_map"))
    law: str = option("lagrangian", "what a flow map is taught by", choices=("lagrangian", "mean_flow", "semigroup"))
    given: float = option(
        0.3, "share of the rows of which random cells are given; 0: cells cannot be filled", low=0, high=1
    )
    late: float = option(1.5, "times are drawn from Beta(late, 1); 1: evenly", low=0.1)
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


def network(o: Network, summary: Summary, two_times: bool) -> nn.Module:
    """The network, narrower where there are few rows."""
    width = o.width or (96 if summary.rows <= FEW else 192 if summary.rows <= SMALL else 256)
    return RowNetwork(summary.encoding, width, o.layers, o.waves, o.dropout, two_times)


def objective(o: Objective, pairs: Coupling, summary: Summary) -> Loss:
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
        coupling = Inpainting(choose, partial=Transport(ignore=("observed",)))
    count = len(encoding.order)
    weights = {"numbers": len(encoding.linear) / count} | dict.fromkeys(encoding.others, 1 / count)
    times = UniformTime() if o.late == 1 else BetaTime(o.late, 1.0)
    drop = {"label": o.drop} if encoding.condition is not None and o.drop else {}
    matching = FlowMatching(coupling=coupling, times=times, parts=weights, condition_dropout=drop)
    return FlowMapMatching(matching, LAWS[o.law]) if o.kind == "flow_map" else matching


def sampler(o: Sample, trained: Objective, summary: Summary) -> Sampler:
    """How rows are drawn: by a Runge-Kutta rule where something flows, by jumps of classes alone, or by a flow map."""
    parts = summary.encoding
    solver: Solver = RK4() if parts.continuous else Heun()
    if not (parts.linear or any(not parts.columns[k].classes for k in parts.others.values())):
        solver = Euler()
    if trained.kind == "flow_map":
        solver = FlowMap()
    steps = max(1, o.steps // 2) if isinstance(solver, RK4) else o.steps
    return Sampler(solver, steps, wrap_network=None if o.guidance == 1 else partial(Guided, scale=o.guidance))
