"""How molecules are learned and sampled: paths of positions and classes, pairs, the objective, the sampler.

Positions move on straight lines from a centred Gaussian, in angstrom; atoms, bonds and charges are unmasked one by one
(or jump from uniform classes), each part with its own schedule. The network predicts the finished molecule. Sampling
takes one evaluation per step: positions move towards the prediction, classes jump to it, and at a rate *eta* classes
are masked again, which lets the network correct itself without changing the distribution. The last step never masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fm_science.couplings import Coupling as Law
from fm_science.couplings import Independent, PartCoupling, PrefetchedCoupling, Transport
from fm_science.domain import option
from fm_science.errors import OptionError
from fm_science.flow import Sampler
from fm_science.networks import Guided, TemperatureScaled
from fm_science.objectives import BetaTime, FlowMatching, InverseSquare
from fm_science.paths import Geodesic, ProductPath
from fm_science.predictions import Endpoint, Posterior
from fm_science.priors import Classes, Normal, Prior, ProductPrior
from fm_science.schedules import Linear, Polynomial, Schedule
from fm_science.solvers import Langevin, power_grid
from fm_science.spaces import Categorical, Centered
from fm_science.symmetries import Permutations, Rotations

from .losses import Distances
from .pairing import Completion, FakeAtoms

CLASSES = ("atoms", "bonds", "charges")


@dataclass(frozen=True)
class Path:
    """The noise of molecules, and the schedule of each part."""

    classes: str = option("masked", "noise of atoms, bonds and charges", choices=("masked", "uniform"))
    std: float | None = option(
        None, "standard deviation of the noise of positions on each axis; none: that of the data", "angstrom", low=0.01
    )
    positions: float = option(1.0, "schedule of positions: the fraction t^p of the path is done at time t", low=0.1)
    atoms: float = option(1.0, "schedule of atoms: the share t^p of them is unmasked at time t", low=0.1)
    bonds: float = option(1.0, "schedule of bonds", low=0.1)
    charges: float = option(1.0, "schedule of charges", low=0.1)


@dataclass(frozen=True)
class Coupling:
    """Which noise is paired with which molecule."""

    kind: str = option(
        "aligned", "noise as drawn, or ordered and rotated towards its molecule",
        choices=("independent", "permutation", "rotation", "aligned"),
    )  # fmt: skip
    in_workers: bool = option(True, "pair in the processes that load data (data.workers)")
    fragments: float = option(0.1, "share of batches in which a fragment of each molecule is given", low=0, high=1)
    fakes: float = option(0.0, "share of molecules with dummy atoms, removed at the end; 0: none", low=0, high=1)


@dataclass(frozen=True)
class Objective:
    """What a training step minimises. All except the first four are optional."""

    positions: float = option(1.0, "weight of positions, in units of their standard deviation", low=0)
    atoms: float = option(0.3, "weight of the cross-entropy of atoms", low=0)
    bonds: float = option(1.0, "weight of the cross-entropy of bonds", low=0)
    charges: float = option(0.3, "weight of the cross-entropy of charges", low=0)
    until: float = option(0.9, "weights 1 / (1 - t)² of positions stop growing at this time; 0: all times equal",
                          low=0, high=0.999)  # fmt: skip
    near: float = option(0.5, "weight of the error of short distances (bonds and angles); 0: none", low=0)
    near_reach: float = option(2.8, "distances in the molecule up to this are short", "angstrom", low=0.5)
    near_from: float = option(0.3, "time from which short distances count", low=0, high=1)
    late: float = option(2.0, "times are drawn from Beta(late, 1): 1 is uniform, more is later", low=0.1)
    self_condition: float = option(0.5, "probability that a step shows the network its own prediction", low=0, high=1)
    distort: float = option(0.0, "probability that an input atom of the network is displaced; 0: none", low=0, high=1)
    distort_std: float = option(0.3, "standard deviation of that displacement on each axis", "angstrom", low=0)
    distort_from: float = option(0.5, "time from which atoms may be displaced", low=0, high=1)
    condition: str = option("", "properties that condition the network, such as gap or gap+mu")
    drop: float = option(0.2, "probability that a property is hidden, which guidance needs", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is sampled by default."""

    atoms: int | str | None = option(None, "atoms of a molecule, or a range 10-20; none: as in the training data")
    steps: int = option(100, "steps, one evaluation of the network each", low=1)
    eta: float = option(10.0, "rate at which classes are masked (or drawn) again", low=0)
    settle: float = option(0.0, "share of the time, at the end, in which no class is masked again", low=0, high=1)
    temperature: float = option(1.0, "of atoms, bonds and charges; below 1 likelier and less diverse", low=0.01)
    noise: float = option(0.0, "rate at which noise of positions is exchanged; needs coupling.kind=independent", low=0)
    grid: float = option(1.0, "steps shrink towards the end like a power; 1: equal steps", low=1)
    target: str = option("", "target properties, such as gap:6.8+mu:2 (see objective.condition)")
    guidance: float = option(1.0, "strength of the guidance towards the target; 1: as learned", low=0)
    fragment: str | None = option(None, "file (.sdf) with a fragment around which molecules are drawn")


