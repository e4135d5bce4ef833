"""What a path is.

A path joins noise x0 and datum x1. It says where the sample is at time t, what the raw output of a network means (its
*prediction*), and which velocity follows from it. Paths know no network and no optimiser. On flat spaces a geodesic
path is the straight line of rectified flow; on classes it is the mixture path; the code is the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from fm_science.declarations import keep_renamed_members
from fm_science.priors import Prior
from fm_science.spaces.base import Space
from fm_science.state import Context, State, batch_size, leaves, scale

#: methods that had other names, which go on working for one release
RENAMED = {
    "advance": "step_to_endpoint", "drift": "endpoint_to_velocity", "follow": "step_along_velocity",
    "landing": "velocity_to_endpoint", "motion": "target_velocity", "scored": "has_score",
    "trace": "sample_with_velocity",
}  # fmt: skip


class Path(ABC):
    """How samples travel from noise (t = 0) to data (t = 1). ``raw`` is a network's output, ``t`` is ``(B,)``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        keep_renamed_members(cls, RENAMED)

    space: Space
    parts: Mapping[str, Path] = MappingProxyType({})  #: the paths of a product by name; nothing for one space
    affine: bool = False  #: whether x_t = alpha x1 + sigma x0 with noise x0 of the prior, so that it has ``weights``
    predicts_endpoint: bool = False  #: whether the raw output is the endpoint itself
    has_endpoint: bool = True  #: whether a velocity tells where its path will end, so that it gives an endpoint
    error_parts: tuple[str, ...] | None = None  #: parts whose error an adaptive solver controls; ``None``: all

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]] | tuple[int, ...] | None:
        """The shape of a network's raw output on a bound path, by name where it is a dict; ``None``: any."""
        return None

    @abstractmethod
    def bind(self, context: Context, prior: Prior | None = None) -> Path:
        """A copy whose space knows the batch, and which knows the law of the noise."""

    @abstractmethod
    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        """The point at time t between the noise ``x0`` and the datum ``x1``."""

    @abstractmethod
    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> State:
        """What a training step minimises at ``x`` = sample(x0, x1, t): ``(B,)``, or a dict of such by part."""

    @abstractmethod
    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        """The predicted velocity at ``x``, a tangent."""

    @abstractmethod
    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        """The predicted datum, a point (on classes probabilities)."""

    @abstractmethod
    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        """The point at time s when the prediction made at (x, t) is held fixed."""

    @property
    @abstractmethod
    def singular(self) -> bool:
        """Whether the velocity is undefined at t = 1, so that the last step must be :meth:`step`."""

    @property
    def steep(self) -> bool:
        """Whether the velocity is infinite at t = 0, so that walks must begin with :meth:`step`."""
        return False

    @property
    def has_score(self) -> bool:
        """Whether the law of the noise in x_t is known and Gaussian (on classes: known), so that the score has a closed
        form. That also takes noise that is independent of the data, or noise of the path's own; see
        ``score_needs_independence``."""
        return False

    @property
    def score_needs_independence(self) -> bool:
        """Whether the score rests on the noise x0, and so needs x0 to be independent of the data."""
        return True

    def score(self, raw: State, x: State, t: Tensor) -> State:
        """The gradient of the log-density of x_t, a tangent. Raises TypeError where it has no closed form."""
        raise TypeError(f"{self!r} has no score. Use Euler or Heun, or a Gaussian path.")

    def renoise_step(self, raw: State, x: State, t: Tensor, s: Tensor, keep: State) -> State:
        """As :meth:`step`, with noise exchanged for fresh noise on the way: what was noise keeps the correlation
        ``keep`` ``(B,)`` in [0, 1] with what it was (classes: each site keeps its class with that probability, else it
        is drawn anew from the prior and lives on). Leaves the law of x_t as it is. Raises TypeError without a score."""
        raise TypeError(self._unscored())

    def add_noise(self, x: State, t: Tensor, r: Tensor) -> State:
        """Back from time t to an earlier r by adding fresh noise. Raises TypeError where the noise has no known law."""
        raise TypeError(self._unscored())

    def noised(self, x1: State, r: Tensor) -> State:
        """The state at time r ``(B,)`` of a path that ends at the data ``x1``, with noise drawn from the prior that the
        path is bound to. Raises TypeError without one."""
        raise TypeError(f"{self!r} is bound to no prior, so there is no noise to add: bind(context, prior).")

    def _unscored(self) -> str:
        return (
            f"{self!r} has no score, so noise cannot be refreshed along it: that takes a linear space with a Gaussian "
            "prior, or classes with a known prior. Use Euler() or Heun(), or a Gaussian path."
        )

    def start_before_end(self, x: State, t: Tensor, independent: bool) -> tuple[State, Tensor]:
        """Where the datum ``x`` is at a time ``t`` just before 1, where its velocity exists, and how much log-density
        ``(B,)`` the move adds. Exact to second order in sigma(t) for independent noise on linear spaces; elsewhere the
        datum stays, to first order in 1 - t."""
        first = leaves(x)[0]
        return x, first.new_zeros(batch_size(x))

    def place_times(self, s: Tensor) -> Tensor:
        """Where on the clock training draws of a law of times on [0, 1] stand, ``(B,)``: as they are."""
        return s

    def check(self, times: Tensor) -> None:  # noqa: B027
        """Raises ValueError where a walk over ``times`` meets a time at which the prediction means nothing."""

    def check_compatible(self, trained: Path) -> None:  # noqa: B027
        """Raises TypeError when a network that was trained on ``trained`` means something else on this path."""

    def source(self, prior: Prior) -> Prior:
        """The law of the state at t = 0 when the noise is drawn from ``prior``."""
        return prior

    def split(self) -> tuple[Path, Path]:
        """The parts that move smoothly, and the parts that jump. Raises TypeError without parts."""
        raise TypeError(f"{self!r} has no parts to be split.")

    def only(self, *names: str) -> Path:
        """The path on some of its parts. Raises TypeError without parts."""
        raise TypeError(f"{self!r} has no parts {names}.")

    def modules(self) -> list[nn.Module]:
        """What the path itself learns."""
        return []


keep_renamed_members(Path, RENAMED)


@dataclass(frozen=True)
class Field(Path):
    """A path known only through its velocity field: the raw output is the velocity itself. It joins no data, and
    serves to integrate any field on any space (reversed flows, densities).

    Args:
        space: a bound space.
        error_parts: parts of a product whose error an adaptive solver controls; ``None``: all.
    """

    space: Space
    error_parts: tuple[str, ...] | None = None
    singular = False

    def bind(self, context: Context, prior: Prior | None = None) -> Field:
        return Field(self.space.bind(context), self.error_parts)

    def velocity(self, raw: State, x: State, t: Tensor) -> State:
        return raw

    def step(self, raw: State, x: State, t: Tensor, s: Tensor) -> State:
        return self.space.exp(x, scale(s - t, raw))

    def sample(self, x0: State, x1: State, t: Tensor) -> State:
        raise TypeError("a Field joins no ends: it has only a velocity")

    def loss(self, raw: State, x0: State, x1: State, x: State, t: Tensor) -> State:
        raise TypeError("a Field joins no ends: it has no loss")

    def endpoint(self, raw: State, x: State, t: Tensor) -> State:
        raise TypeError("a Field joins no ends: it has no endpoint")


def value_and_rate(fn: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """A function of time and its derivative at ``t`` ``(B,)``, by forward-mode differentiation."""
    return torch.func.jvp(fn, (t.clone(),), (torch.ones_like(t),))[:2]
