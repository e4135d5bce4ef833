"""A solver that chooses its own steps: an embedded pair of orders five and four (Dormand & Prince 1980), expressed in
the tangent space at the start of each step, so that it keeps its order on curved spaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_science.paths import Path
from fm_science.solvers.base import Predict, Solver, smooth_only
from fm_science.solvers.fixed import combine, stages
from fm_science.spaces.base import Space
from fm_science.state import State, leaves, masked_where, rows, tree_map

TABLEAU = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
ERROR = tuple(a - b for a, b in zip((*TABLEAU[-1], 0.0), FOURTH, strict=True))


@dataclass(frozen=True)
class Adaptive(Solver):
    """Steps as long as the tolerances allow, of order five. ``steps`` are output points here: if only the end is
    requested they cost nothing. On products with classes, which jump once per step, they are steps. The batch shares
    its steps, and the worst sample decides; with ``per_sample`` each sample has its own steps, as if it were alone.
    Then a sample that fails (its step vanishes, its velocity is not finite, or it takes too many steps) does not stop
    the others: it is NaN at the end, which :func:`failed` reports, and a RuntimeWarning names its row and time.

    The error of a step, the difference of both orders, is measured per degree of freedom, as the mean square with the
    weights of the sites if a space has them: on linear spaces against atol + rtol times the size of the state, on
    curved ones, whose unit of length is their curvature, against atol + rtol.

    Args:
        rtol, atol: tolerances, positive. Raises ValueError if they are below the precision of the state.
        most: the maximum number of steps between two output points. Raises RuntimeError beyond, unless ``per_sample``.
        per_sample: each sample chooses its own steps. An evaluation is of the whole batch, so there are as many as the
            worst sample needs, and the accuracy of a sample does not depend on the others.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    most: int = 10_000
    per_sample: bool = False
    order = 5
    needs_log = True

    def check(self, path: Path) -> None:
        smooth_only(self, path, parts=True)

    def waypoints(self, path: Path, times: Tensor) -> Tensor:
        if not path.space.smooth:  # classes jump at these times
            return times
        if not (path.singular and float(times[-1]) == 1):
            return times[[0, -1]]
        if len(times) == 2:
            raise ValueError(
                f"{self!r} cannot reach t = 1, where the velocity of this path is undefined: use more steps, and "
                "the last step goes from the last time before the end."
            )
        return times[[0, -2, -1]]

    def trajectory(self, path: Path, predict: Predict, x: State, times: Tensor) -> Iterator[State]:
        if not self.per_sample:
            yield from super().trajectory(path, predict, x, times)
            return
        apart = _Apart(self, leaves(x)[0])
        for state in apart.trajectory(path, predict, x, times):
            yield apart.marked(state)
        apart.report()

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        if self.per_sample:  # one step for all
            apart = _Apart(self, leaves(x)[0])
            return apart.marked(apart.step(path, predict, x, t, h))
        smooth_only(self, path)
        self.resolvable(leaves(x)[0].dtype)
        if not len(t):
            return x
        end, now = float((t + h)[0]), float(t[0])
        v = path.velocity(predict(x, t), x, t)
        size = self.first
        for _ in range(self.most):
            left = end - now
            size = min(size, left) if left - size > 1e-3 * size else left  # no tiny step is left over
            y, last, errors = self.attempt(path, predict, x, torch.full_like(t, now), torch.full_like(t, size), v)
            error = float(errors.max())
            if error <= 1:
                x, v, now = y, last, now + size
                if size == left:
                    return x
            size *= min(5.0, max(0.2, 0.9 * max(error, 1e-10) ** -0.2))
            if not size > 1e-14 * max(abs(end), 1e-3):
                raise RuntimeError(f"{self!r}: the step vanishes at t = {now:.6g}; the velocity may be singular there.")
        raise RuntimeError(f"{self!r} took {self.most} steps between two output points; it stopped at t = {now:.6g}.")

    @property
    def first(self) -> float:
        """The first trial step."""
        return 0.3 * (self.rtol + self.atol) ** 0.2

    def resolvable(self, dtype: torch.dtype) -> None:
        """Raises ValueError for tolerances below rounding."""
        least = 8 * torch.finfo(dtype).eps
        if self.rtol + self.atol < least:
            raise ValueError(
                f"{self!r} asks for more than {dtype} can tell: rtol + atol must be at least {least:.1e}. Use double "
                "precision, or larger tolerances."
            )

    def attempt(
        self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor, v: State
    ) -> tuple[State, State, Tensor]:  # fmt: skip
        """The end of a step, the velocity there, and the errors ``(B,)`` in units of the tolerance, infinite where
        they are not numbers."""
        last, k = stages(path, predict, x, t, h, TABLEAU, v)
        y = path.space.exp(x, combine(h, TABLEAU[-1], k[:-1]))
        error = self._gauge(path.space, x, combine(h, ERROR, k), path.error_parts)
        return y, last, torch.where(error.isnan(), torch.inf, error)

    def _gauge(self, space: Space, x: State, u: State, error_parts: tuple[str, ...] | None = None) -> Tensor:
        """The length of a tangent in units of the tolerance, ``(B,)``: the largest over the parts of a product."""
        if space.parts:
            names = error_parts if error_parts is not None else tuple(space.parts)
            return torch.stack([self._gauge(space.parts[k], x[k], u[k]) for k in names]).amax(0)
        count = torch.where(space.measure > 0, space.measure, 1)  # if sites have weights, their sum
        size = (space.inner(x, x, x) / count).sqrt() if space.linear else 1.0
        return (space.inner(x, u, u) / count).clamp_min(0).sqrt() / (self.atol + self.rtol * size)


