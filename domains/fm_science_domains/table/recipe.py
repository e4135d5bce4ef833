"""How rows are learned and drawn: straight paths from independent noise, with the velocity predicted and classes that
fall from a mask; some cells of some rows are given, so that any cell can be filled from any others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fm_science.couplings import Coupling as Pairing
from fm_science.couplings import ExactPlan, Independent, Inpainting, Sinkhorn, Transport
from fm_science.couplings.ranks import RANKS, gatherer
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import Blocks, Guided, Potential
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
from fm_science.schedules import Betas
from fm_science.solvers import DDPM, RK4, Euler, FlowMap, Heun, Solver, log_snr_grid

from . import maps, objectives
from .conditional import HeldCells
from .data import SMALL, Summary
from .encoding import Encoding
from .maps import MAPS, TRANSFORMS
from .network import INSIDE, AtRest, RowNetwork, RowPotential
from .paths import NOISY, Path, chosen, path, spread

FEW = 1_000  # rows up to which the network is narrow


KINDS = (
    "flow_matching", "flow_map", "score", "ddpm", "action_matching", "maximum_likelihood", "reflow", "distil",
    "normalising_flow", "icnn", "jko",
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A residual perceptron that sees all cells of a row."""

    width: int | None = option(
        None, "hidden features; none: 96, 192 or 256 for up to 1,000, 5,000 or more rows",
        low=4, high=16_384,
    )  # fmt: skip
    layers: int = option(4, "residual blocks, or layers of a normalising flow", low=1, high=1_000)
    waves: int = option(6, "lengths of waves through which a number is seen", low=0)
    transform: str = option("spline", "normalising_flow: kind of layers", choices=TRANSFORMS)
    dropout: float = option(0.0, "share of hidden features that training hides", low=0, high=0.9)


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
    hjb: float = option(0.0, "maximum_likelihood: weight of the Hamilton-Jacobi-Bellman residual of a potential", low=0)
    adjoint: bool = option(False, "maximum_likelihood: gradients in constant memory, by the adjoint equation")
    trace: str = option("sampled", "maximum_likelihood: how the divergence is found", choices=("sampled", "exact"))
    walk: int = option(8, "maximum_likelihood: steps of a walk from rows to noise", low=1)
    inner: int = option(4, "icnn: steps of the map for one of the potential on the data", low=1)
    blocks: int = option(4, "jko: steps down the relative entropy, a network each", low=1, high=1_000)
    block_steps: int = option(500, "jko: training steps of a block; the last keeps its turn", low=1)
    size: float = option(1.0, "jko: size of a step down", low=1e-4)
    teacher: str | None = option(None, "reflow, distil: run or model whose noise and rows are learned")
    drop: float = option(0.1, "share of rows whose condition is hidden, so that it can be guided", low=0, high=1)

    @property
    def potential(self) -> bool:
        """Whether maximum likelihood trains a potential, as OT-Flow does."""
        return self.kind == "maximum_likelihood" and self.hjb > 0

    @property
    def fills(self) -> bool:
        """Whether cells can be filled: some were given in training."""
        return self.given > 0 and self.kind not in MAPS


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


def network(o: Network, way: Path, trained: Objective, summary: Summary) -> nn.Module:
    """The network, narrower where there are few rows."""
    if trained.kind in MAPS:
        return maps.network(o, summary.encoding, trained.kind)
    schedule, predicts = chosen(way, trained)
    width = o.width or (96 if summary.rows <= FEW else 192 if summary.rows <= SMALL else 256)
    scalar = trained.kind == "action_matching" or trained.potential
    kind = RowPotential if scalar else RowNetwork
    two_times = trained.kind == "flow_map"

    def one() -> RowNetwork:
        return kind(summary.encoding, width, o.layers, o.waves, o.dropout, two_times, schedule, predicts, spread(way))

    if trained.kind == "jko":
        return Blocks([AtRest(one()) for _ in range(trained.blocks)])
    net = one()
    return Potential(net, path(way, trained, summary).space) if scalar else net


