"""Reflow: a flow that is trained on the ends of another keeps its law and goes straight.

The rectified flow from N(0, I) to N(m, S) with independent noise carries x to m + S^(1/2) x. In one dimension any
rectified flow is the increasing map between both laws, its paths do not cross, and one round of reflow makes them
straight (Liu, Gong & Liu 2023, theorem 3.7).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_science.couplings import Reflow
from fm_science.flow import Flow
from fm_science.objectives import FlowMatching
from fm_science.paths import Gaussian, Geodesic
from fm_science.priors import Normal
from fm_science.schedules import Linear
from fm_science.solvers import RK4, Euler
from fm_science.spaces import Euclidean
from fm_science.state import Context, expand_like
from tests.oracles.closed_forms import Mixture, matrix_root
from tests.oracles.gaussians import gaussian_pair
from tests.oracles.table import largest, oracle


def _gaussians() -> tuple[Flow, Flow]:
    """The flow of independent Gaussians, and the exact student of its pairs."""
    path = Geodesic(Euclidean(3))
    return Flow(path, Normal(), gaussian_pair("independent")), Flow(path, Normal(), gaussian_pair("optimal"))


@oracle("reflow, Gaussians: the teacher's pairs are the rectified map m + S^(1/2) x", 1e-8)
def teacher_map() -> float:
    teacher, _ = _gaussians()
    law, context = gaussian_pair("independent"), Context.full(64)
    x0 = torch.randn(64, 1, 3)
    x0, x1, _ = Reflow(teacher, RK4(), 100).pair(teacher.path.space.bind(context), x0, x0, context)
    return largest(x1 - (law.m1 + x0 @ matrix_root(law.s1)))


@oracle("reflow, Gaussians: straightness gap after one round", 1e-12)
def gaussian_gap() -> float:
    teacher, student = _gaussians()
    objective = FlowMatching(Reflow(teacher, RK4(), 100))
    return largest(objective(student, torch.zeros(256, 1, 3), Context.full(256))["loss"])


@oracle("reflow, Gaussians: the student keeps the law of the data (log-density)", 1e-6)
def gaussian_law() -> float:
    teacher, student = _gaussians()
    law, context = gaussian_pair("independent"), Context.full(64)
    x = teacher.transport(torch.randn(64, 1, 3), context, RK4(), 100)
    return largest(student.log_prob(x, context, steps=20) - law.log_prob(x))


class Increasing:
    """The increasing map from N(0, 1) to a mixture on the line, and the velocity of the straight lines along it."""

    def __init__(self) -> None:
        self.law = Mixture(torch.tensor([0.6, 0.4]), torch.tensor([[1.5], [-1.0]]), torch.tensor([0.5, 0.3]))

    def cdf(self, y: Tensor) -> Tensor:
        """The distribution function of the mixture."""
        z = (y[..., None] - self.law.mean[:, 0]) / self.law.std
        return (self.law.weight * torch.special.ndtr(z)).sum(-1)

    def map(self, x: Tensor) -> Tensor:
        """Where ``x`` goes."""
        return bisect(self.cdf, torch.special.ndtr(x))

    def __call__(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        r = expand_like(t, x)
        x0 = bisect(lambda y: (1 - r) * y + r * self.map(y), x)
        return self.map(x0) - x0


def bisect(f: object, value: Tensor, reach: float = 9.0) -> Tensor:
    """Where an increasing function takes a value, between -reach and reach."""
    low, high = torch.full_like(value, -reach), torch.full_like(value, reach)
    for _ in range(56):
        middle = 0.5 * (low + high)
        left = f(middle) < value  # type: ignore[operator]
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return 0.5 * (low + high)


def _mixture() -> tuple[Flow, Increasing]:
    exact = Increasing()
    teacher = Flow(Gaussian(Euclidean(1), Linear()), Normal(), exact.law.network(Linear(), "velocity"))
    return teacher, exact


@oracle("reflow, a mixture on the line: the teacher's map is the increasing one, marginals kept", 1e-6)
def mixture_map() -> float:
    teacher, exact = _mixture()
    x0 = torch.linspace(-2.5, 2.5, 101).reshape(-1, 1, 1)
    x1 = teacher.transport(x0, Context.full(101), RK4(), 300)
    return largest(exact.cdf(x1) - torch.special.ndtr(x0))


@oracle("reflow, a mixture on the line: straightness gap after one round, and one Euler step is the map", 1e-9)
def mixture_gap() -> float:
    teacher, exact = _mixture()
    context, path = Context.full(32), Geodesic(Euclidean(1))
    student = Flow(path, Normal(), exact)
    gap = FlowMatching(Reflow(teacher, RK4(), 300))(student, torch.zeros(32, 1, 1), context)["loss"]
    x0 = torch.randn(32, 1, 1)
    return max(largest(gap), largest(student.transport(x0, context, Euler(), 1) - exact.map(x0)))
