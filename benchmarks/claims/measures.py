"""What the claims measure: distances between samples and data, evaluations, straightness, numerical error.

The shipped digits are here too, as vectors of 64 values, with their distance in features of a small classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fm_science.distances import frechet
from fm_science.flow import Flow
from fm_science.networks import Network
from fm_science.solvers import Adaptive, Euler, Solver
from fm_science.spaces import Space
from fm_science.state import Context, State
from fm_science_domains.image.data import Data, Sets, sets
from fm_science_domains.image.features import Features
from fm_science_domains.image.files import Image, rounded
from fm_science_domains.image.recipe import dither
from tests.oracles.kernels import Kernels


def wasserstein(x: Tensor, y: Tensor, space: Space | None = None) -> float:
    """The Wasserstein-2 distance of two sets of points ``(n, 1, *event)`` of one size, by exact assignment of squared
    distances: straight ones, or geodesic lengths on a space."""
    if space is None:
        squares = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).square()
    else:
        squares = torch.cat([_squared_lengths(space, x, part) for part in y.split(50)], 1).double()
    cost = squares.numpy()
    return float(cost[linear_sum_assignment(cost)].mean()) ** 0.5


def _squared_lengths(space: Space, x: Tensor, y: Tensor) -> Tensor:
    """Squared geodesic distances of all pairs, ``(len(x), len(y))``."""
    a, b = x.repeat_interleave(len(y), 0), y.repeat(len(x), *[1] * (y.ndim - 1))
    return space.bind(Context.full(len(a))).distance(a, b).square().reshape(len(x), len(y))


class Counted:
    """A network that counts its evaluations."""

    def __init__(self, network: Network) -> None:
        self.network, self.count = network, 0

    def __call__(self, x: State, t: Tensor, context: Context) -> State:
        self.count += 1
        return self.network(x, t, context)


@torch.no_grad()
def fixed(flow: Flow, x0: Tensor, solver: Solver, steps: int | Tensor) -> tuple[Tensor, int]:
    """Where noise goes by so many steps, and the evaluations that took."""
    network = Counted(flow.network)
    walk = Flow(flow.path, flow.prior, network, flow.sampler)
    return walk.transport(x0, Context.full(len(x0)), solver, steps), network.count


def until(flow: Flow, last: float = 1 - 1e-3) -> Tensor:
    """The times of an adaptive walk: to the end, or to ``last`` and then a landing where the end is singular."""
    return torch.tensor([0.0, last, 1.0] if flow.path.singular else [0.0, 1.0], dtype=torch.float64)


def adaptive(flow: Flow, x0: Tensor, tolerance: float, times: Tensor | None = None) -> tuple[Tensor, int]:
    """Where noise goes by dopri5 at a tolerance, and the evaluations that took."""
    return fixed(flow, x0, Adaptive(tolerance, tolerance), until(flow) if times is None else times)


@dataclass(frozen=True)
class Way:
    """How samples travel: mean path energy (the integral of |v|²), mean length over mean displacement, and the mean
    square distance of the velocity from the straight line between both ends."""

    energy: float
    length: float
    bend: float


@torch.no_grad()
def way(flow: Flow, x0: Tensor, steps: int = 100) -> Way:
    """The ways of samples by Euler steps from noise ``x0``."""
    states = [x0, *flow.trajectory(x0, Context.full(len(x0)), Euler(), steps)]
    moves = torch.stack(states).flatten(2).diff(dim=0)  # (steps, B, D)
    straight = (states[-1] - x0).flatten(1)
    bend = (moves * steps - straight).square().sum(-1).mean()
    length = moves.norm(dim=-1).sum(0).mean() / straight.norm(dim=-1).mean()
    return Way(float(moves.square().sum(-1).sum(0).mean() * steps), float(length), float(bend))


def errors(x: Tensor, y: Tensor) -> Tensor:
    """The error of each sample, ``(B,)``: root mean square difference of a coordinate. Judge by their median: near the
    border of two basins a small error sends a sample elsewhere, and a few such would outweigh all others."""
    return (x - y).flatten(1).square().mean(1).sqrt()


SHAPE = {"dim": 64, "width": 256, "waves": 32}  #: of the network


class Digits:
    """1,438 training digits and 359 held-out ones, 8x8 with 17 grey levels in [-1, 1]."""

    @cached_property
    def _sets(self) -> Sets:
        return sets(Data())

    @cached_property
    def _features(self) -> tuple[Features, Tensor, float]:
        """The features of images, those of the training images, and the distance of held-out images to these."""
        features = Features(self._sets)
        known = features(self._sets.train.images())[0]
        return features, known, frechet(features(self._sets.held_out.images())[0], known)

    @property
    def bin(self) -> float:
        """The width of a grey level."""
        return float(self._sets.bin)

    @cached_property
    def train(self) -> Tensor:
        """The training digits, ``(1438, 1, 64)``."""
        return self._sets.train.pixels().reshape(-1, 1, 64)

    def dithered(self, x: Tensor) -> Tensor:
        """Digits with fresh even noise of the width of a grey level."""
        return dither(x, self.bin)

    def held_out(self, n: int) -> Tensor:
        """The first held-out digits, dithered, ``(n, 1, 64)``."""
        return self.dithered(self._sets.held_out.pixels(slice(n)).reshape(-1, 1, 64))

    def distance(self, samples: Tensor) -> float:
        """The Fréchet distance of samples ``(n, 1, 64)`` to the training digits, in features."""
        features, known, _ = self._features
        images = [Image(x) for x in rounded(samples.reshape(-1, 1, 8, 8), self._sets.train.top)]
        return frechet(features(images)[0], known)

    @property
    def real(self) -> float:
        """The same distance of the held-out digits."""
        return self._features[2]

    def kernels(self, std: float = 0.05) -> Kernels:
        """A Gaussian around each training digit, in double precision."""
        return Kernels(self.train.flatten(1).double(), std)


DIGITS = Digits()
