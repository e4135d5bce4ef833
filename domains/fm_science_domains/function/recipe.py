"""How functions are learned and sampled: straight paths from a Gaussian process with the covariance of the data, with
the function itself predicted.

Fourier modes beyond those of the operator are only transformed pointwise. Noise that is too rough there stays in the
samples in part, however good the network is otherwise; noise as rough as the data does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fm_science.couplings import Coupling as Law
from fm_science.couplings import Independent, PrefetchedCoupling, Transport
from fm_science.couplings.ranks import RANKS, gatherer
from fm_science.domain import option
from fm_science.errors import OptionError, UserError
from fm_science.networks import FNO, LatentOperator
from fm_science.objectives import FlowMatching, InverseSquare, Stratified, UniformTime
from fm_science.paths import Geodesic
from fm_science.predictions import Endpoint, Velocity
from fm_science.priors import GaussianProcess, Normal, Prior
from fm_science.solvers import Heun, Solver
from fm_science.spaces import Functions
from fm_science.symmetries import Permutations, Shifts, Symmetry

from .conditional import GUESS, SEEN, SHOWN, Amortised, Corrected, LatentPosterior
from .families import kernel
from .kriging import Conditioned, ConditionedNetwork, Regression
from .noise import unpacked
from .norms import KernelNorm
from .sets import Summary

MODES, WIDTH = {1: 24, 2: 12, 3: 8}, {1: 64, 2: 32, 3: 24}


@dataclass(frozen=True)
class Network:
    """A Fourier neural operator on grids, attention between sensors and tokens elsewhere."""

    kind: str = option("auto", "fno needs grids; auto: fno if there are grids", choices=("auto", "fno", "operator"))
    width: int | None = option(None, "channels; none: 64 on a line, 32 in the plane, 24 in space", low=4, high=16_384)
    layers: int = option(4, "Fourier layers, or rounds of attention", low=1, high=1_000)
    modes: int | None = option(None, "fno: highest wave number per axis; none: 24, 12, 8 in 1, 2, 3 dimensions", low=1)
    margin: float = option(0.25, "fno: zero padding beyond the end of axes without a period, as a share of the axis",
        low=0)
    places: bool = option(True, "fno: whether the network gets the coordinates of sensors")
    clock: str = option("film", "fno: time modulates every layer, or is an additional input", choices=("film",
        "channel"))
    slow: float = option(1.0, "fno: divisor of time as an input channel", low=1e-3)
    heads: int = option(4, "operator: attention heads, a divisor of the width", low=1)
    tokens: int = option(32, "operator: latent tokens", low=1)
    waves: int = option(16, "operator: half-waves over the domain that encode a position", low=1)


@dataclass(frozen=True)
class Path:
    """The noise of functions, and what is predicted."""

    noise: str = option(
        "auto", "a Gaussian process, auto: the one fitted to the data; or independent at each sensor",
        choices=("auto", "matern", "rbf", "white"),
    )  # fmt: skip
    nu: float = option(0.5, "smoothness of Matern noise", choices=(0.5, 1.5, 2.5))
    length: float = option(0.1, "correlation length of the noise, in sides of the domain", low=1e-4)
    std: float = option(
        1.0, "standard deviation of the noise, in standard deviations of the data; auto: a factor of the fitted noise",
        low=1e-3,
    )  # fmt: skip
    factors: int | None = option(None, "auto: functions with Gaussian weights in addition to the kernel; none: by fit",
        low=0)
    predicts: str = option("endpoint", "what the network outputs", choices=("endpoint", "velocity"))


@dataclass(frozen=True)
class Coupling:
    """Which noise is paired with which function."""

    kind: str | None = option(
        None, "pairs as drawn, or nearest in a batch; none: ot if sensors are shared and no values are shown",
        choices=("independent", "ot"),
    )  # fmt: skip
    norm: str = option("l2", "ot: the distance of pairs, the integral of squares or a kernel norm",
                       choices=("l2", "kernel"))  # fmt: skip
    length: float = option(0.1, "norm=kernel: length over which differences are smoothed", low=1e-3)
    in_workers: bool = option(False, "pair in the processes that load data (data.workers)")
    ranks: str = option(
        "own", "ot over several processes: pairs within the batch of each, or over the batches of all of them",
        choices=RANKS,
    )  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: flow matching, with times drawn uniformly or one in each of equal intervals."""

    stratified: bool = option(True, "one time in each of as many intervals as there are functions in a batch")
    until: float = option(0.9, "endpoint: errors are weighted as errors of the velocity until this time", low=0,
        high=0.999)
    shown: str = option("0", "sensors shown to the network in training, such as 5 or 1-10; 0: none, no completion")
    shown_noise: float = option(0.0, "noise of the sensors shown, in standard deviations of the data", low=0)


@dataclass(frozen=True)
class Sample:
    """What is sampled by default."""

    grid: str | int | None = option(None, "sensors: 128, 64x64, or 4x for four times as fine; none: as in training")
    observations: str | None = option(None, "a .csv file of observed values, x[,y[,z]],value; none: free samples")
    method: str = option("auto", "how observations are used; auto: amortised if it was trained, else latent",
                         choices=("auto", "amortised", "correction", "latent"))  # fmt: skip
    noise: float = option(0.1, "latent: standard deviation of the observations, in the units of the data", low=1e-9)
    moves: int = option(40, "latent: MCMC moves of each sample's noise", low=1)
    steps: int = option(25, "steps of the solver", low=1)


