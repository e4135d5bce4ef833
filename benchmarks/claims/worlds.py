"""Small distributions on curved and flat spaces, for comparisons of ways to sample in a few steps.

Each world has noise, data that can be drawn without end, and two distances between samples and data: the Wasserstein-2
distance of geodesic lengths, and the energy distance of chords (for digits, the Fréchet distance in features of a small
classifier). The first is above zero for two finite sets of one distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.claims.digits import DIGITS
from benchmarks.claims.measures import energy_distance, wasserstein
from benchmarks.training import Perceptron
from fm_science.flow import Flow
from fm_science.networks import TimeEmbedding
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Prior, Uniform
from fm_science.spaces import SO3, Euclidean, Leaf, Sphere
from fm_science.spaces.rotations import rotation_exp


@dataclass(frozen=True)
class World:
    """What is to be learned.

    Attributes:
        title: for tables and figures.
        space, prior: where it lives, and the noise it is made from.
        data: ``n -> (n, 1, *event)``, fresh data.
        flat: ``(n, 1, *event) -> (n, 2)``, for pictures; ``None``: points are square images.
        unit: of lengths.
        width: of the network.
        likeness: ``samples -> distance`` from the data, lower is better, in place of the energy distance.
    """

    title: str
    space: Leaf
    prior: Prior
    data: Callable[[int], Tensor]
    flat: Callable[[Tensor], Tensor] | None
    unit: str = ""
    width: int = 64
    likeness: Callable[[Tensor], float] | None = None

    @property
    def second(self) -> str:
        """What the second distance is."""
        return "Fréchet distance in features" if self.likeness else "energy distance x 1000"

    def flow(self) -> Flow:
        """A flow with a blank two-time network of four layers."""
        dim, tangent = math.prod(self.space.event), tuple(self.space.tangent_event)
        time = TimeEmbedding(16, highest=20.0, two_times=True)
        return Flow(Geodesic(self.space), self.prior, Perceptron(dim, self.width, 4, time, tangent=tangent))


def clusters(space: Leaf, centres: Tensor, spread: float) -> Callable[[int], Tensor]:
    """Equal wrapped normal clusters around ``centres`` ``(K, *event)``."""

    def draw(n: int) -> Tensor:
        x = centres[torch.randint(len(centres), (n,))][:, None]
        return space.exp(x, spread * space.gaussian(x))

    return draw


def plane() -> World:
    """Eight Gaussians on a circle."""
    angle = 0.25 * math.pi * torch.arange(8)
    centres = 3 * torch.stack([angle.cos(), angle.sin()], -1)
    space = Euclidean(2)
    return World("plane: eight Gaussians", space, Normal(), clusters(space, centres, 0.25), lambda x: x[:, 0])


def sphere() -> World:
    """Five clusters, unevenly placed, from uniform noise."""
    space = Sphere(2)
    places = [[0.9, 0.1, 0.4], [0.2, 0.9, 0.4], [-0.6, 0.6, 0.5], [0.3, -0.5, 0.8], [0.6, 0.6, -0.5]]
    corners = space.project(torch.tensor(places))

    def flat(x: Tensor) -> Tensor:
        return torch.stack([torch.atan2(x[:, 0, 1], x[:, 0, 0]), x[:, 0, 2]], -1)  # equal areas

    return World("sphere: five clusters", space, Uniform(), clusters(space, corners, 0.2), flat, "rad")


def rotations() -> World:
    """Five clusters of rotations, unevenly placed, from uniform noise; pictures show where the third axis points."""
    turns = [[0.0, 0.0, 0.0], [1.5, 0.2, 0.0], [0.0, 1.4, 0.6], [0.3, -0.6, 1.6], [1.2, 1.2, -1.0]]
    centres = rotation_exp(torch.tensor(turns))
    space = SO3()

    def flat(x: Tensor) -> Tensor:
        return torch.stack([torch.atan2(x[:, 0, 1, 2], x[:, 0, 0, 2]), x[:, 0, 2, 2]], -1)

    return World("rotations: five clusters", space, Uniform(), clusters(space, centres, 0.2), flat, "rad")


def digits() -> World:
    """The shipped 8x8 digits, their grey levels dithered, as vectors of 64 values."""

    def draw(n: int) -> Tensor:
        return DIGITS.dithered(DIGITS.train[torch.randint(len(DIGITS.train), (n,))])

    return World("digits", Euclidean(64), Normal(), draw, None, width=256, likeness=DIGITS.distance)


WORLDS = {"plane": plane, "sphere": sphere, "rotations": rotations, "digits": digits}


def measured(world: World, samples: Tensor, seed: int, n: int = 600) -> tuple[float, float]:
    """Both distances between samples ``(N, 1, *event)`` and fresh data; W2 of the first ``n``, and the energy distance
    times 1000 or the likeness to data that the world has."""
    with torch.random.fork_rng([]):
        torch.manual_seed(10_000 + seed)
        data = world.data(len(samples))
    second = world.likeness(samples) if world.likeness else 1e3 * energy_distance(samples, data)
    return wasserstein(samples[:n], data[:n], world.space), second
