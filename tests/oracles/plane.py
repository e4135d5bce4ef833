"""Distributions in the plane on which the claims are tried."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def eight_gaussians(n: int, radius: float = 5.0, std: float = 1.0) -> Tensor:
    """Eight Gaussians of equal weight around a circle, ``(n, 2)``."""
    angle = 0.25 * math.pi * torch.randint(8, (n,))
    return radius * torch.stack([angle.cos(), angle.sin()], 1) + std * torch.randn(n, 2)


def moons(n: int, noise: float = 0.05) -> Tensor:
    """Two half circles of radius 2 that reach into each other, ``(n, 2)``."""
    angle, upper = math.pi * torch.rand(n), torch.rand(n) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return 2 * (torch.stack([x, y], 1) + noise * torch.randn(n, 2)) - 1


def scurve(n: int, noise: float = 0.05) -> Tensor:
    """The letter S, ``(n, 2)``."""
    angle = 3 * math.pi * (torch.rand(n) - 0.5)
    points = torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], 1)
    return 1.5 * (points + noise * torch.randn(n, 2))


def gaussian(n: int) -> Tensor:
    """The standard normal distribution, ``(n, 2)``."""
    return torch.randn(n, 2)


LAWS: dict[str, Callable[[int], Tensor]] = {
    "N": gaussian, "8gaussians": eight_gaussians, "moons": moons, "scurve": scurve,
}  # fmt: skip


def draw(law: str, n: int, seed: int) -> Tensor:
    """``n`` points of a distribution as states ``(n, 1, 2)``; torch's generator is left as it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return LAWS[law](n)[:, None]
