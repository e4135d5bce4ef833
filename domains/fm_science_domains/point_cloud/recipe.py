"""How clouds are learned and sampled: straight paths of centred clouds from a Gaussian, with the velocity predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.couplings import Coupling as Pairing
from fm_science.couplings import Independent, PrefetchedCoupling, Transport
from fm_science.couplings.ranks import RANKS, gatherer
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import EGNN, Guided, SetTransformer
from fm_science.objectives import FlowMapMatching, FlowMatching, Lagrangian, MeanFlow, Semigroup, UniformTime
from fm_science.objectives import Objective as Loss
from fm_science.objectives.laws import FlowMapLoss
from fm_science.solvers import RK4, FlowMap
from fm_science.spaces.base import Space
from fm_science.state import Context, State
from fm_science.symmetries import Permutations, Rotations, Symmetry

from .completion import Completion
from .data import Summary
from .halves import Halves
from .orbits import MOST, PlanarOrbits


@dataclass(frozen=True)
class Network:
    """The network for the velocity of points. All except the transformer commute with rotations and mirror images."""

    kind: str = option(
        "egnn", "all pairs of points; messages on a graph of near points; tensor products (in space); attention",
        choices=("egnn", "message_passing", "tensor_field", "transformer"),
    )  # fmt: skip
    width: int = option(64, "channels of a point and of a message", low=4, high=16_384)
    layers: int = option(4, "rounds of messages, or blocks of attention", low=1, high=1_000)
    bumps: int = option(24, "radial basis functions of a distance", low=2)
    reach: float = option(5.0, "largest distance with a basis function, in standard deviations of the data", low=0.1)
    radius: float | None = option(
        None, "message_passing, tensor_field: points farther apart exchange nothing, in std; none: all do",
        low=0.01,
    )  # fmt: skip
    mutual: bool = option(False, "egnn: both points of a pair share one message, for half the work")
    heads: int = option(4, "transformer: heads of the attention", low=1)
    chiral: bool = option(False, "tensor_field: distinguish a cloud from its mirror image")


@dataclass(frozen=True)
class Path:
    """The noise of clouds."""

    std: float | None = option(None, "std of the noise on each axis; none: 1 for systems, the data's for files")


@dataclass(frozen=True)
class Coupling:
    """Which noise is paired with which cloud."""

    kind: str = option(
        "ot", "pairs: as drawn; each put in order; shortest of the batch; that, then each aligned in order and pose; "
        "all aligned",
        choices=("independent", "ordered", "ot", "ot_aligned", "equivariant_ot"),
    )  # fmt: skip
    piece: int = option(
        0, "ordered: cut clouds in halves down to this many points, and order within the pieces; 0: order the whole",
        low=0,
    )  # fmt: skip
    group: int = option(0, "equivariant_ot: pair this many clouds at a time; 0: the whole batch", low=0)
    in_workers: bool = option(False, "pair in the processes that load data (data.workers)")
    ranks: str = option(
        "own", "ot over several processes, also aligned: pairs within the batch of each, or over the batches of all",
        choices=RANKS,
    )  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: flow matching with uniform times, alone or with a law of flow maps, which trains
    the network to jump (solver=flow_map)."""

    kind: str = option("flow_matching", "flow_map: also learn to jump", choices=("flow_matching", "flow_map"))
    law: str = option("lagrangian", "the law that trains a flow map", choices=("lagrangian", "mean_flow", "semigroup"))
    share: float = option(1.0, "part of a batch for training the flow map", low=0.01, high=1)
    first_time: float = option(0.0, "earliest time in training", low=0, high=1)
    last_time: float = option(1.0, "latest time in training", low=0, high=1)
    drop: float = option(0.1, "share of clouds whose class is hidden, which guidance needs", low=0, high=1)
    completion: float = option(0.0, "share of steps in which a part of each cloud is given", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is sampled by default."""

    points: int | None = option(None, "points of each cloud; none: as many as a random training cloud has", low=1)
    label: str | None = option(None, "class of each cloud; none: that of a random training cloud")
    guidance: float = option(1.0, "strength of guidance to the class; 1: as learned, 0: class ignored", low=0)
    known: str | None = option(
        None, "file with a cloud to complete: its points are fixed (objective.completion)"
    )
    steps: int = option(50, "steps of the solver", low=1)


LAWS: dict[str, FlowMapLoss] = {"lagrangian": Lagrangian(), "mean_flow": MeanFlow(), "semigroup": Semigroup()}


def sampler(options: Sample, trained: Objective) -> Sampler:
    """The sampler of clouds: by jumps if they were learned, and guided towards their class if requested."""
    solver = FlowMap() if trained.kind == "flow_map" else RK4()
    pressed = partial(Guided, scale=options.guidance)
    return Sampler(solver, options.steps, wrap_network=None if options.guidance == 1 else pressed)


def network(o: Network, sets: Summary, two_times: bool = False) -> nn.Module:
    """The network, which scales clouds by their standard deviation; of ``two_times`` for flow maps.

    Raises:
        OptionError: for tensor products of clouds that are not in space, and heads that do not divide the width.
    """
    if o.kind == "tensor_field" and sets.dim != 3:
        raise OptionError(f"network.kind=tensor_field needs clouds in space, and these have {sets.dim} coordinates")
    if o.kind == "transformer" and o.width % o.heads:
        raise OptionError(f"network.heads={o.heads} does not divide network.width={o.width}")
    shared = {
        "scale": sets.spread,
        "two_times": two_times,
        "classes": {"label": len(sets.classes)} if sets.classes else {},
    }
    return NETWORKS[o.kind](o, sets.dim, shared)


def _egnn(o: Network, dim: int, shared: dict[str, Any]) -> nn.Module:
    return EGNN(o.width, o.layers, o.bumps, o.reach, symmetric_messages=o.mutual, **shared)


def _message_passing(o: Network, dim: int, shared: dict[str, Any]) -> nn.Module:
    from fm_science.networks.message_passing import MessagePassing

    return MessagePassing(o.width, o.layers, o.bumps, o.reach, o.radius, **shared)


def _tensor_field(o: Network, dim: int, shared: dict[str, Any]) -> nn.Module:
    from fm_science.networks.tensor_field import TensorField

    return TensorField(o.width, o.layers, 2, o.bumps, o.reach, o.radius, chiral=o.chiral, **shared)


def _transformer(o: Network, dim: int, shared: dict[str, Any]) -> nn.Module:
    return SetTransformer(o.width, o.layers, o.heads, dim, **shared)


NETWORKS: dict[str, Callable[[Network, int, dict[str, Any]], nn.Module]] = {
    "egnn": _egnn, "message_passing": _message_passing, "tensor_field": _tensor_field, "transformer": _transformer,
}  # fmt: skip


@dataclass(frozen=True)
class Grouped(Pairing):
    """A coupling of groups of the batch, one group after the other: the work depends only on the size of groups.

    Args:
        law: pairs the clouds of a group; it must not weight its pairs.
        size: clouds of a group.
    """

    law: Pairing
    size: int

    def pair(self, space: Space, x0: Tensor, x1: Tensor, context: Context) -> tuple[Tensor, Tensor, Context]:
        found = []
        for rows in torch.arange(context.size).split(self.size):
            some = context.take(rows)
            found.append(self.law.pair(space.bind(some), x0[rows], x1[rows], some)[0])
        return torch.cat(found), x1, context


@dataclass(frozen=True)
class InTurn(Pairing):
    """Couplings one after the other: each is applied to the pairs of the one before.

    Args:
        laws: couplings, none of which weights its pairs.
    """

    laws: tuple[Pairing, ...]

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        for law in self.laws:
            x0, x1, context = law.pair(space, x0, x1, context)
        return x0, x1, context


def coupling(o: Coupling, sets: Summary) -> Pairing:
    """The pairs of noise and clouds. For a few points in the plane the nearest copy is exact; otherwise order and
    rotation alternate, and on the line only order is aligned. Noise is not exchanged between classes."""
    dim, sizes = sets.dim, sets.kinds[:, 0]
    few = dim == 2 and int(sizes.min()) == int(sizes.max()) <= MOST and not sets.classes
    copies: tuple[Symmetry, ...] = (Permutations(), *((Rotations(dim),) if dim > 1 else ()))
    if few:
        copies = (PlanarOrbits(),)
    within = ("label",) if sets.classes else ()
    alone = Transport(*copies, across_batch=False, within=within)
    gather = gatherer(o.ranks, o.in_workers)
    together = Transport(*copies, within=within, gather=None if o.group else gather)
    laws: dict[str, Pairing] = {
        "independent": Independent(),
        "ordered": Transport(Halves(o.piece) if o.piece else Permutations(), across_batch=False, within=within),
        "ot": Transport(within=within, gather=gather),
        "ot_aligned": InTurn((Transport(within=within, gather=gather), alone)),
        "equivariant_ot": Grouped(together, o.group) if o.group else together,
    }
    chosen = laws[o.kind]
    return PrefetchedCoupling(chosen) if o.in_workers else chosen


def objective(o: Objective, pairs: Pairing, sets: Summary, upright: bool = False) -> Loss:
    """Flow matching on pairs of noise and clouds, alone or as the diagonal of a flow map; with ``completion`` also of
    clouds that are given in part.

    Raises:
        OptionError: when a flow map should learn completion.
    """
    drop = {"label": o.drop} if sets.classes and o.drop else {}
    matching = FlowMatching(coupling=pairs, times=UniformTime(o.first_time, o.last_time), condition_dropout=drop)
    if o.kind == "flow_map":
        if o.completion:
            raise OptionError("objective.completion and objective.kind=flow_map do not go together yet")
        return FlowMapMatching(matching, LAWS[o.law], share=o.share)
    order = Independent() if pairs.independent else Transport(Permutations(), across_batch=False)
    return Completion(matching, o.completion, upright, order) if o.completion else matching
