"""Stochastic differential equations whose noise depends on the place: dX = b(x, t) dt + S(x, t) dW, in Itô's sense.

Points are vectors ``(B, D)``, times ``(B,)``, and W has M components. An equation is simulated over a grid of times by
one of three steps. The *strong* order says how fast single paths come near those of the same Brownian motion, the
*weak* order how fast their law does:

    step             strong   weak   needs
    euler_maruyama   1/2      1      nothing else
    milstein         1        1      noise that commutes
    stochastic_heun  1        1      noise that commutes; weak 2 where S does not depend on the place

Noise commutes where the derivative of each column of S along another is that of the other along the first: one
component, one component for each coordinate, or S constant in place (Kloeden & Platen 1992, chapters 10 and 11).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fm_science.seeds import seeded

VectorField = Callable[[Tensor, Tensor], Tensor]  #: ``(x (B, D), t (B,)) -> (B, D)``
ScalarField = Callable[[Tensor, Tensor], Tensor]  #: ``(x (B, D), t (B,)) -> (B,)``
Diffusion = Callable[[Tensor, Tensor], Tensor]  #: ``(x (B, D), t (B,)) -> (B, D, M)``

APART = 1e-4  #: how far two columns of noise may be from commuting, relative to their size


@dataclass(frozen=True)
class SDE:
    """dX = b dt + S dW.

    Args:
        drift: b ``(x, t) -> (B, D)``.
        diffusion: S ``(x, t) -> (B, D, M)``, noise per root of a unit of time; rows of a batch are not mixed.
        step: ``euler_maruyama``, ``milstein`` or ``stochastic_heun``.
    """

    drift: VectorField
    diffusion: Diffusion
    step: Step | None = None

    def trajectory(
        self, x: Tensor, times: Tensor, seed: int | None = None, increments: Tensor | None = None
    ) -> Iterator[Tensor]:  # fmt: skip
        """The points at ``times[1:]``, one by one.

        Args:
            x: ``(B, D)``, where the paths begin.
            times: increasing, ``(K + 1,)``.
            seed: of the Brownian motion; torch's global generator is left as it was between the points.
            increments: of the Brownian motion over each step ``(K, B, M)``, in place of random ones.

        Raises:
            ValueError: for points, times, noise or increments of other shapes, and noise that does not commute where it
                must.
        """
        size = self._check(x, times)
        if increments is None:
            with seeded(seed, x.device):
                increments = brownian_increments(times, len(x), size).to(x)
        if increments.shape != (len(times) - 1, len(x), size):
            raise ValueError(
                f"increments of shape {tuple(increments.shape)} were given; expected (steps, batch, components of the "
                f"noise), {(len(times) - 1, len(x), size)}."
            )
        step = euler_maruyama if self.step is None else self.step
        for (t, s), w in zip(itertools.pairwise(times.tolist()), increments, strict=True):
            x = step(self, x, x.new_full((len(x),), t), s - t, w)
            yield x

    def sample(
        self, x: Tensor, times: Tensor, seed: int | None = None, increments: Tensor | None = None
    ) -> Tensor:  # fmt: skip
        """The points at the last of ``times``; arguments as for :meth:`trajectory`."""
        for y in self.trajectory(x, times, seed, increments):
            x = y
        return x

    def columns(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """S ``(B, D, M)``, and the derivative of its column k along its column j, ``(B, D, j, k)``."""

        def one(y: Tensor, r: Tensor) -> Tensor:
            return self.diffusion(y[None], r[None])[0]

        s = self.diffusion(x, t)
        slope = torch.func.vmap(torch.func.jacfwd(one))(x, t)  # (B, D, M, D)
        return s, torch.einsum("bikl,blj->bijk", slope, s)

    def _check(self, x: Tensor, times: Tensor) -> int:
        """The number of components of the noise."""
        if x.ndim != 2:
            raise ValueError(f"points of shape {tuple(x.shape)} were given; expected vectors (batch, dimension).")
        if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
            raise ValueError("times: expected at least two, increasing.")
        s = self.diffusion(x, x.new_full((len(x),), float(times[0])))
        if s.ndim != 3 or s.shape[:2] != x.shape:
            given = tuple(s.shape)
            raise ValueError(f"the diffusion gave {given}; expected (batch, dimension, components), {(*x.shape, 'M')}.")
        return s.shape[2]


Step: TypeAlias = Callable[[SDE, Tensor, Tensor, float, Tensor], Tensor]  #: ``(sde, x, t (B,), h, dW (B, M)) -> x``


def brownian_increments(times: Tensor, batch: int, size: int) -> Tensor:
    """Independent N(0, h) for each step of ``times`` ``(K + 1,)``: ``(K, batch, size)``, from torch's generator. Sums
    of neighbours are the increments of the same motion on a coarser grid."""
    h = times.diff()[:, None, None]
    return h.sqrt() * torch.randn(len(h), batch, size, dtype=times.dtype, device=times.device)


def euler_maruyama(sde: SDE, x: Tensor, t: Tensor, h: float, w: Tensor) -> Tensor:
    """x + b h + S dW (Maruyama 1955)."""
    return x + h * sde.drift(x, t) + _apply(sde.diffusion(x, t), w)


def milstein(sde: SDE, x: Tensor, t: Tensor, h: float, w: Tensor) -> Tensor:
    """x + b h + S dW + sum_jk (S_j . grad) S_k (dW_j dW_k - delta_jk h) / 2, where noise commutes (Milstein 1974)."""
    s, slope = sde.columns(x, t)
    _require_commuting(slope)
    square = w[:, :, None] * w[:, None, :] - h * torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
    return x + h * sde.drift(x, t) + _apply(s, w) + 0.5 * torch.einsum("bijk,bjk->bi", slope, square)


def stochastic_heun(sde: SDE, x: Tensor, t: Tensor, h: float, w: Tensor) -> Tensor:
    """The mean of the changes at both ends of a step, which converges to Stratonovich's integral; its drift is b less
    half of sum_j (S_j . grad) S_j, so that the equation is Itô's (Rümelin 1982)."""

    def change(y: Tensor, r: Tensor) -> Tensor:
        s, slope = sde.columns(y, r)
        _require_commuting(slope)
        return h * (sde.drift(y, r) - 0.5 * slope.diagonal(dim1=2, dim2=3).sum(-1)) + _apply(s, w)

    first = change(x, t)
    return x + 0.5 * (first + change(x + first, t + h))


def _apply(s: Tensor, w: Tensor) -> Tensor:
    return (s @ w[..., None]).squeeze(-1)


def _require_commuting(slope: Tensor) -> None:
    """Raises ValueError where the derivatives of two columns of noise along each other differ."""
    gap = (slope - slope.mT).abs().amax() if slope.numel() else slope.new_zeros(())
    if bool(gap > APART * slope.abs().amax().clamp_min(1e-12)):
        raise ValueError(
            "the components of this noise do not commute, and then paths of strong order one need more than the "
            "increments of the Brownian motion: use euler_maruyama."
        )