def interval(text: str, name: str) -> tuple[int, int]:
    """Two integers from ``5`` or ``1-10``. Raises OptionError."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(text).strip())
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise OptionError(f"{name}={text!r}: expected a number or a range of sensors, such as 5 or 1-10")
    return int(found[1]), int(found[2] or found[1])


def network(o: Network, how: Path, sets: Summary, shown: bool) -> nn.Module:
    """The network. If it predicts functions it begins as the identity, which for fitted noise is an estimate of the
    right variance. Raises UserError if it does not fit the sensors."""
    reads = {SEEN: 1, SHOWN: sets.channels, GUESS: sets.channels} if shown else {}
    gridded = sets.gridded
    if o.kind == "fno" and not gridded:
        raise UserError("network.kind=fno needs functions on regular grids; these need network.kind=operator")
    width = o.width if o.width is not None else WIDTH[sets.dim]
    if o.kind == "operator" or not gridded:
        if width % o.heads:
            raise UserError(f"network.width={width} is no multiple of network.heads={o.heads}")
        return LatentOperator(sets.channels, sets.dim, width, o.layers, o.heads, o.tokens, o.waves, reads)
    modes = (o.modes or MODES[sets.dim],) * sets.dim
    period = [1.0 if p else 1.0 + o.margin for p in sets.frame.periodic]
    return FNO(sets.channels, modes, width, o.layers, period, reads, o.places, o.clock, o.slow,
               through=float(how.predicts == "endpoint"))  # fmt: skip


def symmetries(o: Network, sets: Summary, shown: bool) -> tuple[Symmetry, ...]:
    """What an operator or an FNO commutes with: another order of the sensors; shifts where it sees no places."""
    if o.kind == "operator" or not sets.gridded:
        return (Permutations(along=("coords", "weights", SEEN, SHOWN, GUESS)),)
    alike = any(sets.frame.periodic) and not o.places and not shown  # observations have places
    return (Shifts(tuple(sets.frame.periodic)),) if alike else ()


def prior(o: Path, sets: Summary, fitted: Mapping[str, Any] | None) -> Prior:
    """The distribution of the noise; ``fitted`` is the one that was fitted to the data. Its kernel has the period of
    the box, or of twice the box if functions have no period, so that it takes N log N operations on every regular grid.
    Raises OptionError if a fitted one is requested and there is none."""
    if o.noise == "white":
        return Normal(o.std)
    if o.noise != "auto":
        return GaussianProcess(kernel(o.noise, o.length, o.nu, o.std, period(sets)))
    if fitted is None:
        raise OptionError("path.noise=auto: this run was trained with other noise, and none was fitted to its data")
    law = unpacked(fitted)
    return law if o.std == 1 else law.scaled(o.std)


def period(sets: Summary) -> float:
    """The sides of the torus of the noise, in sides of the box."""
    return 1.0 if all(sets.frame.periodic) else 2.0


def completing(law: Prior, net: nn.Module, noise: float) -> tuple[Prior, nn.Module]:
    """Noise and network of a flow that completes functions: both use the regression. White noise gives no
    information."""
    if not hasattr(law, "kernel"):
        return law, net
    known = Regression(law, noise)
    return Conditioned(known), ConditionedNetwork(net, known)


def path(o: Path, sets: Summary) -> Geodesic:
    """Straight lines between functions."""
    return Geodesic(Functions(sets.channels), predicts=Endpoint() if o.predicts == "endpoint" else Velocity())


def coupling(o: Coupling, sets: Summary, shown: bool) -> Law:
    """The pairs of noise and functions, in the norm of the functions' weights. Raises UserError for transport of
    functions with observations, whose noise would then depend on what was observed."""
    kind = o.kind or ("ot" if sets.shared and not shown else "independent")
    if kind == "ot" and shown:
        raise UserError("coupling.kind=ot and objective.shown do not go together: noise would depend on what is shown")
    if o.norm == "kernel" and not sets.shared:
        raise UserError("coupling.norm=kernel needs functions that share their sensors; these need coupling.norm=l2")
    if kind == "independent":
        return Independent()
    where = ("coords", "weights", "grid") if sets.gridded else ("coords", "weights")
    cost = KernelNorm(o.length) if o.norm == "kernel" else None
    gather = gatherer(o.ranks, o.in_workers)
    law = Transport(ignore=where, cost=cost, gather=gather) if sets.shared else Transport(within=where, gather=gather)
    return PrefetchedCoupling(law) if o.in_workers else law


def objective(o: Objective, how: Path, pairs: Law) -> FlowMatching | Amortised:
    """Flow matching; errors of predicted functions are weighted as errors of the velocity, up to a time."""
    weight = InverseSquare(o.until) if how.predicts == "endpoint" else None
    plain = FlowMatching(coupling=pairs, times=Stratified() if o.stratified else UniformTime(), weight=weight)
    least, most = interval(o.shown, "objective.shown")
    return Amortised(plain, least, most, o.shown_noise) if most else plain


def solver(o: Sample, sets: Summary, shown: bool, independent: bool) -> Solver:
    """The sampler from noise to functions. Raises UserError if the method for observations is not available,
    OptionError if there are no observations."""
    if o.observations is None and o.method != "auto":
        raise OptionError(f"sample.method={o.method} says how observations are used: give observations=FILE.csv too")
    if o.observations is None:
        return Heun()
    if o.method == "amortised" and not shown:
        raise UserError("sample.method=amortised needs a run that was trained with objective.shown, such as 1-10")
    if o.method == "latent" and shown:
        raise UserError("sample.method=latent samples free noise, and this run was trained with objective.shown, "
                        "where noise depends on the observations: use sample.method=amortised")  # fmt: skip
    if o.method == "correction":
        return Corrected(rounds=3 if independent and not shown else 1)
    if o.method == "latent" or not shown:
        return LatentPosterior(o.noise / float(sets.frame.scale.mean()), o.moves)
    return Heun()
