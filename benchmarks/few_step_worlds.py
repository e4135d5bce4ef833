"""Small laws on curved and flat spaces, for comparisons of ways to sample in a few steps.

Each world has noise, data that can be drawn without end, and two distances between samples and data: the Wasserstein-2
distance of geodesic lengths, and the energy distance of chords (for digits, the Fréchet distance in features of a small
classifier). The first is above zero for two finite sets of one law.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from fm_science.networks import TimeEmbedding
from fm_science.paths import Geodesic
from fm_science.priors import Normal, Prior, Uniform
from fm_science.spaces import SO3, Euclidean, Leaf, Sphere
from fm_science.spaces.rotations import rotation_exp
from fm_science.state import Context


@dataclass(frozen=True)
class World:
    """A law to learn.

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

    @property
    def path(self) -> Geodesic:
        return Geodesic(self.space)


class Perceptron(nn.Module):
    """A two-time network on single points of any space: coordinates and times in, a tangent out.

    Args:
        space: where points live.
        width: of the hidden layers, of which there are four.
    """

    two_times = True

    def __init__(self, space: Leaf, width: int = 64) -> None:
        super().__init__()
        self.shape = space.tangent_event
        self.time = TimeEmbedding(16, highest=20.0, two_times=True)
        sizes = [math.prod(space.event) + self.time.features, *[width] * 4]
        hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, math.prod(self.shape)))

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        seen = torch.cat([x.flatten(1), self.time(t, context.t_end)], -1)
        return self.net(seen).unflatten(-1, (1, *self.shape))


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
    """Five clusters of rotations, unevenly placed, from uniform noise."""
    turns = [[0.0, 0.0, 0.0], [1.5, 0.2, 0.0], [0.0, 1.4, 0.6], [0.3, -0.6, 1.6], [1.2, 1.2, -1.0]]
    centres = rotation_exp(torch.tensor(turns))
    space = SO3()
    return World("rotations: five clusters", space, Uniform(), clusters(space, centres, 0.2), _third_axis, "rad")


def digits() -> World:
    """The shipped 8x8 digits, their grey levels dithered, as vectors of 64 values."""
    from benchmarks.claims.digits import DIGITS

    def draw(n: int) -> Tensor:
        return DIGITS.dithered(DIGITS.train[torch.randint(len(DIGITS.train), (n,))])

    space = Euclidean(64)
    return World("digits", space, Normal(), draw, None, width=256, likeness=DIGITS.distance)


def _third_axis(x: Tensor) -> Tensor:
    """Where the third axis points: longitude and height."""
    return torch.stack([torch.atan2(x[:, 0, 1, 2], x[:, 0, 0, 2]), x[:, 0, 2, 2]], -1)


WORLDS = {"plane": plane, "sphere": sphere, "rotations": rotations, "digits": digits}


def wasserstein(world: World, x: Tensor, y: Tensor) -> float:
    """W2 between two sets of equal size, by exact assignment of squared geodesic lengths."""
    cost = torch.cat([squares(world, x, part) for part in y.split(50)], 1).double().numpy()
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean()) ** 0.5


def squares(world: World, x: Tensor, y: Tensor) -> Tensor:
    """Squared geodesic distances of all pairs, ``(len(x), len(y))``."""
    pairs = Context.full(len(x) * len(y))
    a, b = x.repeat_interleave(len(y), 0), y.repeat(len(x), *[1] * (y.ndim - 1))
    return world.space.bind(pairs).distance(a, b).square().reshape(len(x), len(y))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of chords (Székely & Rizzo 2013), without the pairs of a point with itself,
    so that it is unbiased: about zero, and perhaps below, for two sets of one law."""
    a, b = x.flatten(1).double(), y.flatten(1).double()

    def inside(z: Tensor) -> Tensor:
        return torch.cdist(z, z).sum() / (len(z) * (len(z) - 1))

    return float(2 * torch.cdist(a, b).mean() - inside(a) - inside(b))


def measured(world: World, samples: Tensor, seed: int, n: int = 600) -> dict[str, float]:
    """Both distances between samples ``(N, 1, *event)`` and fresh data; W2 of the first ``n``, and the energy distance
    times 1000 or the likeness to data that the world has."""
    with torch.random.fork_rng([]):
        torch.manual_seed(10_000 + seed)
        data = world.data(len(samples))
    second = world.likeness(samples) if world.likeness else 1e3 * energy_distance(samples, data)
    return {"w2": wasserstein(world, samples[:n], data[:n]), "second": second}
