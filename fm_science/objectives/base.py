"""What every objective is: a call from a flow and a batch of data to named losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from typing import Self

from torch import Tensor

from fm_science.couplings import Coupling, Independent
from fm_science.flow import Flow
from fm_science.objectives.times import UniformTime
from fm_science.state import Context, State


class Objective(ABC):
    """What a training step minimises: the mean over the batch of the sum of the named losses."""

    @property
    def coupling(self) -> Coupling:
        """Which noise meets which datum."""
        return Independent()

    @property
    def independent(self) -> bool:
        """Whether noise and data are independent in training, so that what is learned gives the score."""
        return self.coupling.independent

    @property
    def independent_parts(self) -> tuple[str, ...]:
        """Parts of the state for which they are although they are not for others."""
        return self.coupling.independent_parts

    def record_training(self, flow: Flow) -> None:
        """Tell the flow how it is trained."""
        flow.independent, flow.independent_parts = self.independent, self.independent_parts

    @abstractmethod
    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        """Named losses ``(B,)`` of a batch of data ``x1``; ``x0`` is noise that came along with it."""

    def within(self, low: float, high: float) -> Self:
        """The same objective at times in [low, high) only, for a validation loss by time; an objective without a law
        of times stays as it is."""
        timed = is_dataclass(self) and any(f.name == "times" for f in fields(self))
        return replace(self, times=UniformTime(low, high)) if timed else self  # type: ignore[type-var]