def objective(o: Objective, way: Path, pairs: Coupling, summary: Summary) -> Loss:
    """What a training step minimises, on rows some of whose cells are given or missing.

    Raises:
        OptionError: where the rows or other options do not suit the objective.
    """
    if pairs.kind != "independent" and o.kind not in ("flow_matching", "flow_map"):
        raise OptionError(f"coupling.kind={pairs.kind} is for flow matching; objective.kind={o.kind} pairs as drawn")
    if o.kind in MAPS:
        return maps.objective(o, summary.encoding, summary.blur)
    choose = HeldCells(summary.encoding, o.given, summary.blur)
    if o.kind == "score" and o.score != "denoising":
        return objectives.implicit_score(o, choose, chosen(way, o)[0])
    if o.kind == "action_matching":
        return objectives.action(o, choose)
    if o.kind == "jko":
        return objectives.descent(o, choose)
    if o.kind == "maximum_likelihood":
        return objectives.likelihood(o, choose)
    if o.kind in ("reflow", "distil"):
        return objectives.taught(o, choose, _shares(summary))
    return matching(o, way, pairs, summary)


def _shares(summary: Summary) -> dict[str, float]:
    """How much each part counts: as much as it has columns."""
    encoding = summary.encoding
    count = len(encoding.order)
    return {"numbers": len(encoding.linear) / count} | dict.fromkeys(encoding.others, 1 / count)


def matching(o: Objective, way: Path, pairs: Coupling, summary: Summary) -> Loss:
    """Flow matching of rows some of whose cells are given or missing, each part weighed by its columns.

    Raises:
        OptionError: for optimal transport of rows with given cells or classes: noise that is exchanged would depend on
            them. Raised also where a condition takes part.
    """
    encoding = summary.encoding
    choose = HeldCells(encoding, o.given, summary.blur)
    coupling = Inpainting(choose, partial=_pairs(o, way, pairs, encoding))
    times: Callable[[int], Tensor]
    if way.kind in NOISY:  # both ends alike; the velocity of a Brownian bridge has no variance at its ends
        times = UniformTime(INSIDE, 1 - INSIDE)
    elif o.kind == "ddpm":
        times = ChainTime(Betas().steps)
    else:
        times = UniformTime() if o.late == 1 else BetaTime(o.late, 1.0)
    drop = {"label": o.drop} if encoding.condition is not None and o.drop else {}
    plain = FlowMatching(coupling=coupling, times=times, parts=_shares(summary), condition_dropout=drop)
    return FlowMapMatching(plain, LAWS[o.law]) if o.kind == "flow_map" else plain


def _pairs(o: Objective, way: Path, pairs: Coupling, encoding: Encoding) -> Pairing:
    """Which noise meets which row: as drawn, at least cost, or as a Brownian motion would bring them together."""
    bridge = way.kind == "schroedinger"
    if pairs.kind == "independent" and not bridge:
        return Independent()
    free = encoding.continuous and encoding.condition is None and not o.given
    if bridge and (encoding.others or not free or pairs.kind != "independent"):
        raise OptionError(
            "path.kind=schroedinger pairs rows of numbers by its own entropic transport: set objective.given=0, and "
            "leave other columns, data.condition and coupling.kind out"
        )
    if not free:
        raise OptionError(
            "coupling.kind=ot pairs rows of numbers and angles: set objective.given=0, and leave classes and "
            "data.condition out"
        )
    plan = Sinkhorn(2 * way.sigma**2, relative=False) if bridge else ExactPlan()
    return Transport(ignore=("observed",), plan=plan, gather=gatherer(pairs.ranks))


def sampler(o: Sample, way: Path, trained: Objective, summary: Summary) -> Sampler:
    """How rows are drawn: by a Runge-Kutta rule where something flows, by jumps of classes alone, by a flow map, or by
    the chain of DDPM. On diffusion paths steps are equal in the log of the ratio of signal to noise."""
    parts = summary.encoding
    solver: Solver = RK4() if parts.continuous else Heun()
    if not (parts.linear or any(not parts.columns[k].classes for k in parts.others.values())):
        solver = Euler()
    if trained.kind in MAPS:
        return Sampler(FlowMap(), 1)
    if trained.kind == "flow_map":
        solver = FlowMap()
    if trained.kind == "ddpm" and parts.linear:
        solver = DDPM()
    if trained.kind == "distil":
        return Sampler(Euler(), 1, wrap_network=None if o.guidance == 1 else partial(Guided, scale=o.guidance))
    steps: int | Tensor = max(1, o.steps // 2) if isinstance(solver, RK4) else o.steps
    if trained.kind == "jko":  # blocks end where steps do
        steps = trained.blocks * max(2, -(-int(steps) // trained.blocks))
    schedule, _ = chosen(way, trained)
    if parts.linear and schedule.ends[0] > 0 and int(steps) > 3 and trained.kind != "ddpm":
        steps = log_snr_grid(int(steps), schedule)
    return Sampler(solver, steps, wrap_network=None if o.guidance == 1 else partial(Guided, scale=o.guidance))
