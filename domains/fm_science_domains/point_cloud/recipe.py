"""How clouds are learned and drawn: straight paths of centred clouds from a Gaussian, with the velocity predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fm_science.couplings import Coupling as Pairing
from fm_science.couplings import Independent, InWorkers, Transport
from fm_science.domain import option
from fm_science.networks import EGNN
from fm_science.objectives import FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Semigroup, UniformTime
from fm_science.objectives.laws import Law
from fm_science.solvers import RK4, FlowMap, Solver
from fm_science.state import Context, State
from fm_science.symmetries import Permutations, Rotations, Symmetry

from .orbits import MOST, PlanarOrbits


@dataclass(frozen=True)
class Network:
    """An equivariant graph network on all pairs of points."""

    width: int = option(64, "channels of a point and of a message", low=4)
    layers: int = option(4, "rounds of messages", low=1)
    bumps: int = option(24, "bumps that describe a distance", low=2)
    reach: float = option(5.0, "largest distance with a bump, in spreads of the data", low=0.1)


@dataclass(frozen=True)
class Path:
    """Where clouds start."""

    std: float | None = option(None, "spread of the noise on each axis; none: 1 for systems, the data's for files")


@dataclass(frozen=True)
class Coupling:
    """Which noise meets which cloud."""

    kind: str = option(
        "ot", "pairs: as drawn; shortest of the batch; that, then each pair aligned in order and pose; all aligned",
        choices=("independent", "ot", "ot_aligned", "equivariant_ot"),
    )  # fmt: skip
    in_workers: bool = option(False, "pair in the processes that load data (data.workers)")


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: flow matching with evenly drawn times, alone or beside a law of flow maps, which
    teaches the network to jump (solver=flow_map)."""

    kind: str = option("flow_matching", "flow_map: also learn to jump", choices=("flow_matching", "flow_map"))
    law: str = option("lagrangian", "what a flow map is taught by", choices=("lagrangian", "mean_flow", "semigroup"))
    share: float = option(1.0, "part of a batch that a flow map is taught on", low=0.01, high=1)
    first_time: float = option(0.0, "earliest time that is trained", low=0, high=1)
    last_time: float = option(1.0, "latest time that is trained", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is drawn when nothing else is said."""

    points: int | None = option(None, "points of each cloud; none: as many as a random training cloud has", low=1)
    steps: int = option(50, "steps of the solver", low=1)


LAWS: dict[str, Law] = {"lagrangian": Lagrangian(), "mean_flow": MeanFlow(), "semigroup": Semigroup()}


def network(o: Network, spread: float, two_times: bool = False) -> EGNN:
    """The network, which measures clouds by their spread, and of ``two_times`` for flow maps."""
    return EGNN(o.width, o.layers, o.bumps, o.reach, scale=spread, two_times=two_times)


def solver(o: Objective) -> Solver:
    """How clouds are drawn: by jumps where they were learnt."""
    return FlowMap() if o.kind == "flow_map" else RK4()


@dataclass(frozen=True)
class InTurn(Pairing):
    """Couplings one after the other: each pairs what the one before has paired.

    Args:
        laws: couplings, none of which weighs its pairs.
    """

    laws: tuple[Pairing, ...]

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        for law in self.laws:
            x0, x1, context = law.pair(space, x0, x1, context)
        return x0, x1, context


def coupling(o: Coupling, dim: int, sizes: Tensor) -> Pairing:
    """The law of pairs of clouds of these sizes. A few points in the plane have their exact nearest copies; elsewhere
    order and rotation take turns, and on the line only order is aligned."""
    few = dim == 2 and int(sizes.min()) == int(sizes.max()) <= MOST
    copies: tuple[Symmetry, ...] = (Permutations(), *((Rotations(dim),) if dim > 1 else ()))
    if few:
        copies = (PlanarOrbits(),)
    laws: dict[str, Pairing] = {
        "independent": Independent(),
        "ot": Transport(),
        "ot_aligned": InTurn((Transport(), Transport(*copies, across_batch=False))),
        "equivariant_ot": Transport(*copies),
    }
    chosen = laws[o.kind]
    return InWorkers(chosen) if o.in_workers else chosen


def objective(o: Objective, pairs: Pairing) -> FlowMatching | FlowMapMatching:
    """Flow matching on pairs of noise and clouds, alone or as the diagonal of a flow map."""
    matching = FlowMatching(coupling=pairs, times=UniformTime(o.first_time, o.last_time))
    if o.kind == "flow_matching":
        return matching
    return FlowMapMatching(matching, LAWS[o.law], share=o.share)
