"""Paths: given both ends and a clock, where am I, and what must a network tell me?

A path joins noise x0 and datum x1. It says where the sample is at time t, what the raw output of a network means (its
*prediction*), and which velocity follows from it. Paths know no network and no optimiser. On flat spaces a geodesic
path is the straight line of rectified flow; on classes it is the mixture path; the code is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_science.predictions import Prediction, Velocity
from fm_science.priors import Prior, ProductPrior
from fm_science.schedules import Linear, Schedule
from fm_science.spaces.base import Product, Space
from fm_science.state import Context, State, scale


class Path(ABC):
    """How samples travel from noise (t = 0) to data (t = 1). ``raw`` is a network's output, ``t`` is ``(B,)``."""

    space: Any
    scored: bool = False  #: whether the score of the marginals has a closed form

    @abstractmethod
    def bind(self, context: Context, prior: Prior | None = None) -> Path:
        """A copy whose space knows the batch, and which knows the law of the noise."""

    @abstractmethod
    def sample(self, x0: Any, x1: Any, t: Tensor) -> Any:
        """The point at time t between the noise ``x0`` and the datum ``x1``."""

    @abstractmethod
    def loss(self, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        """What a training step minimises at ``x`` = sample(x0, x1, t): ``(B,)``, or a dict of such by part."""

    @abstractmethod
    def velocity(self, raw: Any, x: Any, t: Tensor) -> Any:
        """The predicted velocity at ``x``, a tangent."""

    @abstractmethod
    def endpoint(self, raw: Any, x: Any, t: Tensor) -> Any:
        """The predicted datum, a point."""

    @abstractmethod
    def step(self, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        """The point at time s when the prediction made at (x, t) is held fixed."""

    @property
    @abstractmethod
    def singular(self) -> bool:
        """Whether the velocity is undefined at t = 1, so that the last step must be :meth:`step`."""

    def score(self, raw: Any, x: Any, t: Tensor) -> Any:
        """The gradient of the log-density of the marginal at time t. Raises TypeError where it has no closed form."""
        raise TypeError(f"{self!r} has no score. Use Euler or Heun, or a Gaussian path.")

    def source(self, prior: Prior) -> Prior:
        """The law of the state at t = 0 when the noise is drawn from ``prior``."""
        return prior

    def modules(self) -> list[nn.Module]:
        """What the path itself learns."""
        return []


@dataclass(frozen=True)
class Bridge(Path):
    """A path on one leaf space that is known through the drift towards an endpoint.

    Args:
        space: where the path lives.
        schedule: its clock.
        predicts: what the network's output means.
    """

    space: Space
    schedule: Schedule = Linear()
    predicts: Prediction = Velocity()
    prior: Prior | None = field(default=None, repr=False)

    @abstractmethod
    def drift(self, x: Any, x1: Any, t: Tensor) -> Any:
        """The velocity at (x, t) of the path that ends at ``x1``."""

    @abstractmethod
    def landing(self, x: Any, u: Any, t: Tensor) -> Any:
        """The endpoint of the path that passes (x, t) with velocity ``u``; the inverse of :meth:`drift`."""

    @abstractmethod
    def advance(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        """From (x, t) to time s along the path that ends at ``x1hat``: exact, at most one whole way, never singular."""

    @property
    def singular(self) -> bool:
        return self.predicts.singular

    def bind(self, context: Context, prior: Prior | None = None) -> Bridge:
        return replace(self, space=self.space.bind(context), prior=prior)

    def loss(self, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Tensor:
        return self.predicts.loss(self, raw, x0, x1, x, t)

    def velocity(self, raw: Any, x: Any, t: Tensor) -> Any:
        return self.predicts.velocity(self, raw, x, t)

    def endpoint(self, raw: Any, x: Any, t: Tensor) -> Any:
        return self.predicts.endpoint(self, raw, x, t)

    def step(self, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        return self.predicts.step(self, raw, x, t, s)


@dataclass(frozen=True)
class Geodesic(Bridge):
    """x_t = exp(x0, k(t) log(x0, x1)), k = alpha of the schedule (Chen & Lipman 2024, eq. 13).

    On linear spaces this is the straight line (Liu et al. 2023), on classes the mixture path (Gat et al. 2024).
    """

    def _pace(self, t: Tensor) -> Tensor:
        """k' / (1 - k), the rate at which the remaining way shrinks; infinite at t = 1."""
        left, rate = torch.func.jvp(self.schedule.remaining, (t.clone(),), (torch.ones_like(t),))  # type: ignore[misc]
        return -rate / left

    def sample(self, x0: Any, x1: Any, t: Tensor) -> Any:
        k, _ = self.schedule(t)
        return self.space.exp(x0, scale(k, self.space.log(x0, x1)))

    def drift(self, x: Any, x1: Any, t: Tensor) -> Any:
        return scale(self._pace(t), self.space.log(x, x1))

    def landing(self, x: Any, u: Any, t: Tensor) -> Any:
        return self.space.exp(x, scale(1 / self._pace(t), u))

    def advance(self, x: Any, x1hat: Any, t: Tensor, s: Tensor) -> Any:
        fraction = 1 - self.schedule.remaining(s) / self.schedule.remaining(t)
        return self.space.exp(x, scale(fraction, self.space.log(x, x1hat)))

    def denoised(self, x: Any, x0: Any, t: Tensor) -> Any:
        """The endpoint of the straight line that left ``x0``; needs a linear space."""
        if not self.space.linear:
            raise TypeError(f"{self!r} predicts noise on a curved space. Use Velocity() or Endpoint().")
        k, _ = self.schedule(t)
        return self.space.exp(x0, scale(1 / k, self.space.log(x0, x)))


class ProductPath(Path):
    """Paths side by side on the parts of a product space, all on one clock but each with its own schedule."""

    def __init__(self, **parts: Path) -> None:
        self.parts = parts
        self.space = Product(**{k: p.space for k, p in parts.items()})

    def __repr__(self) -> str:
        return f"ProductPath({', '.join(f'{k}={v!r}' for k, v in self.parts.items())})"

    def _over(self, method: str, *states: State, t: tuple[Tensor, ...]) -> dict[str, Any]:
        return {k: getattr(p, method)(*(x[k] for x in states), *t) for k, p in self.parts.items()}  # type: ignore

    @property
    def singular(self) -> bool:
        return any(p.singular for p in self.parts.values())

    @property
    def scored(self) -> bool:  # type: ignore[override]
        return all(p.scored for p in self.parts.values())

    def bind(self, context: Context, prior: Prior | None = None) -> ProductPath:
        priors = prior.parts if isinstance(prior, ProductPrior) else {}
        return ProductPath(**{k: p.bind(context.part(k), priors.get(k)) for k, p in self.parts.items()})

    def replaced(self, **parts: Path) -> ProductPath:
        """The same path with some parts exchanged."""
        return ProductPath(**{**self.parts, **parts})

    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        return self._over("sample", x0, x1, t=(t,))

    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> dict[str, Tensor]:
        return self._over("loss", raw, x0, x1, x, t=(t,))

    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        return self._over("velocity", raw, x, t=(t,))

    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        return self._over("endpoint", raw, x, t=(t,))

    def score(self, raw: State, x: State, t: Tensor) -> State:
        return self._over("score", raw, x, t=(t,))

    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return self._over("step", raw, x, t=(t, s))

    def source(self, prior: Prior) -> Prior:
        if not isinstance(prior, ProductPrior):
            return prior
        return ProductPrior(**{k: self.parts[k].source(p) for k, p in prior.parts.items()})

    def modules(self) -> list[nn.Module]:
        return [m for p in self.parts.values() for m in p.modules()]


@dataclass(frozen=True)
class Field(Path):
    """A path known only through its velocity field: the raw output is the velocity itself. It joins no data, and
    serves to integrate any field on any space (reversed flows, densities)."""

    space: Any
    singular = False  # type: ignore[assignment]

    def bind(self, context: Context, prior: Prior | None = None) -> Field:
        return Field(self.space.bind(context))

    def velocity(self, raw: Any, x: Any, t: Tensor) -> Any:
        return raw

    def step(self, raw: Any, x: Any, t: Tensor, s: Tensor) -> Any:
        return self.space.exp(x, scale(s - t, raw))

    def sample(self, x0: Any, x1: Any, t: Tensor) -> Any:
        raise TypeError("a Field joins no ends: it has only a velocity")

    def loss(self, raw: Any, x0: Any, x1: Any, x: Any, t: Tensor) -> Any:
        raise TypeError("a Field joins no ends: it has no loss")

    def endpoint(self, raw: Any, x: Any, t: Tensor) -> Any:
        raise TypeError("a Field joins no ends: it has no endpoint")
