"""Laws of rows that are made here: the plane figures on which the founding papers show what a flow does.

Those with a density in closed form have a known entropy, below which no likelihood can fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .files import Frame, Numbers, Series

Rng = np.random.Generator


@dataclass(frozen=True)
class Law:
    """A law of rows.

    Attributes:
        draw: ``(n, generator) -> (n, d)``.
        log_density: ``(n, d) -> (n,)`` in nats; ``None`` where it is not known.
    """

    draw: Callable[[int, Rng], Numbers]
    log_density: Callable[[Numbers], Numbers] | None = None


def moons(n: int, rng: Rng) -> Numbers:
    """Two half circles that interlock, with noise of 0.1 (as scikit-learn's make_moons)."""
    angle, lower = np.pi * rng.random(n), rng.random(n) < 0.5
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], 1) + 0.1 * rng.standard_normal((n, 2))


def checkerboard(n: int, rng: Rng) -> Numbers:
    """The dark squares of a four by four board on [-4, 4]²."""
    column, row = rng.integers(0, 4, n), rng.integers(0, 2, n)
    corner = np.stack([2 * column, 4 * row + 2 * (column % 2)], 1)
    return corner - 4 + 2 * rng.random((n, 2))


def _checkerboard_density(x: Numbers) -> Numbers:
    square = np.floor((x + 4) / 2)
    inside = (np.abs(x) <= 4).all(1) & (square.sum(1) % 2 == 0)
    return np.where(inside, -math.log(32), -np.inf)


def swiss_roll(n: int, rng: Rng) -> Numbers:
    """A spiral of one and a half turns, with noise of 0.1."""
    t = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.stack([t * np.cos(t), t * np.sin(t)], 1) / 5 + 0.1 * rng.standard_normal((n, 2))


def rings(n: int, rng: Rng) -> Numbers:
    """Four circles around one point, with noise of 0.08."""
    radius, angle = rng.integers(1, 5, n), 2 * np.pi * rng.random(n)
    return 0.75 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.standard_normal((n, 2))


def pinwheel(n: int, rng: Rng) -> Numbers:
    """Five arms around one point (Johnson et al. 2016)."""
    arm = rng.integers(0, 5, n)
    x = rng.standard_normal((n, 2)) * [0.3, 0.05] + [1, 0]
    turn = 2 * np.pi * arm / 5 + 0.25 * np.exp(x[:, 0])
    cos, sin = np.cos(turn), np.sin(turn)
    return 2 * np.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], 1)


def mixture(means: Numbers, std: float, weights: Numbers) -> Law:
    """Gaussians of equal spread with means ``(k, d)`` and weights ``(k,)``."""
    k, d = means.shape

    def draw(n: int, rng: Rng) -> Numbers:
        return means[rng.choice(k, n, p=weights)] + std * rng.standard_normal((n, d))

    def log_density(x: Numbers) -> Numbers:
        square = ((x[:, None] - means) ** 2).sum(-1)
        logs = np.log(weights) - 0.5 * square / std**2 - d * (math.log(std) + 0.5 * math.log(2 * math.pi))
        top = logs.max(1)
        return top + np.log(np.exp(logs - top[:, None]).sum(1))

    return Law(draw, log_density)


_TURN = 2 * np.pi * np.arange(8) / 8
_FAR = np.random.default_rng(0).standard_normal((10, 10)) * 2

LAWS: dict[str, Law] = {
    "moons": Law(moons),
    "8gaussians": mixture(4 * np.stack([np.cos(_TURN), np.sin(_TURN)], 1), 0.5, np.full(8, 1 / 8)),
    "checkerboard": Law(checkerboard, _checkerboard_density),
    "two_modes": mixture(np.array([[-4.0], [4.0]]), 0.5, np.array([0.8, 0.2])),
    "mixture10": mixture(_FAR, 0.5, np.full(10, 0.1)),
    "swiss_roll": Law(swiss_roll),
    "rings": Law(rings),
    "pinwheel": Law(pinwheel),
}  #: by the name that ``data.source`` takes


def drawn(name: str, n: int, seed: int) -> Frame:
    """``n`` rows of a law as a table with the columns x1, x2, ..."""
    rows = LAWS[name].draw(n, np.random.default_rng(seed))
    names = ["x", "y"] if rows.shape[1] == 2 else [f"x{k + 1}" for k in range(rows.shape[1])]
    return Frame(tuple(Series(k, v.copy(), None) for k, v in zip(names, rows.T, strict=True)), True, name)
