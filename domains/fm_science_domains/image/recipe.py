"""How images are learned and sampled: the path from noise, the pairs, the network, and the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.couplings import Coupling as Law
from fm_science.couplings import Independent, PrefetchedCoupling, Transport
from fm_science.couplings.ranks import RANKS, gatherer
from fm_science.domain import option
from fm_science.errors import OptionError, UserError
from fm_science.objectives import FlowMatching, LogitNormalTime, UniformTime
from fm_science.paths import Gaussian
from fm_science.predictions import Endpoint, Noise, Prediction, Score, Velocity
from fm_science.schedules import VP, Cosine, Linear, LipmanOT, Schedule, Trigonometric
from fm_science.spaces import Euclidean
from fm_science.spaces.base import Space
from fm_science.state import Context, State

from .data import Summary
from .embedding import Steerable
from .transformer import Transformer
from .unet import UNet

SCHEDULES: dict[str, Any] = {
    "linear": Linear, "lipman_ot": LipmanOT, "trigonometric": Trigonometric, "cosine": Cosine, "vp": VP,
}  # fmt: skip
PREDICTIONS: dict[str, type[Prediction]] = {
    "velocity": Velocity, "endpoint": Endpoint, "noise": Noise, "score": Score,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A U-Net, or a small transformer on patches."""

    kind: str = option("unet", "the network", choices=("unet", "transformer"))
    width: int = option(32, "channels at full resolution; features of a patch", low=4, high=16_384)
    multipliers: str = option("1-2", "unet: channels at each resolution in multiples of the width, joined by dashes")
    blocks: int = option(1, "unet: residual blocks per resolution; transformer: layers", low=1, high=1_000)
    attention: int | str = option("4", "unet: resolutions (pixels per side) with attention, joined by dashes; 0: none")
    head: int = option(32, "channels of a head of attention", low=1)
    patch: int = option(2, "transformer: pixels per side of a patch", low=1)
    dropout: float = option(0.0, "unet: dropout in every block", low=0, high=0.9)


@dataclass(frozen=True)
class Path:
    """The path from noise to image, alpha(t) x1 + sigma(t) x0, and the prediction of the network."""

    schedule: str = option("linear", "signal and noise as functions of time", choices=tuple(SCHEDULES))
    sigma_min: float = option(1e-4, "noise that lipman_ot leaves on the data", low=1e-9, high=0.5)
    predicts: str = option("velocity", "the prediction of the network", choices=tuple(PREDICTIONS))


@dataclass(frozen=True)
class Coupling:
    """Which noise is paired with which image."""

    kind: str = option(
        "independent", "pairs: as drawn; or the shortest of the batch, within a class if classes are learned",
        choices=("independent", "ot"),
    )  # fmt: skip
    in_workers: bool = option(False, "pair in the processes that load data (data.workers)")
    ranks: str = option(
        "own", "ot over several processes: pairs within the batch of each, or over the batches of all of them",
        choices=RANKS,
    )  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """What a training step minimises: flow matching."""

    times: str = option("uniform", "distribution of the times in training", choices=("uniform", "logit_normal"))
    drop: float = option(0.1, "probability that a step hides the class, which guidance needs", low=0, high=1)


@dataclass(frozen=True)
class Sample:
    """What is sampled by default."""

    label: int | str | None = option(None, "class to draw, by name or number; none: classes as often as in training")
    guidance: float = option(1.0, "strength of the class; 1: as learned, more: clearer and less varied", low=0)
    steps: int = option(50, "steps of the solver", low=1)


def network(o: Network, found: Summary) -> nn.Module:
    """The network for images of this shape and this number of classes."""
    shape, classes = found.shape, found.classes
    if o.kind == "transformer":
        heads = max(1, o.width // o.head)
        return Steerable(Transformer(shape, o.width, o.blocks, heads, o.patch, classes))
    multipliers, attention = numbers("multipliers", o.multipliers, 1), numbers("attention", o.attention)
    return Steerable(UNet(shape, o.width, multipliers, o.blocks, attention, o.head, o.dropout, classes))


def numbers(name: str, words: int | str, low: int = 0) -> tuple[int, ...]:
    """Integers of at least ``low``, joined by dashes. Raises OptionError otherwise."""
    text = str(words).split("-")
    if not all(word.isdecimal() and int(word) >= low for word in text):
        raise OptionError(
            f"network.{name}={words!r}: expected numbers of at least {low} joined by dashes, such as 1-2-2"
        )
    return tuple(map(int, text))


def path(o: Path, shape: tuple[int, int, int]) -> Gaussian:
    """The path from Gaussian noise of standard deviation one to images."""
    if o.predicts in ("noise", "score") and schedule(o).ends[0] == 0:
        raise UserError(
            f"path.predicts={o.predicts} says nothing about the image where path.schedule={o.schedule} has no signal, "
            "at t = 0: predict velocity or endpoint, or take path.schedule=vp"
        )
    return Gaussian(Euclidean(shape), schedule(o), PREDICTIONS[o.predicts]())


def schedule(o: Path) -> Schedule:
    """The schedule by its name."""
    return LipmanOT(o.sigma_min) if o.schedule == "lipman_ot" else SCHEDULES[o.schedule]()


class Dithered(Law):
    """A coupling that dithers images uniformly over the width of their grey level after they were paired with their
    noise.

    Args:
        law: the pairs.
        width: of a grey level.
    """

    def __init__(self, law: Law, width: float) -> None:
        self.law, self.width, self.independent = law, width, law.independent

    def __repr__(self) -> str:
        return f"Dithered({self.law!r}, {self.width:.4g})"

    def pair(self, space: Space, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        x0, x1, context = self.law.pair(space, x0, x1, context)
        return x0, dither(x1, self.width), context


def dither(x: Tensor, width: float) -> Tensor:
    """``x`` plus uniform noise over a grey level of this width."""
    return x + width * (torch.rand_like(x) - 0.5)


def coupling(o: Coupling, found: Summary, dithered: bool) -> Law:
    """The pairs of noise and image."""
    within = ("label",) if found.classes else ()
    law: Law = Transport(within=within, gather=gatherer(o.ranks, o.in_workers)) if o.kind == "ot" else Independent()
    law = Dithered(law, found.bin) if dithered else law
    return PrefetchedCoupling(law) if o.in_workers else law


def objective(o: Objective, pairs: Law, classes: int) -> FlowMatching:
    """Flow matching on pairs of noise and image."""
    times: Any = {"uniform": UniformTime(), "logit_normal": LogitNormalTime()}[o.times]
    return FlowMatching(coupling=pairs, times=times, condition_dropout={"label": o.drop} if classes and o.drop else {})