def clock(power: float) -> Schedule:
    """The fraction t^power of the path is done at time t."""
    return Linear() if power == 1 else Polynomial(power)


def path(o: Path, classes: dict[str, int], std: float) -> tuple[ProductPath, ProductPrior]:
    """The path of molecules, and the prior.

    Args:
        classes: number of real classes of each part; parts that are absent are not part of the state.
        std: standard deviation of the noise, angstrom.
    """
    parts: dict[str, Any] = {"positions": Geodesic(Centered(), clock(o.positions), Endpoint())}
    priors: dict[str, Prior] = {"positions": Normal(std)}
    masked = o.classes == "masked"
    for name, count in classes.items():
        space = Categorical(count + masked, on="edges" if name == "bonds" else "nodes")
        parts[name] = Geodesic(space, clock(getattr(o, name)), Posterior(count if masked else None))
        priors[name] = Classes([0.0] * count + [1.0] if masked else [1 / count] * count)
    return ProductPath(**parts), ProductPrior(**priors)


def coupling(o: Coupling, counts: dict[str, int], prior: ProductPrior, fake: int) -> Law:
    """The coupling. Only positions are paired: the noise of classes has the same distribution on all atoms, so it need
    not move.

    Args:
        counts: number of classes of each part.
        prior: the prior.
        fake: number of the class of dummy atoms.
    """
    std, classes = prior.parts["positions"].std, tuple(counts)  # type: ignore[attr-defined]
    aligning = {
        "permutation": (Permutations(),), "rotation": (Rotations(),), "aligned": (Permutations(), Rotations()),
    }.get(o.kind, ())  # fmt: skip
    law: Law = Independent()
    if aligning:
        law = PartCoupling("positions", Transport(*aligning, across_batch=False), classes)
    if o.fragments:
        ordered = any(isinstance(s, Permutations) for s in aligning)
        around: Law = Independent()
        if ordered:
            around = PartCoupling("positions", Transport(Permutations(), across_batch=False), classes)
        law = Completion(law, around, o.fragments, std)
    if o.fakes:
        law = FakeAtoms(law, prior, o.fakes, fake)
    return PrefetchedCoupling(law) if o.in_workers else law


def objective(o: Objective, pairs: Law, conditions: tuple[str, ...], std: float) -> FlowMatching:
    """Flow matching on molecules. Squared lengths are in units of the standard deviation of the noise."""
    late = InverseSquare(o.until)
    extras = {"near": Distances(o.near / std**2, o.near_reach, o.near_from, late)} if o.near else {}
    return FlowMatching(
        coupling=pairs,
        times=BetaTime(o.late, 1.0),
        weight={"positions": late},
        parts={"positions": o.positions / std**2, "atoms": o.atoms, "bonds": o.bonds, "charges": o.charges},
        auxiliary_losses=extras,
        condition_dropout=dict.fromkeys(conditions, o.drop) if o.drop else {},
        self_condition=o.self_condition,
    )