class _Apart(Solver):
    """The integration of a batch whose samples have their own adaptive steps. Samples that have failed stay where they
    were, so that the network gets finite input, and are marked in the output."""

    order, needs_log = Adaptive.order, Adaptive.needs_log

    def __init__(self, rule: Adaptive, like: Tensor) -> None:
        self.rule = rule
        self.failed_at = like.new_full((len(like),), torch.nan, dtype=torch.float64)  #: NaN: not failed

    def check(self, path: Path) -> None:
        self.rule.check(path)

    def marked(self, x: State) -> State:
        """The state with NaN for samples that have failed."""
        return tree_map(lambda v: masked_where(self.failed_at.isnan(), v, torch.nan), x)

    def report(self) -> None:
        """Warn about samples that have failed."""
        if bool((lost := ~self.failed_at.isnan()).any()):
            found = [f"{i} (t = {float(self.failed_at[i]):.6g})" for i in lost.nonzero().flatten().tolist()]
            more = ", ..." if len(found) > 8 else ""
            warnings.warn(
                f"{self.rule!r}: {len(found)} of {len(lost)} samples failed and are NaN: {', '.join(found[:8])}{more}. "
                "The velocity may be singular or not finite there.",
                RuntimeWarning,
                stacklevel=2,
            )

    def step(self, path: Path, predict: Predict, x: State, t: Tensor, h: Tensor) -> State:
        smooth_only(self.rule, path)
        self.rule.resolvable(leaves(x)[0].dtype)
        end, now = (t + h).double(), t.double()
        v = path.velocity(predict(x, t), x, t)
        finite = torch.stack([rows(u).isfinite().all(1) for u in leaves(v)]).all(0)
        self._fail(~finite, now)
        size = torch.full_like(now, self.rule.first)
        for _ in range(self.rule.most):
            active = self.failed_at.isnan() & (now < end)
            if not bool(active.any()):
                return x
            left = end - now
            size = torch.minimum(size, left)
            size = torch.where(left - size > 1e-3 * size, size, left)  # no tiny step is left over
            tried = torch.where(active, size, 0.0).to(t)
            y, last, error = self.rule.attempt(path, predict, x, now.to(t), tried, v)
            good = active & (error <= 1)
            x, v = (tree_map(lambda a, b, good=good: masked_where(good, a, b), *pair) for pair in ((y, x), (last, v)))
            now = torch.where(good, torch.where(size == left, end, now + size), now)
            size = size * (0.9 * error.double().clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
            self._fail(active & (now < end) & ~(size > 1e-14 * end.abs().clamp_min(1e-3)), now)
        self._fail(self.failed_at.isnan() & (now < end), now)
        return x

    def _fail(self, lost: Tensor, now: Tensor) -> None:
        self.failed_at = torch.where(lost & self.failed_at.isnan(), now, self.failed_at)


def failed(x: State) -> Tensor:
    """Which samples of a state failed in an adaptive solver with ``per_sample``, ``(B,)`` bool: those with a NaN."""
    return torch.stack([rows(v).isnan().any(1) for v in leaves(x)]).any(0)
