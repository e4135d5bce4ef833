"""The parameters of a cloud: which surface of a family is nearest to its points, in any pose.

Size, pose and position are found together by gradient descent on the mean squared distance of points to the surface,
from the principal axes of the cloud in each of their three cyclic orders. All clouds are fitted together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.spaces.rotations import quaternion_matrix

from .shapes import FAMILIES, Family

STEPS = 150
ROUGH = 40  # steps after which only the best start of each cloud is continued


@dataclass(frozen=True)
class Fit:
    """Fits of B clouds. parameters ``(B, p)``; error ``(B,)``: root mean square distance of points to the surface."""

    parameters: Tensor
    error: Tensor


def fit(family: Family, x: Tensor) -> Fit:
    """The surfaces of a family nearest to clouds ``(B, N, 3)``."""
    x = (x - x.mean(1, keepdim=True)).double()
    axes = torch.linalg.svd(x, full_matrices=False)[2]  # principal axes, the longest first
    axes = torch.cat([axes[:, :2], torch.linalg.cross(axes[:, 0], axes[:, 1])[:, None]], 1)
    starts = [axes.roll(k, 1) for k in range(3)]
    tries = [_descend(family, x @ a.mT, _start(family, x @ a.mT), ROUGH) for a in starts]
    best = torch.stack([error for _, error in tries]).argmin(0)
    rows = torch.arange(len(x))
    frames = torch.stack(starts)[best, rows]
    begun = torch.stack([state for state, _ in tries])[best, rows]
    state, error = _descend(family, x @ frames.mT, begun, STEPS)
    return Fit(family.ordered(_read(family, state)[0].detach()), error)


def _start(family: Family, x: Tensor) -> Tensor:
    """The first guess: a shape with the family's usual parameters, scaled to the standard deviation of the cloud along
    each axis."""
    middle = torch.tensor([(a + b) / 2 for a, b in zip(family.low, family.high, strict=True)], dtype=x.dtype)
    guess = middle.expand(len(x), -1).clone()
    if family.alike:
        guess[:, :3] = 1.6 * x.square().mean(1).sqrt()
    pose = torch.tensor([1.0, 0, 0, 0, 0, 0, 0], dtype=x.dtype).expand(len(x), 7)
    return torch.cat([guess.clamp_min(0.05).log(), pose], 1)


def _read(family: Family, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters ``(B, p)``, rotation ``(B, 3, 3)`` and position ``(B, 3)``."""
    p = len(family.numbers)
    numbers = state[:, :p].exp().clamp(0.02, 4.0)
    return numbers, quaternion_matrix(state[:, p : p + 4]), state[:, p + 4 :]


def _descend(family: Family, x: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    state = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([state], lr=0.05, betas=(0.8, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.002)
    for _ in range(steps):
        with torch.enable_grad():
            loss = _square(family, x, state)
            (state.grad,) = torch.autograd.grad(loss.sum(), state)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return state.detach(), _square(family, x, state).sqrt()


def _square(family: Family, x: Tensor, state: Tensor) -> Tensor:
    numbers, turn, place = _read(family, state)
    return family.distance(numbers, (x - place[:, None]) @ turn).square().mean(1)


def recognised(x: Tensor) -> tuple[Tensor, dict[str, Fit]]:
    """Which family each cloud ``(B, N, 3)`` is nearest to, ``(B,)``, and its fit by every family."""
    found = {name: fit(family, x) for name, family in FAMILIES.items()}
    return torch.stack([f.error for f in found.values()]).argmin(0), found