def sampler(o: Sample, classes: tuple[str, ...], conditions: tuple[str, ...], pairs: str) -> Sampler:
    """One evaluation per step; classes are masked again at the rate eta, and the last step only moves to the endpoint.

    Raises OptionError if noise of positions cannot be exchanged, since it depended on the data in training.
    """
    if o.noise and pairs != "independent":
        raise OptionError(
            f"sample.noise={o.noise}: noise of positions can be exchanged only where training did not tie it to the "
            f"molecules; this network was trained with coupling.kind={pairs}, not independent"
        )
    heat: dict[str, Any] = dict.fromkeys(classes, Until(o.eta, 1 - o.settle)) if o.eta else {}
    steps: int | Tensor = o.steps if o.grid == 1 else power_grid(o.steps, o.grid)
    heat |= {"positions": o.noise} if o.noise else {}
    return Sampler(Langevin(heat), steps, wrap_network=partial(dressed, o, classes, conditions))


@dataclass(frozen=True)
class Until:
    """A rate that is constant until a time and zero afterwards."""

    rate: float
    end: float

    def __call__(self, t: Tensor) -> Tensor:
        return self.rate * (t < self.end)


def dressed(o: Sample, classes: tuple[str, ...], conditions: tuple[str, ...], network: Any) -> Any:
    """The network for sampling: guided towards the target, at a temperature."""
    if o.guidance != 1 and conditions:
        network = Guided(network, o.guidance, conditions)
    return network if o.temperature == 1 else TemperatureScaled(network, **dict.fromkeys(classes, o.temperature))


def worn(o: Objective, network: nn.Module) -> nn.Module:
    """The network for training."""
    return Distorted(network, o.distort, o.distort_std, o.distort_from) if o.distort else network


class Distorted(nn.Module):
    """In training, some input atoms of a network are displaced, so that it learns to correct errors of earlier steps of
    a sampler (Dunn & Koes 2025).

    Args:
        network: the network that is trained.
        share: probability that an atom is displaced.
        std: how far on each axis, angstrom.
        start: time from which atoms are displaced.
    """

    def __init__(self, network: nn.Module, share: float, std: float, start: float) -> None:
        super().__init__()
        self.network, self.share, self.std, self.start = network, share, std, start

    @property
    def self_conditioned(self) -> bool:
        """Whether the network reads its previous endpoint."""
        return bool(self.network.self_conditioned)

    def forward(self, x: dict[str, Tensor], t: Tensor, context: Any) -> Any:
        if self.training:
            places = x["positions"]
            moved = (torch.rand_like(places[..., :1]) < self.share) & context.mask[..., None]
            moved = moved & (t > self.start)[:, None, None]
            x = {**x, "positions": places + self.std * moved * torch.randn_like(places)}
        return self.network(x, t, context)


class OneHot(Dataset):
    """Molecules as points of the space: class numbers become corners, unused conditions are left out.

    Args:
        data: items with class numbers.
        classes: number of classes of each part, a mask class included.
        conditions: names of the properties that condition the network.
    """

    def __init__(self, data: Any, classes: dict[str, int], conditions: tuple[str, ...]) -> None:
        self.data, self.conditions = data, conditions
        self.corners = {name: torch.eye(count) for name, count in classes.items()}
        self.sizes: Tensor = data.sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        state, cond = self.data[index]
        classes = {name: corners[state[name]] for name, corners in self.corners.items()}
        return {"positions": state["positions"], **classes}, {name: cond[name] for name in self.conditions}
