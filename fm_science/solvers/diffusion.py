"""The samplers of diffusion models, by their own names, on every affine Gaussian path.

A diffusion model is a path x_t = alpha(t) x1 + sigma(t) x0 with independent Gaussian noise x0. Its samplers differ only
in how much of the noise in x_t they replace by new noise in the step to time s. The *signal-to-noise ratio* is alpha /
sigma, and r = (alpha_t sigma_s) / (sigma_t alpha_s), in [0, 1], is how much smaller it is at t than at s. Then keeping
a correlation r with the old noise is the reverse-time SDE of the diffusion, solved exactly for a fixed prediction, and
also the ancestral step of DDPM; keeping all of it is DDIM, the first-order solver of the ODE. So no sampler here
depends on what the network was trained to predict, or on which path.

On products, the parts with Gaussian noise on a linear space are sampled in this way; all other parts follow the flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.ancestral import signal_ratio
from fm_science.paths import Bridge, Path, ProductPath
from fm_science.solvers.base import Predict, Solver
from fm_science.solvers.stochastic import Heat, PredictorCorrector, rate_at
from fm_science.state import expand_like


class _Exchange(Solver):
    """One evaluation per step: follow the prediction and exchange a part of the Gaussian noise."""

    stochastic = True
    splits = False

    def keep(self, path: Bridge, t: Tensor, s: Tensor) -> Tensor:
        """The correlation ``(B,)`` of the noise at time s with that at time t."""
        raise NotImplementedError

    def renoised_part(self, path: Path) -> Path:
        return path.only(*noisy(path)) if isinstance(path, ProductPath) else path

    def check(self, path: Path) -> None:
        some_noisy(self, path)

    def step(self, path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
        s = t + h
        keep = {name: self.keep(part, t, s) for name, part in noisy(path).items()}
        return path.renoise_step(predict(x, t), x, t, s, keep if isinstance(path, ProductPath) else keep[""])


@dataclass(frozen=True)
class ReverseSDE(_Exchange):
    """dx = (u + g²/2 score) dt + g dW from noise to data, weak order one (Anderson 1982; Song et al. 2021, eq. 6; for
    any g, Albergo, Boffi & Vanden-Eijnden 2023). For any g, the distribution of x_t is that of the path; g = 0 is the
    ODE. The exchange is integrated exactly by an exponential, so that no g overshoots.

    Args:
        g: noise per root of a unit of time in the units of the state: a number or a function of time ``(B,) -> (B,)``.
            None: that of the diffusion itself, g² = 2 sigma² d log(alpha / sigma)/dt for noise of standard deviation
            one (on VP it is beta); its step is exact for a fixed prediction, also where g is infinite.

    Raises TypeError, before the first step, on paths without Gaussian noise.
    """

    g: Heat | None = None

    def keep(self, path: Bridge, t: Tensor, s: Tensor) -> Tensor:
        if self.g is None:
            return signal_ratio(path, t, s)
        heat = 0.5 * (rate_at(self.g, t) / (path.sigma(t) * path.std)) ** 2
        return torch.exp(-(s - t) * heat)


@dataclass(frozen=True)
class DDIM(_Exchange):
    """Denoising diffusion implicit models, weak order one (Song, Meng & Ermon 2021, eq. 12 and 16).

    Args:
        eta: the share of new noise, from 0 (none: an exponential Euler step of the ODE) to 1 (the
            ancestral chain of DDPM). Raises ValueError otherwise.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM(eta={self.eta}): expected a number from 0 to 1.")

    def keep(self, path: Bridge, t: Tensor, s: Tensor) -> Tensor:
        return (1 - self.eta**2 * (1 - signal_ratio(path, t, s).square())).clamp_min(0).sqrt()


@dataclass(frozen=True)
class DDPM(DDIM):
    """The ancestral chain of denoising diffusion probabilistic models with the posterior variance (Ho, Jain & Abbeel
    2020, eq. 7): DDIM with eta = 1. The steps are those of the chain, so use as many as it has betas, or skip some."""

    eta: float = 1.0


@dataclass(frozen=True)
class AnnealedLangevin(PredictorCorrector):
    """Annealed Langevin dynamics: at each noise level, Langevin steps with its score, and no flow between the levels
    (Song & Ermon 2019, algorithm 1). It needs many steps at many levels; the last step follows the flow.

    Args:
        predictor: None.
        corrections: Langevin steps at each level, one evaluation each.
        refresh: the share of the noise that a Langevin step exchanges, in (0, 1].
    """

    predictor: Solver | None = None
    corrections: int = 10
    refresh: float = 0.2


@dataclass(frozen=True)
class DPMSolver(Solver):
    """DPM-Solver++(2M), order two in the log of the signal-to-noise ratio, one evaluation per step: an exponential
    Euler step (DDIM) towards the endpoint extrapolated from this step and the one before (Lu et al. 2022, algorithm 2).

    Steps that begin or end where that logarithm is infinite, as at both ends of a straight path, are of first order. A
    grid of equal ratios (:func:`~fm_science.solvers.log_snr_grid`) suits it.

    Args:
        order: 2, or 1 for DDIM. Raises ValueError otherwise.
    """

    order: int = 2
    splits = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"DPMSolver(order={self.order}): the order is 1 or 2.")

    def check(self, path: Path) -> None:
        some_noisy(self, path)

    def step(self, path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
        return self.begin(path)(path, predict, x, t, h)

    def begin(self, path: Path) -> Callable[..., Any]:
        before: dict[str, tuple[Tensor, Tensor]] = {}

        def step(path: Path, predict: Predict, x: Any, t: Tensor, h: Tensor) -> Any:
            raw, s, parts = predict(x, t), t + h, noisy(path)
            if not isinstance(path, ProductPath):
                return self._advance("", parts[""], raw, x, t, s, before)
            return {
                k: self._advance(k, parts[k], raw[k], x[k], t, s, before) if k in parts
                else path.parts[k].step(raw[k], x[k], t, s)
                for k in path.parts
            }  # fmt: skip

        return step

    def _advance(
        self, name: str, path: Bridge, raw: Tensor, x: Tensor, t: Tensor, s: Tensor,
        before: dict[str, tuple[Tensor, Tensor]],
    ) -> Tensor:  # fmt: skip
        """One step of a part; its endpoint and the length of the step are stored in ``before``."""
        x1hat, length = path.endpoint(raw, x, t), -signal_ratio(path, t, s).log()
        ahead = x1hat
        if self.order == 2 and name in before:
            last, stride = before[name]
            known = length.isfinite() & stride.isfinite()
            weight = torch.where(known, length / (2 * stride), 0.0)
            ahead = x1hat + expand_like(weight, x) * (x1hat - last)
        before[name] = x1hat, length
        return path.step_to_endpoint(x, ahead, t, s)


def noisy(path: Path) -> dict[str, Bridge]:
    """The parts of a bound path with Gaussian noise on a linear space, by name; the whole path has the name ""."""
    parts = path.parts if isinstance(path, ProductPath) else {"": path}
    return {k: p for k, p in parts.items() if isinstance(p, Bridge) and p.space.linear and p.has_score}


def some_noisy(solver: Solver, path: Path) -> None:
    """Raises TypeError if no part of a path has Gaussian noise on a linear space."""
    if not noisy(path):
        raise TypeError(
            f"{type(solver).__name__} needs a path with a score, of Gaussian noise on a linear space, and {path!r} has "
            "none. Use Euler() or Heun()."
        )
