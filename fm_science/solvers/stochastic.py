"""Solvers that exchange noise in their steps.

The noise in x_t may be replaced by new noise without changing the distribution of x_t, wherever that of the noise is
known: Gaussian noise on linear spaces, a known prior on classes. This corrects the errors of earlier steps, at the
price of more steps. The *heat* is the rate of exchange: over a time h, noise has the correlation exp(-heat h) with its
previous value, and a class is kept with that probability.

On linear spaces this is the Langevin equation dx = (u + c score) dt + sqrt(2 c) dW with c = heat times the covariance
of the noise in x_t (Song et al. 2021, appendix D), discretised so that heat cannot overshoot and the last step ends at
the data. On classes it is the corrector of discrete flows, or remasking (Campbell et al. 2024; Gat et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_science.declarations import derived
from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver, smooth_only, stepper
from fm_science.solvers.fixed import Euler, Heun
from fm_science.state import State, add, scale

Heat = float | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Langevin(Solver):
    """One evaluation per step, weak order one: follow the flow and exchange noise at a rate.

    Args:
        heat: rate of exchange per unit of time: a number, a function of time ``(B,) -> (B,)``, or a dict of such by
            part of a product (parts without heat follow the flow).
    """

    heat: Heat | Mapping[str, Heat] = 1.0
    stochastic = True
    splits = False

    @property
    def _named(self) -> Mapping[str, Heat] | None:
        """Heat by part, if it is given in this way."""
        return self.heat if isinstance(self.heat, Mapping) else None

    def renoised_part(self, path: Path) -> Path:
        return path if self._named is None else path.only(*self._named)

    def check(self, path: Path) -> None:
        if self._named is None:
            require_score(self, path)
        for name in self._named or ():
            if name not in path.parts:
                raise TypeError(
                    f"heat names the part {name!r}; the parts of this path are {sorted(path.parts) or 'none'}."
                )
            require_score(self, path.parts[name])

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        raw = predict(x, t)
        named: Mapping[str, Any] = {"": self.heat} if self._named is None else self._named
        keep = {k: torch.exp(-h * rate_at(heat, t)) for k, heat in named.items()}
        return path.renoise_step(raw, x, t, t + h, keep[""] if self._named is None else keep)


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """After each step of a predictor, Langevin steps at a fixed time (Song et al. 2021, algorithm 1). Without a
    predictor, the noise level is lowered by the schedule alone: annealed Langevin dynamics (Song & Ermon 2019), which
    needs many corrections; the last step follows the flow.

    Args:
        predictor: the solver of the flow, or None.
        corrections: Langevin steps after each step, one evaluation each.
        refresh: the share of the noise that a correction exchanges, in (0, 1].
    """

    predictor: Solver | None = Euler()
    corrections: int = 1
    refresh: float = 0.1
    stochastic = True
    splits = False

    @derived
    def two_times(self) -> bool:
        return self.predictor is not None and self.predictor.two_times

    def check(self, path: Path) -> None:
        require_score(self, path)
        if self.predictor is not None:
            self.predictor.check(path)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        s = t + h
        if self.predictor is not None:
            x = stepper(self.predictor, path)(path, predict, x, t, h)
        elif bool((s >= 1).all()):  # the schedule alone would leave the noise of the last step
            return path.step(predict(x, t), x, t, s)
        keep = torch.full_like(t, 1 - self.refresh)
        for _ in range(0 if bool((s >= 1).all()) else self.corrections):
            x = path.renoise_step(predict(x, s), x, s, s, keep)
        return x


@dataclass(frozen=True)
class Churn(Solver):
    """Before each step, move back in time by adding noise, and step from there (Karras et al. 2022, algorithm 2). On
    classes this is remasking.

    Args:
        solver: the solver of the step.
        amount: how far back, in steps; never before t = 0.
    """

    solver: Solver = Heun()
    amount: float = 0.5
    stochastic = True
    splits = False

    @derived
    def two_times(self) -> bool:
        return self.solver.two_times

    def check(self, path: Path) -> None:
        require_score(self, path)
        self.solver.check(path)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        back = (t - self.amount * h).clamp_min(0)
        x = path.add_noise(x, t, back)
        return stepper(self.solver, path)(path, predict, x, back, t + h - back)


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """One evaluation per step, weak order one: dx = velocity dt + sigma dW (Maruyama 1955), on every smooth space.
    Unlike the solvers above it does not keep the distribution of the flow: it is the dynamics whose drift entropic
    action matching learns (:class:`~fm_science.objectives.ActionMatching`).

    Args:
        sigma: noise per root of a unit of time, a number or a function of time ``(B,) -> (B,)``.
    """

    sigma: Heat

    def check(self, path: Path) -> None:
        smooth_only(self, path)

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        drift = scale(h, path.velocity(predict(x, t), x, t))
        return path.space.exp(x, add(drift, scale(rate_at(self.sigma, t) * h.sqrt(), path.space.gaussian(x))))


def rate_at(heat: Heat, t: Tensor) -> Tensor | float:
    """The heat at a time."""
    return heat(t) if callable(heat) else heat


def require_score(solver: Solver, path: Path) -> None:
    """Raises TypeError for a solver that exchanges noise on a path where the distribution of the noise is not known."""
    if not path.has_score:
        raise TypeError(
            f"{type(solver).__name__} needs a path with a score; {path!r} has none: it needs a linear space with a "
            "Gaussian prior, or classes with a known prior. Use Euler() or Heun(), or give heat to other parts only."
        )
