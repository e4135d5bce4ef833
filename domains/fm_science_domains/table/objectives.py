"""The objectives of the lectures on rows: implicit score matching, action matching, maximum likelihood, and learning
from a flow that was trained before.

All hold the same cells as flow matching does: those that are missing, and in a share of the rows random ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fm_science.couplings import Coupling, Inpainting, Reflow
from fm_science.domain import Domain
from fm_science.errors import OptionError, UserError
from fm_science.flow import Flow
from fm_science.likelihood import ExactTrace, Hutchinson
from fm_science.models import load
from fm_science.objectives import JKO, ActionMatching, FlowMatching, MaximumLikelihood, ScoreMatching, UniformTime
from fm_science.objectives import Objective as Loss
from fm_science.schedules import Schedule
from fm_science.state import Context, State

from .conditional import HeldCells
from .encoding import Encoding

if TYPE_CHECKING:
    from .recipe import Objective

TRACES = {"exact": ExactTrace(), "sampled": Hutchinson()}


@dataclass(frozen=True)
class PartlyFixed(Loss):
    """An objective that pairs no noise with data, on rows some of whose cells are held."""

    objective: JKO | MaximumLikelihood
    choose: HeldCells

    @property
    def independent(self) -> bool:
        return self.objective.independent

    def __call__(self, flow: Flow, x1: State, context: Context, x0: State | None = None) -> dict[str, Tensor]:
        assert isinstance(x1, dict)
        rows, context = self.choose(x1, context)
        return self.objective(flow, rows, context)


@dataclass(frozen=True, eq=False)
class RunTeacher(Coupling):
    """Pairs noise with what a run makes of it; the run is read at the first batch, so that drawing needs it no more.

    Args:
        run: a run folder, a model file or the name of a model, of the same table.
        encoding: the columns of the student.
        given: whether cells of the student's rows are given.
    """

    run: str
    encoding: Encoding
    given: bool

    @cached_property
    def teacher(self) -> Reflow:
        """The trained flow. Raises UserError where it speaks of other rows."""
        flow = load(self.run)
        domain = flow.domain
        if not isinstance(domain, Domain) or domain.name != "table":
            raise UserError(f"objective.teacher={self.run} is no run of the domain table")
        options: Any = domain.options
        if Encoding.of(domain.statistics) != self.encoding:
            raise UserError(f"objective.teacher={self.run} learned other rows: train both on the same data")
        if self.given and not options.objective.fills:
            raise UserError(f"objective.teacher={self.run} cannot fill cells: set objective.given=0 here too")
        return Reflow(flow)

    def pair(self, space: Any, x0: State, x1: State, context: Context) -> tuple[State, State, Context]:
        return self.teacher.pair(space, x0, x1, context)


def implicit_score(o: Objective, choose: HeldCells, schedule: Schedule) -> ScoreMatching:
    """Hyvärinen's or sliced score matching, weighed by the variance of the noise."""
    _numbers_alone(o, choose.encoding)
    rule = ExactTrace() if o.score == "hyvarinen" else Hutchinson()
    return ScoreMatching(rule, Inpainting(choose), weight=lambda t: schedule(t)[1].square())


def action(o: Objective, choose: HeldCells) -> ActionMatching:
    """Action matching, for a network that is a potential."""
    _continuous(o, choose.encoding)
    return ActionMatching(Inpainting(choose))


def likelihood(o: Objective, choose: HeldCells) -> PartlyFixed:
    """Maximum likelihood with the penalties of RNODE and of OT-Flow."""
    _continuous(o, choose.encoding)
    if o.adjoint and choose.encoding.others:
        raise OptionError("objective.adjoint=true needs rows of numbers alone: leave columns of angles out")
    exact = MaximumLikelihood(
        energy=o.kinetic, jacobian=o.jacobian, hjb=o.hjb, adjoint=o.adjoint, steps=o.walk, divergence=TRACES[o.trace]
    )
    return PartlyFixed(exact, choose)


def descent(o: Objective, choose: HeldCells) -> PartlyFixed:
    """Steps down the relative entropy, a block each."""
    _continuous(o, choose.encoding)
    scheme = JKO(o.size, o.block_steps, steps=max(1, o.walk // o.blocks + 1), divergence=TRACES[o.trace])
    return PartlyFixed(scheme, choose)


def taught(o: Objective, choose: HeldCells, parts: dict[str, float]) -> FlowMatching:
    """Reflow: straighter ways between the noise and the rows of a teacher. Distillation: the same at t = 0 alone, where
    a single Euler step starts (Liu, Gong & Liu 2023, section 2.2)."""
    _continuous(o, choose.encoding)
    assert o.teacher is not None
    coupling = Inpainting(choose, partial=RunTeacher(o.teacher, choose.encoding, o.fills))
    times = UniformTime(0.0, 0.0) if o.kind == "distil" else UniformTime()
    return FlowMatching(coupling=coupling, times=times, parts=parts)


def _continuous(o: Objective, encoding: Encoding) -> None:
    """Raises OptionError where there are classes, which have no velocity."""
    if not encoding.continuous:
        raise OptionError(f"objective.kind={o.kind} needs rows of numbers and angles: leave columns of classes out")


def _numbers_alone(o: Objective, encoding: Encoding) -> None:
    """Raises OptionError where a column is no number with Gaussian noise."""
    if encoding.others:
        raise OptionError(f"objective.score={o.score} needs rows of numbers alone; denoising takes all kinds")
