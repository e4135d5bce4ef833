"""Identities between flows and diffusions, by their names.

A law rho_t may be moved by an ordinary equation dx = u dt or by a stochastic one dX = b dt + sigma dW, forwards or
backwards in time. These functions go from one to the other, and measure how far fields and densities are from belonging
together. Points are vectors ``(B, D)``, times ``(B,)``; fields are functions ``(x, t) -> (B, D)``, and work without
batches being mixed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fm_science.sde import Diffusion as Diffusion
from fm_science.sde import ScalarField as ScalarField
from fm_science.sde import VectorField as VectorField


def backward_drift(drift: Tensor, score: Tensor, sigma: float | Tensor) -> Tensor:
    """Nelson's relation: the process dX = b dt + sigma dW is, seen backwards, dX = b* dt + sigma dW* with b* = b -
    sigma² grad log rho (Nelson 1967; Anderson 1982). Time still runs forwards in b*: a walk back steps by -b* dt.

    Args:
        drift, score: b and grad log rho ``(B, D)`` at the same points.
        sigma: noise a unit of root time.
    """
    return drift - sigma**2 * score


def current_velocity(drift: Tensor, score: Tensor, sigma: float | Tensor) -> Tensor:
    """The mean of the forward and the backward drift, b - sigma² / 2 grad log rho: the velocity of the ordinary
    equation with the same law (Nelson 1967; the probability flow of Song et al. 2021, eq. 13)."""
    return drift - 0.5 * sigma**2 * score


def osmotic_velocity(score: Tensor, sigma: float | Tensor) -> Tensor:
    """Half the difference of the forward and the backward drift, sigma² / 2 grad log rho (Nelson 1967)."""
    return 0.5 * sigma**2 * score


def probability_flow(drift: VectorField, diffusion: Diffusion, score: VectorField) -> VectorField:
    """The ordinary equation with the law of dX = b dt + S(x, t) dW: u = b - div(S S^T) / 2 - S S^T grad log rho / 2,
    with the divergence taken row by row (Song et al. 2021, appendix D.1).

    Args:
        drift: b.
        diffusion: S ``(B, D, M)``, a function of the place too.
        score: grad log rho.
    """

    def spread(x: Tensor, t: Tensor) -> Tensor:
        s = diffusion(x[None], t[None])[0]
        return s @ s.T

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        covariance = torch.func.vmap(spread)(x, t)
        slope = torch.func.vmap(torch.func.jacfwd(spread))(x, t)  # (B, D, D, D)
        return drift(x, t) - 0.5 * slope.diagonal(dim1=2, dim2=3).sum(-1) - 0.5 * (
            covariance @ score(x, t)[..., None]
        ).squeeze(-1)  # fmt: skip

    return velocity


def ornstein_uhlenbeck_bridge(
    x: Tensor, t: Tensor, end: Tensor, theta: float = 1.0, sigma: float = 1.0, duration: float = 1.0
) -> Tensor:
    """The drift of dX = -theta X dt + sigma dW when it is bound to arrive at ``end``: Doob's h-transform -theta x +
    sigma² grad log h, where h is the density of arriving (Doob 1957). As theta tends to zero it is the Brownian bridge,
    (end - x) / (duration - t).

    Args:
        x, end: ``(B, D)``.
        t: ``(B,)``, before ``duration``: when the process arrives its drift is infinite.
        theta: how fast the process returns to zero, not negative.
        sigma: noise a unit of root time.
        duration: when it arrives.

    Returns:
        ``(B, D)``.
    """
    rest = (duration - t)[:, None]
    if theta == 0:
        return (end - x) / rest
    decay = torch.exp(-theta * rest)
    variance = -sigma**2 * torch.expm1(-2 * theta * rest) / (2 * theta)
    return -theta * x + sigma**2 * decay * (end - decay * x) / variance


def continuity_residual(log_density: ScalarField, velocity: VectorField, x: Tensor, t: Tensor) -> Tensor:
    """d log rho/dt + div u + u . grad log rho ``(B,)``, which is zero where u moves rho."""
    return fokker_planck_residual(log_density, velocity, 0.0, x, t)


def fokker_planck_residual(
    log_density: ScalarField, drift: VectorField, sigma: float | Tensor, x: Tensor, t: Tensor
) -> Tensor:
    """What is left of the Fokker-Planck equation, over the density: d log rho/dt + div b + b . s - sigma² / 2 (div s +
    |s|²) with s = grad log rho, ``(B,)``. It is zero where rho is the law of dX = b dt + sigma dW (Risken 1989)."""

    def log(y: Tensor, r: Tensor) -> Tensor:
        return log_density(y[None], r[None])[0]

    def field(y: Tensor, r: Tensor) -> Tensor:
        return drift(y[None], r[None])[0]

    def one(y: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        score, rate = torch.func.grad(log, argnums=(0, 1))(y, r)
        curve = torch.func.jacrev(torch.func.grad(log))(y, r).trace()
        b, spread = field(y, r), torch.func.jacrev(field)(y, r).trace()
        return rate + spread + (b * score).sum(), curve + score.square().sum()

    moved, diffused = torch.func.vmap(one)(x, t)
    return moved - 0.5 * sigma**2 * diffused


def transport_bound(lipschitz: float, loss: float) -> float:
    """The largest squared Wasserstein-2 distance between the laws that two flows make of the same noise by t = 1:
    e^(1 + 2 K) H, for the mean squared difference H of their velocities along the ways of one, integrated over time,
    and the Lipschitz constant K of the other (Albergo & Vanden-Eijnden 2023)."""
    return math.exp(1 + 2 * lipschitz) * loss
